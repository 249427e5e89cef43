"""Finding boxes by exactly their id, and the one of a session's state."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from cedarbox.boxlite import api
from cedarbox.boxlite.mounts import mark
from cedarbox.boxlite.network import card
from cedarbox.boxlite.secrets import secrets_mark
from cedarbox.boxlite.snapshots import SnapshotStore
from cedarbox.boxlite.state import BoxLiteSandboxSessionState

__all__ = ["INFO_SECONDS", "exactly", "network_mark", "reattached"]

INFO_SECONDS: Final = 30.0
"""Seconds that an answer about a box may take. A server may be slow; the REST client itself gives up after 300 s."""


async def exactly(runtime: api.Runtime, box_id: str) -> api.Box | None:
    """Find a box by its id.

    BoxLite finds by prefix and an empty id matches all (measured on BoxLite 0.10.8), so the id is compared.

    Args:
        runtime: The BoxLite runtime.
        box_id: The whole id.

    Returns:
        A handle, or ``None``.

    Raises:
        BoxliteError: BoxLite failed.
    """
    if not box_id:
        return None
    try:
        box = await runtime.get(box_id)
    except api.MissingError:
        return None
    return box if box is not None and box.id == box_id else None


async def reattached(
    runtime: api.Runtime, state: BoxLiteSandboxSessionState, store: SnapshotStore | None, *, remote: bool = False
) -> api.Box | None:
    """Find the microVM of a state again, running or stopped.

    A microVM whose processors, memory, network, mounts or secrets are not those of the state is not taken, nor one that
    holds a snapshot.

    Args:
        runtime: The BoxLite runtime.
        state: The session's state.
        store: The snapshots of the home, when it can have any.
        remote: A server has it. When that does not answer, the microVM may well live on: it is not given up then.

    Returns:
        A handle on it, or ``None``.

    Raises:
        BoxliteError: The server did not tell.
        TimeoutError: The server did not answer within 30 s.
        SnapshotError: It cannot be told which boxes hold snapshots.
    """
    if store is not None and state.box_id in await asyncio.to_thread(store.holders):
        return None
    try:
        async with asyncio.timeout(INFO_SECONDS if remote else None):
            box = await exactly(runtime, state.box_id)
            if box is None:
                return None
            info = await box.info()
    except api.MissingError:
        return None
    except api.BoxliteError:
        if remote:
            raise
        return None
    egress = card(state.egress_mode, state.egress_allowlist)
    if info.network is None:
        # A server does not tell the network (measured on BoxLite 0.10.8). Its own name tells what it was made with.
        same_network = (info.name or "").endswith(network_mark(state))
    else:
        outbound = info.network.outbound
        has_network = (outbound.mode, tuple(outbound.allow_net)) if outbound is not None else None
        same_network = has_network == ("enabled" if egress else "disabled", egress)
    same_size = (info.cpus, info.memory_mib) == (state.cpus, state.memory_mib)
    if info.network is None:
        return box if same_network and same_size else None
    # cedarbox, a random number, and what was marked.
    marked = (info.name or "").split("-", 2)[2:]
    same_marks = "".join(f"-{text}" for text in marked) == mark(state.mounts) + secrets_mark(state.secrets)
    return box if same_network and same_size and same_marks else None


def network_mark(state: BoxLiteSandboxSessionState) -> str:
    """Return the end of a remote microVM's name, which tells the network that it was made with.

    Args:
        state: The session's state.
    """
    return f"-n{hashlib.sha256(' '.join(card(state.egress_mode, state.egress_allowlist)).encode()).hexdigest()[:32]}"
