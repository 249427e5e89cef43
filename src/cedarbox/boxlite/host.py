"""What the host must have: a home for BoxLite, and KVM."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from cedarbox.boxlite import api
from cedarbox.boxlite.lease import LeasedRuntime
from cedarbox.errors import HostError

__all__ = ["check_kvm", "default_home", "opened"]


def default_home() -> Path:
    """Return the BoxLite home of this user: ``$XDG_STATE_HOME/cedarbox/boxlite``, else below ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "cedarbox" / "boxlite"


def opened(home: Path) -> LeasedRuntime:
    """Open the BoxLite runtime of a home, which is made with mode 0700 when it is missing.

    Args:
        home: The directory.

    Returns:
        The runtime. It owns the home until it is shut down, whoever still holds a handle of it then.

    Raises:
        HostError: The home cannot be used, belongs to somebody else, or another runtime owns it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.stat()
    except OSError as error:
        raise HostError(
            f"the BoxLite home {home} cannot be made: {error.strerror}", hint="give another home="
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise HostError(f"the BoxLite home {home} is not a directory of this user", hint="give another home=")
    if status.st_mode & 0o022:
        raise HostError(f"others can write to the BoxLite home {home}", hint=f"chmod 700 {home}")
    try:
        return LeasedRuntime(api.open_runtime(home))
    except api.InternalError as error:
        raise HostError(
            f"another process or client uses the BoxLite home {home}",
            hint="stop it, share one client, or give another home=",
        ) from error
    except api.BoxliteError as error:
        raise HostError(f"BoxLite cannot open its home {home}: {error}", hint="give another home=") from error


def check_kvm(device: Path = Path("/dev/kvm")) -> None:
    """Check that this process may use KVM. Other systems than Linux are left to BoxLite.

    Args:
        device: The device of KVM.

    Raises:
        HostError: It is missing or may not be used.
    """
    if not sys.platform.startswith("linux"):
        return
    if not device.exists():
        raise HostError(
            f"{device} is missing, so no microVM can start",
            hint="turn on virtualisation in the firmware, or nested virtualisation of this machine, and load kvm",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise HostError(
            f"{device} may not be used by this user, so no microVM can start",
            hint="add the user to the group kvm and log in again",
        )
