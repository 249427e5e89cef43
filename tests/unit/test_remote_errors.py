"""What a remote BoxLite can answer instead, and what a user of the SDK is told then."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.errors import (
    ExecTransportError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceStartError,
    WorkspaceStopError,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from tests.unit.rest_server import Fault, Server, rest, serving
from tests.unit.test_remote_wire import options, started

from cedarbox import BoxLiteSandboxClient
from cedarbox.errors import CedarboxError, HostError, ImageError

# Statuses and codes as the description has them, and an answer of a proxy that knows nothing of it.
ANSWERS = [
    (400, "invalid_argument", "argument_refused", False),
    (401, "unauthenticated", "configuration_or_credential_refused", False),
    (403, "permission_denied", "configuration_or_credential_refused", False),
    (404, "not_found", "not_found", False),
    (409, "already_exists", "already_exists", False),
    (409, "invalid_state", "not_possible_in_this_state", None),
    (409, "stopped", "microvm_stopped", False),
    (410, "session_reaped", "process_gone", False),
    (422, "execution_failed", "process_failed", None),
    (429, "resource_exhausted", "limit_reached", True),
    (500, "internal", "runtime_failed", None),
    (500, "", "runtime_failed", None),
    (502, "", "server_unreachable", True),
    (503, "engine_unavailable", "virtual_machine_failed", None),
    (503, "network_unavailable", "server_unreachable", True),
    (503, "upstream_unavailable", "guest_did_not_answer", None),
]

_BOX: dict[str, Any] = {
    "status": "stopped",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
    "pid": None,
    "image": "a",
    "cpus": 1,
    "memory_mib": 512,
    "labels": {},
}
NOT_STARTED = {
    "argument_refused",
    "configuration_or_credential_refused",
    "limit_reached",
    "microvm_stopped",
    "not_found",
    "not_possible_in_this_state",
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "guest") as made:
        yield made


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Server, SandboxSession]]:
    async with serving(tmp_path_factory.mktemp("remote") / "guest") as made:
        _, session = await started(made)
        yield made, session


def one_line(error: BaseException) -> bool:
    return "\n" not in str(error) and "Traceback" not in str(error)


@pytest.mark.parametrize(("status", "code", "reason", "retryable"), ANSWERS)
async def test_a_command_that_the_server_refuses(
    running: tuple[Server, SandboxSession], status: int, code: str, reason: str, retryable: bool | None
) -> None:
    server, session = running
    server.faults["POST exec"] = Fault(status, code)
    try:
        with pytest.raises(ExecTransportError) as caught:
            await session.exec("true")
        with pytest.raises(ExecTransportError) as typed:
            await session.pty_exec_start("true", tty=True)
    finally:
        del server.faults["POST exec"]
    for error in (caught.value, typed.value):
        assert one_line(error)
        assert (error.context["reason"], error.retryable) == (reason, retryable)
    # A command certainly did not start only where the server's answer can mean nothing else.
    assert "retry_safe" not in caught.value.context
    assert typed.value.context.get("retry_safe") is (True if reason in NOT_STARTED else None)
    assert (await session.exec("printf fine")).stdout == b"fine"


async def test_a_guest_that_ended_meanwhile_is_named(running: tuple[Server, SandboxSession]) -> None:
    server, session = running
    (box,) = server.boxes.values()
    server.faults["POST exec"], box["status"] = Fault(503, "upstream_unavailable"), "stopped"
    try:
        with pytest.raises(ExecTransportError, match="the sandbox's guest is gone") as typed:
            await session.pty_exec_start("true", tty=True)
    finally:
        server.faults.clear()
        box["status"] = "running"
    # It may have run the command before it ended.
    assert "retry_safe" not in typed.value.context


async def test_files_and_archives_that_the_server_refuses(running: tuple[Server, SandboxSession]) -> None:
    server, session = running
    inner: Any = session._inner
    target = str(server.root.parent / "workspace" / "x")
    server.faults["POST exec"] = Fault(503, "network_unavailable")
    try:
        with pytest.raises(WorkspaceArchiveReadError) as read:
            await inner.persist_workspace()
        with pytest.raises(WorkspaceArchiveWriteError) as written:
            await inner._put(Path("x"), target, io.BytesIO(b"x"), user=None, new=False)
    finally:
        del server.faults["POST exec"]
    assert one_line(read.value)
    assert one_line(written.value)
    for error in (read.value, written.value):
        assert (error.context["reason"], error.retryable) == ("server_unreachable", True)


async def test_output_that_was_lost_is_not_a_result(running: tuple[Server, SandboxSession]) -> None:
    server, session = running
    server.deaf = True
    try:
        with pytest.raises(ExecTransportError) as caught:
            await session.exec("true")
    finally:
        server.deaf = False
    assert "retry_safe" not in caught.value.context


@pytest.mark.parametrize("at", ["POST boxes", "POST start"])
@pytest.mark.parametrize(("status", "code"), [(answer[0], answer[1]) for answer in ANSWERS])
async def test_a_start_that_the_server_refuses(server: Server, at: str, status: int, code: str) -> None:
    server.faults[at] = Fault(status, code)
    client = BoxLiteSandboxClient(runtime=server.runtime())
    session = await client.create(options=options())
    with pytest.raises(HostError, match="check the server's address") as caught:
        await session.start()
    assert one_line(caught.value)
    assert server.boxes == {}


async def test_an_image_that_the_server_cannot_get(server: Server) -> None:
    server.faults["POST start"] = Fault(422, "image_pull_failed")
    session = await BoxLiteSandboxClient(runtime=server.runtime()).create(options=options())
    with pytest.raises(ImageError, match="cannot get the image"):
        await session.start()
    assert server.boxes == {}


async def test_a_wrong_key(server: Server) -> None:
    session = await BoxLiteSandboxClient(runtime=server.runtime(key="wrong")).create(options=options())
    with pytest.raises(HostError, match="check the server's address, its credential"):
        await session.start()
    assert server.boxes == {}


async def test_no_server_at_all() -> None:
    client = BoxLiteSandboxClient(runtime=rest("http://127.0.0.1:1"))
    session = await client.create(options=options())
    with pytest.raises(CedarboxError, match="could not start") as caught:
        await session.start()
    assert one_line(caught.value)


async def test_a_server_that_does_not_answer(server: Server) -> None:
    server.faults["POST start"] = Fault(0)
    session = await BoxLiteSandboxClient(runtime=server.runtime()).create(options=options(boot_timeout_s=1.0))
    inner: Any = session._inner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cedarbox.boxlite.machine._SETTLE_SECONDS", 0.1)
        with pytest.raises(HostError, match="did not start within 1 s"):
            await session.start()
    assert not await inner.running()
    assert server.boxes == {}


async def test_a_half_made_box_is_removed_also_where_there_are_many(server: Server) -> None:
    for number in range(120):
        server.boxes[f"other{number}"] = {"box_id": f"other{number}", "name": None, **_BOX}
    server.faults["POST start"] = Fault(500, "internal")
    session = await BoxLiteSandboxClient(runtime=server.runtime()).create(options=options())
    with pytest.raises(HostError):
        await session.start()
    assert {name[:5] for name in server.boxes} == {"other"}
    assert len(server.boxes) == 120


@pytest.mark.parametrize(
    ("status", "code"), [(401, "unauthenticated"), (500, "internal"), (503, "network_unavailable")]
)
async def test_a_server_that_does_not_tell_is_no_reason_to_forget_a_sandbox(
    server: Server, status: int, code: str
) -> None:
    client, session = await started(server)
    saved = client.serialize_session_state(session.state)
    server.faults["GET box"] = Fault(status, code)
    with pytest.raises(WorkspaceStartError) as caught:
        await client.resume(client.deserialize_session_state(dict(saved)))
    assert one_line(caught.value)
    assert caught.value.retryable is (True if code == "network_unavailable" else None if status == 500 else False)
    del server.faults["GET box"]
    again: Any = await client.resume(client.deserialize_session_state(dict(saved)))
    assert [again.state.box_id] == list(server.boxes)


async def test_a_stop_or_delete_that_the_server_refuses(server: Server) -> None:
    client, session = await started(server)
    server.faults["POST stop"] = Fault(500, "internal")
    server.faults["DELETE box"] = Fault(503, "network_unavailable")
    with pytest.raises(WorkspaceStopError) as stopped:
        await session.shutdown()
    with pytest.raises(WorkspaceStopError) as deleted:
        await client.delete(session)
    assert (stopped.value.retryable, deleted.value.retryable) == (None, True)
    server.faults.clear()
    # The state still names it, so that it can be tried again.
    await client.delete(session)
    assert server.boxes == {}


async def test_deleting_what_is_gone_is_no_error(server: Server) -> None:
    client, session = await started(server)
    server.boxes.clear()
    await client.delete(session)
