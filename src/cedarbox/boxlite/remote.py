"""BoxLite over REST: the same client, without what a remote runtime cannot do.

What it cannot do is refused here before anything is sent: over REST, BoxLite 0.10.8 refuses some of it itself, sends a
path of this host as if it were one of the server's (``rootfs_path``), and drops the user of a command without a word
(all measured on the wire).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Final

from cedarbox.boxlite import api
from cedarbox.boxlite.guestio import GuestRunner
from cedarbox.boxlite.marked import GuestFailure
from cedarbox.boxlite.options import BoxLiteSandboxClientOptions
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.errors import ConfigurationError, HostError

__all__ = ["NO_USER", "check_network", "check_remote", "is_remote"]

NO_USER = "a remote BoxLite runs every command as the sandbox's own user: the user of a command is not sent"
"""Why a command with a user is refused."""

_LOCAL = "use a BoxLite home of this machine for it"
_LOOK_SECONDS = 30.0

# What is up or has a device can carry traffic; a dummy0 of the kernel's own is down and leads nowhere.
_CARDS: Final = """
cd /sys/class/net || exit 1
for i in *; do [ "$i" = lo ] && continue
if [ -e "$i/device" ] || [ "$(cat "$i/operstate" 2>/dev/null)" != down ]; then echo "$i"; fi; done
"""


def is_remote(runtime: api.Runtime) -> bool:
    """Tell whether a runtime speaks to a server. Nothing is made and nothing is sent.

    Local and REST runtimes are of one class and look alike. They refuse impossible options with different errors
    (measured on BoxLite 0.10.8).

    Args:
        runtime: A ``boxlite.Boxlite``.

    Raises:
        ConfigurationError: It is none, or it answers as neither would.
    """
    if not api.is_runtime(runtime):
        raise ConfigurationError(
            f"runtime: {type(runtime).__name__} is not a boxlite.Boxlite", hint="give home= instead"
        )
    answers: list[BaseException | None] = []

    async def ask() -> None:
        try:
            await runtime.create(api.refused_by_both())
            answers.append(None)
        except api.BoxliteError as error:
            answers.append(error)

    # A loop of its own: a client is made with and without one running.
    asking = threading.Thread(target=lambda: asyncio.run(ask()))
    asking.start()
    asking.join()
    answer = answers[0] if answers else None
    if isinstance(answer, api.UnsupportedError):
        return False
    if isinstance(answer, api.ConfigError):
        return True
    raise ConfigurationError(
        f"runtime: it cannot be told whether it is remote ({answer})", hint="use boxlite >=0.10.8,<0.11"
    )


def check_remote(source: BoxLiteSandboxClientOptions | BoxLiteSandboxSessionState) -> None:
    """Refuse what a remote runtime cannot do.

    The broker carries nothing there: with ``egress_mode="broker"`` and no list the sandbox has no network, as with
    ``"none"``, and a list is refused.

    Args:
        source: Options, or the state of a session.

    Raises:
        ConfigurationError: Names what is refused.
    """
    if source.rootfs is not None:
        raise ConfigurationError("rootfs: a remote BoxLite cannot read a layout of this machine", hint="give image=")
    if source.mounts:
        raise ConfigurationError("mounts: a remote BoxLite cannot share directories of this machine", hint=_LOCAL)
    if source.exposed_ports:
        raise ConfigurationError("exposed_ports: a remote BoxLite cannot publish ports on this machine", hint=_LOCAL)
    if source.secrets:
        raise ConfigurationError("secrets: their values would be sent to the server of a remote BoxLite", hint=_LOCAL)
    if source.egress_mode == "broker" and source.egress_allowlist:
        raise ConfigurationError(
            "egress_allowlist: the broker carries no connections of a remote BoxLite in this version",
            hint='set egress_mode to "nic", or to "none" and list nothing',
        )
    if source.workspace_persistence == "native":
        raise ConfigurationError(
            "workspace_persistence: native snapshots of a remote BoxLite cannot be verified", hint="give tar or auto"
        )


async def check_network(runner: GuestRunner, egress: Sequence[str]) -> None:
    """Look into a remote guest for a network card when none was asked for.

    A server does not tell what network it gave a microVM (measured on BoxLite 0.10.8), so the guest is looked at
    before anything of the agent runs in it. What an allow-list lets through cannot be seen from inside: it is the
    word of the server's operator.

    Args:
        runner: Runs commands in the guest.
        egress: The egress allow-list of the sandbox.

    Raises:
        HostError: There is a card, or it cannot be told.
    """
    if egress:
        return
    hint = "this server does not keep to the request, so its sandboxes have a network"
    try:
        result = await runner.run(("/bin/sh", "-c", _CARDS), timeout_s=_LOOK_SECONDS)
    except (GuestFailure, api.BoxliteError, TimeoutError) as error:
        raise HostError(f"it cannot be told whether the remote sandbox has a network card: {error}") from error
    if result.exit_code != 0:
        raise HostError("it cannot be told whether the remote sandbox has a network card", hint="mount /sys in it")
    if cards := result.stdout.decode("utf-8", "replace").split():
        raise HostError(f"the remote sandbox has a network card ({', '.join(cards)[:100]}), asked for none", hint=hint)
