"""One sandbox from its making to its end and back: told once, asked about by many checks.

A start may take half a minute, so the life of a sandbox is lived once. Each step notes what it saw; a check looks its
notes up, and fails when the story never came that far.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.sandbox.entries import File
from agents.sandbox.manifest import Environment, Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec

from cedarbox.conformance.backend import Backend
from cedarbox.conformance.bench import EVERY, Bench, content
from cedarbox.conformance.check import Failure, one_line
from cedarbox.forks import fork

__all__ = ["Story"]


@dataclass
class Story:
    """The life of one sandbox.

    Attributes:
        notes: What was seen, by name.
        trouble: Why the story ended early; empty when it did not.
        step: The step that was taken last.
    """

    notes: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""
    step: str = "nothing"
    told: bool = False

    def of(self, name: str) -> Any:
        """Return a note.

        Raises:
            Failure: The story never came that far.
        """
        if name not in self.notes:
            raise Failure(f"never seen, because {self.step} failed: {self.trouble}" if self.trouble else "never seen")
        return self.notes[name]

    async def tell(self, bench: Bench) -> None:
        """Live through it, once."""
        if self.told:
            return
        self.told = True
        sessions: list[SandboxSession] = []
        try:
            with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
                await self._live(bench, Path(directory), sessions)
        except Exception as error:  # noqa: BLE001  # it is the finding of every check that wanted more
            self.trouble = one_line(error)
        finally:
            for session in sessions:
                await _over(bench.backend, session)

    async def _live(self, bench: Bench, kept: Path, sessions: list[SandboxSession]) -> None:
        backend, notes = bench.backend, self.notes
        self.step = "creating"
        manifest = Manifest(
            root=backend.root,
            entries={"given.txt": File(content=b"given"), "passing.txt": File(content=b"passing", ephemeral=True)},
            environment=Environment(value={"STORY": "told"}),
        )
        session = await backend.client.create(
            manifest=manifest, options=backend.options, snapshot=LocalSnapshotSpec(base_path=kept)
        )
        sessions.append(session)
        await self._first_life(bench, session)

        self.step = "reattaching"
        session = await _taken_up(backend, await _saved(backend, session), sessions)
        notes["tree after reattaching"], notes["later after reattaching"] = await _seen(session, "later.txt")
        await session.exec("rm -f later.txt; echo again >again.txt")

        self.step = "deleting"
        await session.stop()
        await session.shutdown()
        payload = await _saved(backend, session)
        await backend.client.delete(session)
        notes["running after delete"] = await session.running()
        await backend.client.delete(session)
        notes["deleted twice"] = True

        self.step = "resuming after deletion"
        session = await _taken_up(backend, payload, sessions)
        notes["running after resuming"] = await session.running()
        notes["tree after resuming"], notes["again after resuming"] = await _seen(session, "again.txt")
        notes["content after resuming"] = await content(session, "every.bin")
        notes["passing after resuming"] = (await session.exec("cat passing.txt; printf %s $STORY")).stdout
        notes["id after resuming"] = str(session.state.session_id)

        self.step = "forking"
        await session.stop()
        await self._forked(backend, session, sessions)

    async def _forked(self, backend: Backend, parent: SandboxSession, sessions: list[SandboxSession]) -> None:
        forks = await fork(backend.client, parent.state, 2)
        sessions.extend(forks)
        self.notes["ids of forks"] = [str(each.state.session_id) for each in (parent, *forks)]
        self.notes["trees of forks"] = [(await _seen(each, "again.txt")) for each in forks]
        for number, each in enumerate(forks):
            await each.exec(f"echo {number} >of-one-fork; echo {number} >again.txt")
        look = "cat of-one-fork again.txt"
        self.notes["writes of forks"] = [(await each.exec(look)).stdout for each in (parent, *forks)]

    async def _first_life(self, bench: Bench, session: SandboxSession) -> None:
        notes = self.notes
        notes["id"] = str(session.state.session_id)
        notes["running before start"] = await session.running()
        self.step = "starting"
        await session.start()
        notes["running after start"] = await session.running()
        await self._apart(bench, session)
        await session.write(Path("every.bin"), io.BytesIO(EVERY))
        await session.exec("printf '#!/bin/sh\\n' >tool; chmod 750 tool; ln -s tool link; mkdir void; rm given.txt")
        marker = bench.marker()
        if session.supports_pty():
            update = await session.pty_exec_start(f"sleep {marker}", yield_time_s=0.25)
            notes["terminal"] = update.process_id

        self.step = "serialising"
        await self._serialised(bench.backend, session)

        self.step = "stopping"
        await session.stop()
        await session.stop()
        notes["stopped twice"] = True
        notes["terminals after stop"] = await bench.over(session).alive(marker)
        await session.exec("echo later >later.txt")

        self.step = "shutting down"
        await session.shutdown()
        notes["running after shutdown"] = await session.running()
        await session.shutdown()
        notes["shut down twice"] = True
        notes["exec after shutdown"] = await _outcome(lambda: session.exec("echo ran"))

    async def _apart(self, bench: Bench, session: SandboxSession) -> None:
        """Two sandboxes at once: what one writes or runs is not in the other."""
        marker = bench.marker()
        self.notes["other id"] = str(bench.session.state.session_id)
        elsewhere = f"/tmp/of-the-story-{bench.nonce}"  # noqa: S108  # in the sandbox
        await session.exec(
            f"echo mine >of-the-story; echo mine >{elsewhere}; sleep {marker} >/dev/null 2>&1 </dev/null &"
        )
        other = await bench.exec(f"test -e of-the-story; echo $?; test -e {elsewhere}; echo $?")
        self.notes["files apart"] = other.stdout
        self.notes["process seen"] = await bench.alive(marker)
        await session.exec(f"rm -f of-the-story {elsewhere}")
        await bench.over(session).kill(marker)

    async def _serialised(self, backend: Backend, session: SandboxSession) -> None:
        client = backend.client
        first = client.serialize_session_state(session.state)
        text = json.dumps(first)
        again = client.deserialize_session_state(json.loads(text))
        self.notes["state type"] = (type(again).__name__, type(session.state).__name__)
        self.notes["state round trip"] = (json.dumps(client.serialize_session_state(again), sort_keys=True)) == (
            json.dumps(json.loads(text), sort_keys=True)
        )
        self.notes["backend ids"] = (client.backend_id, first.get("type"))

        async def foreign() -> object:
            return client.deserialize_session_state({**json.loads(text), "type": "of-another-backend"})

        self.notes["foreign state"] = await _outcome(foreign)


async def _saved(backend: Backend, session: SandboxSession) -> dict[str, object]:
    """Return a state as it is kept between two processes."""
    payload: dict[str, object] = json.loads(json.dumps(backend.client.serialize_session_state(session.state)))
    return payload


async def _taken_up(backend: Backend, payload: dict[str, object], sessions: list[SandboxSession]) -> SandboxSession:
    session = await backend.client.resume(backend.client.deserialize_session_state(payload))
    sessions.append(session)
    await session.start()
    return session


async def _seen(session: SandboxSession, name: str) -> tuple[bytes, bytes]:
    """Return kinds and modes of the story's files, and the content of one more."""
    names = "every.bin tool link void given.txt"
    script = f"for f in {names}; do stat -c '%n %F %a' $f 2>/dev/null || echo $f missing; done; echo --; cat {name}"
    tree, _, text = (await session.exec(script)).stdout.partition(b"--\n")
    return tree, text


async def _outcome(attempt: Callable[[], Awaitable[object]]) -> str:
    """Return ``refused`` when an attempt raises, else what it gave."""
    try:
        result = await attempt()
    except Exception as error:  # noqa: BLE001  # which error it is, is the backend's own matter here
        return f"refused: {one_line(error)}"
    return f"gave {result!r}"


async def _over(backend: Backend, session: SandboxSession) -> None:
    for end in (session.shutdown, lambda: backend.client.delete(session)):
        try:
            await end()
        except Exception as error:  # noqa: BLE001  # the next one must be tried too
            _ = error
