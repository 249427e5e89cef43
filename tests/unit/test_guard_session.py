"""Every operation of a session passes the gate, on the SDK's real unix-local backend."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.entries import Dir, File, GitRepo, LocalDir, LocalFile
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec
from agents.sandbox.workspace_paths import SandboxPathGrant
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.guarded import Guarded

from cedarbox import PolicySandboxClient
from cedarbox.errors import CedarboxError, ConfigurationError, LedgerError, PolicyDenied
from cedarbox.guard import check_coverage
from cedarbox.guard.coverage import GATED, PASSED
from cedarbox.guard.session import GuardedSession


def forbid(action: str, condition: str = "true") -> str:
    return (
        f'{PERMIT_ALL} @id("no") @reason("forbidden here") '
        f'forbid (principal, action == Sandbox::Action::"{action}", resource) when {{ {condition} }};'
    )


@asynccontextmanager
async def session_of(guarded: Guarded, manifest: Manifest | None = None) -> AsyncIterator[SandboxSession]:
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=manifest, options=None)
    try:
        async with session:
            yield session
    finally:
        await guarded.client.delete(session)


async def test_a_denied_command_is_a_result_and_runs_nothing(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, forbid("exec", 'context.commandLine like "*touch*"'))
    async with session_of(guarded) as session:
        marker = tmp_path / "marker"
        denied = await session.exec(f"touch {marker}")
        allowed = await session.exec("echo fine; exit 3")
    assert denied.exit_code == 126
    assert b"forbidden here" in denied.stderr
    assert not marker.exists()
    assert (allowed.stdout, allowed.exit_code) == (b"fine\n", 3)
    outcome = [r.entry for r in guarded.records("outcome") if r.entry.action == "exec"]
    assert [(entry.outcome, entry.attrs["exit_code"], entry.attrs["stdout_bytes"]) for entry in outcome] == [
        ("ok", 3, 5)
    ]


async def test_a_denied_terminal_is_a_result(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, forbid("openTerminal"))
    async with session_of(guarded) as session:
        update = await session.pty_exec_start("sh", tty=True, yield_time_s=0.5)
        plain = await session.pty_exec_start("echo hi", yield_time_s=60)
    assert (update.process_id, update.exit_code) == (None, 126)
    assert (plain.exit_code, plain.output.strip()) == (0, b"hi")
    assert guarded.denied() == [("openTerminal", 'Executable::"sh"')]


async def test_typing_into_a_process_is_a_privilege_of_its_own(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, forbid("writeTerminal"))
    async with session_of(guarded) as session:
        started = await session.pty_exec_start("cat", tty=True, yield_time_s=0.3)
        assert started.process_id is not None
        update = await session.pty_write_stdin(session_id=started.process_id, chars="secret\n", yield_time_s=0.3)
        polled = await session.pty_write_stdin(session_id=started.process_id, chars="", yield_time_s=0.3)
        await session.pty_terminate_all()
    assert b"forbidden here" in update.output
    assert b"secret" not in polled.output


@pytest.mark.parametrize(
    ("action", "operation"),
    [
        ("readFile", "read"),
        ("readFile", "read_bounded"),
        ("readFile", "ls"),
        ("readFile", "same_file"),
        ("writeFile", "write"),
        ("writeFile", "_write_new_file"),
        ("writeFile", "rm"),
        ("writeFile", "mv"),
        ("writeFile", "mkdir"),
        ("snapshot", "persist_workspace"),
        ("restore", "hydrate_workspace"),
    ],
)
async def test_a_denied_file_operation_raises_and_changes_nothing(tmp_path: Path, action: str, operation: str) -> None:
    guarded = Guarded(tmp_path, forbid(action))
    unguarded = UnixLocalSandboxClient()
    session = await unguarded.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    wrapped = GuardedSession.wrap(session, guarded.client.gate, isolated=False)
    root = Path(session.state.manifest.root)
    async with session:
        (root / "a").write_text("content")
        attempts: dict[str, Callable[[], Awaitable[object]]] = {
            "read": lambda: wrapped.read(Path("a")),
            "read_bounded": lambda: wrapped.read_bounded(Path("a"), max_bytes=10),
            "ls": lambda: wrapped.ls("."),
            "same_file": lambda: wrapped.same_file("a", "a"),
            "write": lambda: wrapped.write(Path("a"), io.BytesIO(b"new")),
            "_write_new_file": lambda: wrapped._write_new_file(Path("b"), io.BytesIO(b"new")),
            "rm": lambda: wrapped.rm("a"),
            "mv": lambda: wrapped.mv("a", "b"),
            "mkdir": lambda: wrapped.mkdir("c"),
            "persist_workspace": wrapped.persist_workspace,
            "hydrate_workspace": lambda: wrapped.hydrate_workspace(io.BytesIO(b"")),
        }
        with pytest.raises(PolicyDenied, match="forbidden here"):
            await attempts[operation]()
        assert sorted(path.name for path in root.iterdir()) == ["a"]
        assert (root / "a").read_text() == "content"
    await unguarded.delete(session)


async def test_a_link_does_not_lend_its_name(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, forbid("readFile", 'resource in Sandbox::GuestPath::"/etc"'))
    async with session_of(guarded) as session:
        root = Path(session.state.manifest.root)
        (root / "innocent").symlink_to("/etc/passwd")
        (root / "folder").symlink_to("/etc")
        for path in ("innocent", "folder/passwd", "/etc/passwd", "../../../../../../etc/passwd"):
            with pytest.raises(PolicyDenied):
                await session.read(Path(path))
    assert set(guarded.denied()) == {("readFile", 'GuestPath::"/etc/passwd"')}


async def test_a_path_without_a_canonical_form_is_denied_and_recorded(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        with pytest.raises(PolicyDenied, match="control character"):
            await session.read(Path("a\nb"))
    assert [action for action, _ in guarded.denied()] == ["file read"]


async def test_nothing_is_done_when_the_decision_cannot_be_recorded(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=None, options=None)
    await session.start()
    root = Path(session.state.manifest.root)
    guarded.client.ledger.close()
    result = await session.exec("touch made")
    with pytest.raises(PolicyDenied, match="cannot be recorded"):
        await session.write(Path("written"), io.BytesIO(b"x"))
    assert result.exit_code == 126
    assert b"cannot be recorded" in result.stderr
    assert list(root.iterdir()) == []
    # What ends a sandbox is done all the same, and the caller is told that it was not recorded.
    with pytest.raises(LedgerError):
        await session.shutdown()
    with pytest.raises(LedgerError):
        await guarded.client.delete(session)
    assert not root.exists()


async def test_the_record_names_the_span_of_the_operation(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        await session.exec("true")
    decision = next(r.entry for r in guarded.records("decision") if r.entry.action == "exec")
    outcome = next(r.entry for r in guarded.records("outcome") if r.entry.action == "exec")
    assert decision.trace_id is not None
    assert (decision.trace_id, decision.span_id) == (outcome.trace_id, outcome.span_id)


async def test_the_decision_is_on_disk_before_the_command_runs(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    stream = guarded.client.ledger.path
    async with session_of(guarded) as session:
        # The command itself looks for the record that permits it.
        result = await session.exec(f"grep -c before-the-effect {stream}")
    assert result.stdout.strip() != b"0"


async def test_secrets_of_a_command_line_do_not_reach_the_ledger(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        await session.exec("true --password hunter2trombone")
    assert b"hunter2trombone" not in guarded.client.ledger.path.read_bytes()


@pytest.mark.parametrize(
    ("manifest", "denied"),
    [
        (Manifest(entries={"etc": LocalDir(src=Path("/etc"))}), ("mountRead", 'HostPath::"/etc"')),
        (Manifest(entries={"p": LocalFile(src=Path("/etc/passwd"))}), ("mountRead", 'HostPath::"/etc/passwd"')),
        (
            Manifest(extra_path_grants=(SandboxPathGrant(path="/x", host_path="/etc"),)),
            ("mountWrite", 'HostPath::"/etc"'),
        ),
        (
            Manifest(extra_path_grants=(SandboxPathGrant(path="/etc", read_only=True),)),
            ("mountRead", 'HostPath::"/etc"'),
        ),
        (
            Manifest(entries={"d": Dir(children={"r": GitRepo(host="GIT.example.", repo="a/b", ref="main")})}),
            ("connect", 'Host::"git.example"'),
        ),
        (Manifest(entries={"secret": File(content=b"x")}), ("writeFile", 'GuestPath::"/workspace/secret"')),
    ],
    ids=["directory", "file", "grant", "read-only grant", "repository", "content"],
)
async def test_a_manifest_is_decided_before_anything_is_made(
    tmp_path: Path, manifest: Manifest, denied: tuple[str, str]
) -> None:
    class NeverMade(UnixLocalSandboxClient):
        async def create(self, **_: object) -> SandboxSession:
            raise AssertionError("the backend was asked to make a sandbox")

    guarded = Guarded(tmp_path, forbid(denied[0]), inner=NeverMade())
    with pytest.raises(PolicyDenied, match="forbidden here"):
        await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=manifest, options=None)
    assert guarded.denied() == [denied]


async def test_a_link_on_the_host_is_decided_by_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("/etc")
    guarded = Guarded(tmp_path, forbid("mountRead", 'context.isSymlink && resource in Sandbox::HostPath::"/etc"'))
    manifest = Manifest(entries={"d": LocalDir(src=tmp_path / "data")})
    with pytest.raises(PolicyDenied):
        await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=manifest, options=None)
    assert guarded.denied() == [("mountRead", 'HostPath::"/etc"')]


async def test_a_backend_that_cannot_hold_egress_needs_a_permit_of_its_own(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, forbid("connectAnywhere"))
    with pytest.raises(PolicyDenied):
        await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=None, options=None)
    assert guarded.denied() == [("connectAnywhere", 'Backend::"unix_local"')]


async def test_saving_the_workspace_is_decided_when_the_sandbox_is_made(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, forbid("snapshot"))
    with pytest.raises(PolicyDenied):
        await guarded.client.create(snapshot=LocalSnapshotSpec(base_path=tmp_path / "s"), manifest=None, options=None)
    assert not (tmp_path / "s").exists()


async def test_resume_is_decided_on_what_the_state_says(tmp_path: Path) -> None:
    first = Guarded(tmp_path / "one")
    snapshot = LocalSnapshotSpec(base_path=tmp_path / "s")
    session = await first.client.create(snapshot=snapshot, manifest=Manifest(), options=None)
    async with session:
        await session.write(Path("kept"), io.BytesIO(b"kept"))
    payload = first.client.serialize_session_state(session.state)
    await first.client.delete(session)

    # Another process of the same site: it has the key that sealed the state.
    for name, policies in (("two", PERMIT_ALL), ("three", forbid("restore"))):
        Guarded(tmp_path / name, policies).client.close()
        shutil.copy(tmp_path / "one/sandbox.key", tmp_path / name / "sandbox.key")
    second = Guarded(tmp_path / "two")
    again = await second.client.resume(second.client.deserialize_session_state(dict(payload)))
    async with again:
        with await again.read(Path("kept")) as kept:
            assert kept.read() == b"kept"
    await second.client.delete(again)
    assert {"resume", "restore", "snapshot"} <= {action for _, action, _ in second.decisions()}

    third = Guarded(tmp_path / "three", forbid("restore"))
    with pytest.raises(PolicyDenied):
        await third.client.resume(third.client.deserialize_session_state(dict(payload)))


async def test_delete_is_recorded_and_never_denied(tmp_path: Path) -> None:
    only_create = "".join(
        f'permit (principal, action == Sandbox::Action::"{action}", resource);'
        for action in ("create", "connectAnywhere")
    )
    guarded = Guarded(tmp_path, only_create)
    async with session_of(guarded) as session:
        assert (await session.exec("true")).exit_code == 126
        root = Path(session.state.manifest.root)
    assert not root.exists()
    events = [record.entry.event for record in guarded.records()]
    assert events.index("sandbox.created") < events.index("sandbox.deleted")


def test_a_coroutine_that_the_sdk_adds_is_refused() -> None:
    class Grown(SandboxSession):
        async def chmod(self, path: str, mode: int) -> None:
            os.chmod(path, mode)  # noqa: PTH101  # never run

    with pytest.raises(CedarboxError, match="new: chmod"):
        check_coverage(Grown)


def test_every_gated_coroutine_is_overridden() -> None:
    assert {name for name in GATED if getattr(GuardedSession, name) is getattr(SandboxSession, name)} == set()
    assert not GATED & PASSED


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(
    "path", ["folder/new", "folder/new/deep", "through/new/deep/er", "secret/../folder/x", "dangling", "./secret/x"]
)
async def test_a_link_does_not_lend_its_name_to_what_is_not_there_yet(
    tmp_path: Path, isolated: bool, path: str
) -> None:
    unguarded = UnixLocalSandboxClient()
    session = await unguarded.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    root = Path(session.state.manifest.root)
    guarded = Guarded(tmp_path, forbid("writeFile", f'resource in Sandbox::GuestPath::"{root}/secret"'))
    wrapped = GuardedSession.wrap(session, guarded.client.gate, isolated=isolated)
    async with session:
        (root / "secret").mkdir()
        (root / "folder").symlink_to(root / "secret")
        (root / "through").symlink_to("folder")
        (root / "dangling").symlink_to("secret/later")
        with pytest.raises(PolicyDenied):
            await wrapped.write(Path(path), io.BytesIO(b"x"))
        assert list((root / "secret").iterdir()) == []
        await wrapped.mkdir("open/and/new", parents=True)
        await wrapped.write(Path("open/and/new/file"), io.BytesIO(b"x"))
        assert (root / "open/and/new/file").read_bytes() == b"x"
    await unguarded.delete(session)


async def test_a_link_that_leads_nowhere_that_can_be_told_is_denied(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    unguarded = UnixLocalSandboxClient()
    session = await unguarded.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    wrapped = GuardedSession.wrap(session, guarded.client.gate, isolated=True)
    async with session:
        root = Path(session.state.manifest.root)
        (root / "loop").symlink_to("loop")
        (root / "line\nbreak").mkdir()
        (root / "odd").symlink_to("line\nbreak")
        for path in ("loop", "odd/file"):
            with pytest.raises(PolicyDenied):
                await wrapped.write(Path(path), io.BytesIO(b"x"))
    await unguarded.delete(session)


@pytest.mark.parametrize("command", ["echo \udcff", "echo \0"], ids=["not Unicode", "NUL"])
async def test_a_command_without_a_form_is_denied_and_the_denial_recorded(tmp_path: Path, command: str) -> None:
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        result = await session.exec(command)
    assert result.exit_code == 126
    assert b"no single form" in result.stderr
    assert [action for action, _ in guarded.denied()] == ["exec"]


async def test_text_of_a_model_cannot_keep_a_decision_out_of_the_ledger(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        assert (await session.exec("true " + "x" * 100_000)).exit_code == 0
        with pytest.raises(PolicyDenied):
            await session.read(Path("a\udcff"))
    summaries = [str(r.entry.attrs["summary"]) for r in guarded.records("decision") if r.entry.action == "exec"]
    assert len(summaries) == 1
    assert "100005 characters, sha256:" in summaries[0]
    assert [resource for action, resource in guarded.denied() if action == "file read"]


@pytest.mark.parametrize(
    "policies", ["", [], 5, b"policies", object()], ids=["empty", "list", "number", "bytes", "object"]
)
def test_what_is_no_policy_bundle_is_not_replaced_by_a_default(tmp_path: Path, policies: Any) -> None:
    with pytest.raises(ConfigurationError, match="no policy bundle"):
        PolicySandboxClient(UnixLocalSandboxClient(), policies=policies)


@pytest.mark.parametrize("principal", ["", "stranger", 5])
def test_an_agent_that_is_not_declared_is_not_replaced_by_a_default(tmp_path: Path, principal: Any) -> None:
    with pytest.raises(ConfigurationError, match="no agent"):
        PolicySandboxClient(UnixLocalSandboxClient(), policies=write_bundle(tmp_path, PERMIT_ALL), principal=principal)


@pytest.mark.parametrize("inner", [None, "docker", 5])
def test_what_is_no_client_is_told_in_one_line(tmp_path: Path, inner: Any) -> None:
    with pytest.raises(ConfigurationError, match="no sandbox client"):
        PolicySandboxClient(inner, policies=write_bundle(tmp_path, PERMIT_ALL))
