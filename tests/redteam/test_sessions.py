"""Attacks on what a sandbox is given and does: manifests, links, terminals, wrappers, environment, users, lifetime.

On the SDK's real unix-local backend where something must be seen to happen or not, and on real BoxLite clients where
the refusal comes before any machine. Each asserts what did not happen, and the record that shows it.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import RunConfig, Runner
from agents.run_config import SandboxRunConfig
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities.tools.view_image import ViewImageTool
from agents.sandbox.entries import Dir, File, GitRepo, LocalDir, LocalFile, S3Mount
from agents.sandbox.entries.mounts.base import InContainerMountStrategy
from agents.sandbox.entries.mounts.patterns import RcloneMountPattern
from agents.sandbox.errors import ApplyPatchPathError, InvalidManifestPathError
from agents.sandbox.manifest import Environment, Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from agents.sandbox.types import Group, Permissions, User
from agents.sandbox.workspace_paths import SandboxPathGrant
from agents.testing import ScriptedModel, assistant_message
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.errors import CedarboxError, ConfigurationError, PolicyDenied
from cedarbox.guard import GuardedClient, GuardedSession
from cedarbox.guard import manifest as manifests


def forbid(action: str, condition: str = "true") -> str:
    return (
        f'{PERMIT_ALL} @id("no") @reason("forbidden here") '
        f'forbid (principal, action == Sandbox::Action::"{action}", resource) when {{ {condition} }};'
    )


class NeverMade(UnixLocalSandboxClient):
    """A backend that must not be asked for anything."""

    async def create(self, **_: object) -> SandboxSession:
        raise AssertionError("the backend was asked to make a sandbox")


class NeverMadeBoxLite(BoxLiteSandboxClient):
    """A backend with a file system of its own that must not be asked for anything."""

    async def create(self, **_: object) -> SandboxSession:
        raise AssertionError("the backend was asked to make a sandbox")


@asynccontextmanager
async def session_of(guarded: Guarded, manifest: Manifest | None = None) -> AsyncIterator[SandboxSession]:
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=manifest)
    try:
        async with session:
            yield session
    finally:
        await guarded.client.delete(session)


def reasons(guarded: Guarded) -> str:
    return "\n".join(str(r.entry.attrs["reason"]) for r in guarded.records("decision") if r.entry.decision == "deny")


async def refused(
    guarded: Guarded, manifest: Manifest, match: str = "denied by policy", *, options: Any = None
) -> None:
    with pytest.raises(PolicyDenied, match=match):
        await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=manifest, options=options)
    assert guarded.records("sandbox.created") == []
    assert guarded.denied()


async def test_a_host_source_outside_of_what_is_granted(tmp_path: Path) -> None:
    """A manifest copies a directory beside the permitted one. Denied before anything is made: `mountRead`, deny."""
    (tmp_path / "granted").mkdir()
    (tmp_path / "secret").mkdir()
    only = forbid("mountRead", f'!(resource in Sandbox::HostPath::"{tmp_path}/granted")')
    guarded = Guarded(tmp_path / "guard", only, inner=NeverMade())
    for source in (tmp_path / "secret", tmp_path / "granted/../secret", tmp_path / "granted2"):
        await refused(guarded, Manifest(entries={"d": LocalDir(src=source)}), "forbidden here")
    assert {resource for _, resource in guarded.denied()} == {
        f'HostPath::"{tmp_path}/{name}"' for name in ("secret", "granted2")
    }


async def test_a_host_source_that_is_a_link_out_of_the_grant(tmp_path: Path) -> None:
    """The permitted directory holds a link to a secret. Decided by where it leads: `mountRead` of the secret, deny."""
    (tmp_path / "granted").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "granted/innocent").symlink_to(tmp_path / "secret")
    only = forbid("mountRead", f'!(resource in Sandbox::HostPath::"{tmp_path}/granted")')
    guarded = Guarded(tmp_path / "guard", only, inner=NeverMade())
    await refused(guarded, Manifest(entries={"f": LocalFile(src=tmp_path / "granted/innocent")}), "forbidden here")
    assert guarded.denied() == [("mountRead", f'HostPath::"{tmp_path}/secret"')]


async def test_a_host_source_swapped_for_a_link_after_the_decision(tmp_path: Path) -> None:
    """A permitted directory becomes a link to a secret one before the start. The SDK opens sources part by part and
    follows no link, so the start fails; nothing was copied, and the start's `outcome` is an error.
    """
    (tmp_path / "granted/data").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    guarded = Guarded(tmp_path / "guard", forbid("mountRead", f'resource in Sandbox::HostPath::"{tmp_path}/secret"'))
    grants = (SandboxPathGrant(path=str(tmp_path / "granted"), read_only=True),)
    manifest = Manifest(entries={"d": LocalDir(src=tmp_path / "granted/data")}, extra_path_grants=grants)
    session = await guarded.client.create(manifest=manifest)
    (tmp_path / "granted/data").rmdir()
    (tmp_path / "granted/data").symlink_to(tmp_path / "secret")
    with pytest.raises(Exception, match="local dir") as failed:
        await session.start()
    assert not isinstance(failed.value, AssertionError)
    assert not list(Path(session.state.manifest.root).rglob("key"))
    started = [r.entry for r in guarded.records("outcome") if r.entry.action == "sandbox start"]
    assert [entry.outcome for entry in started] == ["error"]
    await guarded.client.delete(session)


@pytest.mark.parametrize("operation", ["read", "write", "list", "remove", "move", "create"])
async def test_a_link_swapped_between_the_decision_and_the_use(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of the workspace becomes a link to a secret one after it was decided. What the backend resolves is
    held to what was decided: nothing is read or changed there, and a denial says that the path led elsewhere.
    """
    guarded = Guarded(tmp_path / "guard", forbid("readFile", 'resource.path like "*/secret/*"'))
    async with session_of(guarded) as session:
        root = Path(session.state.manifest.root)
        (root / "folder").mkdir()
        (root / "folder/file").write_text("harmless")
        (root / "secret").mkdir()
        (root / "secret/file").write_text("secret")
        ask = guarded.client.ledger.record

        async def swapping(entry: Any) -> Any:
            record = await ask(entry)
            if entry.event == "decision" and entry.decision == "allow" and not (root / "folder").is_symlink():
                (root / "folder").rename(root / "kept")
                (root / "folder").symlink_to(root / "secret")
            return record

        monkeypatch.setattr(guarded.client.ledger, "record", swapping)
        attempts: dict[str, Callable[[], Awaitable[object]]] = {
            "read": lambda: session.read(Path("folder/file")),
            "write": lambda: session.write(Path("folder/file"), io.BytesIO(b"new")),
            "list": lambda: session.ls("folder"),
            "remove": lambda: session.rm("folder/file"),
            "move": lambda: session.mv("folder/file", "moved"),
            "create": lambda: session._write_new_file(Path("folder/new"), io.BytesIO(b"new")),
        }
        with pytest.raises(PolicyDenied, match="led elsewhere"):
            await attempts[operation]()
        assert sorted(path.name for path in (root / "secret").iterdir()) == ["file"]
        assert (root / "secret/file").read_text() == "secret"
        assert not (root / "moved").exists()
        monkeypatch.undo()
    assert "led elsewhere" in reasons(guarded)


async def test_removing_a_link_removes_what_a_rule_protects(tmp_path: Path) -> None:
    """The SDK's unix-local removes what a link leads to, not the link. So the target is decided: `writeFile`, deny."""
    guarded = Guarded(tmp_path, forbid("writeFile", 'resource.path like "*/secret/*"'))
    async with session_of(guarded) as session:
        root = Path(session.state.manifest.root)
        (root / "secret").mkdir()
        (root / "secret/file").write_text("secret")
        (root / "link").symlink_to("secret/file")
        with pytest.raises(PolicyDenied, match="forbidden here"):
            await session.rm("link")
        assert (root / "secret/file").read_text() == "secret"
    assert guarded.denied() == [("writeFile", f'GuestPath::"{root}/secret/file"')]


async def test_a_patch_outside_of_the_workspace(tmp_path: Path) -> None:
    """apply_patch names a file beside the workspace, directly and through a link: the SDK refuses it, and nothing is
    written. Through a link to a protected directory inside the workspace: `writeFile` of the target, deny.
    """
    victim = tmp_path / "victim"
    guarded = Guarded(tmp_path / "guard", forbid("writeFile", 'resource.path like "*/protected/*"'))
    async with session_of(guarded) as session:
        root = Path(session.state.manifest.root)
        (root / "out").symlink_to(tmp_path)
        (root / "protected").mkdir()
        (root / "in").symlink_to("protected")
        for path in ("out/victim", "../victim", str(victim), "in/victim"):
            expected = PolicyDenied if path == "in/victim" else (ApplyPatchPathError, InvalidManifestPathError)
            with pytest.raises(expected):
                await session.apply_patch({"type": "create_file", "path": path, "diff": "+evil\n"})
        assert list((root / "protected").iterdir()) == []
    assert not victim.exists()
    assert guarded.denied() == [("writeFile", f'GuestPath::"{root}/protected/victim"')]


async def test_an_image_that_is_a_link_to_a_secret(tmp_path: Path) -> None:
    """view_image reads a link to a file that a rule protects. The model gets an error and no byte of it."""
    guarded = Guarded(tmp_path, forbid("readFile", 'resource.path like "*/secret.png"'))
    async with session_of(guarded) as session:
        root = Path(session.state.manifest.root)
        (root / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
        (root / "cat.png").symlink_to("secret.png")
        shown = await ViewImageTool(session=session).run(ViewImageTool.args_model(path="cat.png"))
    assert shown == "unable to read image at `cat.png`: PolicyDenied"
    assert guarded.denied() == [("readFile", f'GuestPath::"{root}/secret.png"')]


async def test_typing_into_a_process_after_its_command_was_denied(tmp_path: Path) -> None:
    """The policies change while a shell runs: it may not be run any more. Typing is denied by `openTerminal`, though
    `writeTerminal` is permitted, and the shell does nothing. Polling is free.
    """
    guarded = Guarded(tmp_path / "guard")
    later = Guarded(tmp_path / "later", forbid("openTerminal"))
    async with session_of(guarded) as session:
        started = await session.pty_exec_start("sh", tty=True, yield_time_s=0.3)
        assert started.process_id is not None
        guarded.client.gate.engine = later.client.gate.engine
        marker = tmp_path / "marker"
        denied = await session.pty_write_stdin(session_id=started.process_id, chars=f"touch {marker}\n")
        polled = await session.pty_write_stdin(session_id=started.process_id, chars="", yield_time_s=0.3)
        await session.pty_terminate_all()
    assert b"forbidden here" in denied.output
    assert polled.process_id == started.process_id
    assert not marker.exists()
    assert guarded.denied() == [("openTerminal", 'Executable::"sh"')]


async def test_a_terminal_by_way_of_exec(tmp_path: Path) -> None:
    """`openTerminal` is denied, so a command is started with tty all the same. It is `openTerminal`, and runs not."""
    guarded = Guarded(tmp_path / "guard", forbid("openTerminal"))
    async with session_of(guarded) as session:
        update = await session.pty_exec_start("touch", str(tmp_path / "marker"), shell=False, tty=True)
    assert (update.process_id, update.exit_code) == (None, 126)
    assert not (tmp_path / "marker").exists()
    assert guarded.denied() == [("openTerminal", 'Executable::"touch"')]


async def test_a_shell_of_the_callers_choosing(tmp_path: Path) -> None:
    """Only `sh` may be run, so another program is named as the shell. It is the executable that is decided."""
    guarded = Guarded(tmp_path, forbid("exec", 'resource != Sandbox::Executable::"sh"'))
    async with session_of(guarded) as session:
        denied = await session.exec("print(6 * 7)", shell=["python3", "-c"])
        allowed = await session.exec("echo fine")
    assert (denied.exit_code, denied.stdout) == (126, b"")
    assert allowed.stdout == b"fine\n"
    assert guarded.denied() == [("exec", 'Executable::"python3"')]


async def test_a_wrapper_round_a_guarded_session(tmp_path: Path) -> None:
    """A run is given a wrapper, a subclass, the inner session, or one with an operation replaced. Each is refused."""
    guarded = Guarded(tmp_path)
    session: Any = await guarded.client.create()

    class Loose(GuardedSession):
        async def exec(self, *command: Any, **options: Any) -> Any:
            return await self._inner.exec(*command, **options)

    replaced = GuardedSession.wrap(session._provider, guarded.client.gate, isolated=False)
    replaced.exec = session._inner.exec  # type: ignore[method-assign]  # the attack
    subclass = Loose.wrap(session._provider, guarded.client.gate, isolated=False)
    agent = SandboxAgent(name="a", model=ScriptedModel([[assistant_message("done")]]))
    for attack in (SandboxSession(session), session._inner, session._provider, subclass, replaced):
        with pytest.raises(ConfigurationError, match="unguarded"):
            await Runner.run(agent, "go", run_config=RunConfig(sandbox=SandboxRunConfig(session=attack)))
    with pytest.raises(ConfigurationError, match="wrapped already"):
        GuardedSession.wrap(session, guarded.client.gate, isolated=True)
    with pytest.raises(ConfigurationError, match="guarded already"):
        GuardedClient(guarded.client, guarded.client.gate)
    assert "exec" not in [r.entry.action for r in guarded.records()]
    await guarded.client.delete(session)


async def test_a_client_that_overrides_a_decision(tmp_path: Path) -> None:
    """A subclass of the guarded client makes sandboxes its own way. The run is refused before anything is made."""
    guarded = Guarded(tmp_path, inner=NeverMade())

    class Loose(GuardedClient):
        async def create(self, **options: Any) -> SandboxSession:
            return await self.inner.create(**options)

    loose = Loose(guarded.client.inner, guarded.client.gate)
    agent = SandboxAgent(name="a", model=ScriptedModel([[assistant_message("done")]]))
    with pytest.raises(ConfigurationError, match="unguarded Loose"):
        await Runner.run(agent, "go", run_config=RunConfig(sandbox=SandboxRunConfig(client=loose)))
    assert guarded.records("sandbox.created") == []


@pytest.mark.parametrize("name", ["BOXLITE_EXECUTOR", "boxlite_executor", "BOXLITE_ANYTHING", "CEDARBOX_EXEC"])
async def test_the_executor_key_in_a_manifest(tmp_path: Path, name: str) -> None:
    """BOXLITE_EXECUTOR=guest would run commands outside of the container. No policy permits it, on any backend."""
    guarded = Guarded(tmp_path, inner=NeverMade())
    await refused(guarded, Manifest(environment=Environment(value={name: "guest"})), "reserved for the sandbox")
    assert guarded.denied() == [("setEnvironment", f'EnvironmentVariable::"{name}"')]


async def test_the_executor_key_in_options_and_in_a_command(tmp_path: Path) -> None:
    """The same key as an option and before a command. BoxLite's options have no environment, the options of another
    backend are read for one, and a command that names the key is denied: `exec`, deny.
    """
    with pytest.raises(ConfigurationError):
        BoxLiteSandboxClientOptions.model_validate({"image": "a", "environment": {"BOXLITE_EXECUTOR": "guest"}})

    class Options:
        exposed_ports = ()
        env_vars = {"BOXLITE_EXECUTOR": "guest"}  # noqa: RUF012  # as the backends have it

    guarded = Guarded(tmp_path / "options", inner=NeverMade())
    with pytest.raises(PolicyDenied, match="reserved"):
        await guarded.client.create(options=Options())
    assert guarded.denied() == [("setEnvironment", 'EnvironmentVariable::"BOXLITE_EXECUTOR"')]

    guarded = Guarded(tmp_path / "command")
    async with session_of(guarded) as session:
        result = await session.exec("env", "BOXLITE_EXECUTOR=guest", "touch", str(tmp_path / "marker"), shell=False)
    assert result.exit_code == 126
    assert not (tmp_path / "marker").exists()
    assert "reserved" in reasons(guarded)


async def test_an_environment_variable_that_is_denied(tmp_path: Path) -> None:
    """A manifest sets LD_PRELOAD beside a harmless variable: `setEnvironment`, deny, and nothing is made."""
    denying = forbid("setEnvironment", 'resource != Sandbox::EnvironmentVariable::"LANG"')
    guarded = Guarded(tmp_path, denying, inner=NeverMade())
    environment = Environment(value={"LANG": "C", "LD_PRELOAD": "/workspace/evil.so"})
    await refused(guarded, Manifest(environment=environment), "forbidden here")
    assert guarded.denied() == [("setEnvironment", 'EnvironmentVariable::"LD_PRELOAD"')]


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(users=[User(name="mallory")]),
        Manifest(groups=[Group(name="staff", users=[User(name="mallory")])]),
        Manifest(users=[User(name="--uid=0")]),
        Manifest(entries={"f": File(content=b"", group=Group(name="--reference=/etc/shadow", users=[]))}),
        Manifest(entries={"f": File(content=b"", permissions=Permissions(owner=0o47))}),
    ],
    ids=["user", "user of a group", "option as a user", "option as a group", "set-user-id"],
)
async def test_an_account_that_is_denied(tmp_path: Path, manifest: Manifest) -> None:
    """Users, users of groups, names that are options and set-user-id bits. Nothing is made; a denial is recorded."""
    inner = NeverMadeBoxLite(home=tmp_path / "home")
    options = BoxLiteSandboxClientOptions(image=f"mirror.corp.example/base@sha256:{'c' * 64}")
    policy = forbid("createAccount", 'resource == Sandbox::Account::"mallory"')
    await refused(Guarded(tmp_path / "guard", policy, inner=inner), manifest, options=options)


async def test_the_user_that_an_agent_runs_as(tmp_path: Path) -> None:
    """`SandboxAgent.run_as` adds a user to the manifest. On a backend without users of its own it is refused."""
    guarded = Guarded(tmp_path, inner=NeverMade())
    agent = SandboxAgent(name="a", run_as="mallory", model=ScriptedModel([[assistant_message("done")]]))
    with pytest.raises(PolicyDenied, match="made on this host"):
        await Runner.run(agent, "go", run_config=guarded.config)
    assert [action for action, _ in guarded.denied()] == ["createAccount"]


@pytest.mark.parametrize("user", ["root", "0", User(name="root"), "#0", "00", "0:0", "root:root", "-u", "+0"])
async def test_running_as_root_in_another_spelling(tmp_path: Path, user: Any) -> None:
    """A rule forbids user root. User 0 is root; other spellings have no one form. All: exit code 126, and recorded."""
    guarded = Guarded(tmp_path / "guard", forbid("exec", 'context has user && context.user == "root"'))
    async with session_of(guarded) as session:
        result = await session.exec("touch", str(tmp_path / "marker"), shell=False, user=user)
    assert result.exit_code == 126
    assert not (tmp_path / "marker").exists()
    assert [action for action, _ in guarded.denied()] == ["exec"]


@pytest.mark.parametrize(
    ("host", "repo", "ref", "subpath"),
    [
        ("git.corp.example@evil.example", "a/b", "main", None),
        ("git.corp.example:8443", "a/b", "main", None),
        ("user:token@git.corp.example", "a/b", "main", None),
        ("git.corp.example/x", "a/b", "main", None),
        ("git.corp.example", "../../evil", "main", None),
        ("git.corp.example", "a/b?x=", "main", None),
        ("git.corp.example", "@evil.example/a", "main", None),
        ("git.corp.example", "git@evil.example:a/b", "main", None),
        ("git.corp.example", "https://evil.example/a", "main", None),
        ("git.corp.example", "a//b", "main", None),
        ("git.corp.example", "", "main", None),
        ("git.corp.example", "a/b", "--upload-pack=touch /tmp/x", None),
        ("git.corp.example", "a/b", "a..b", None),
        ("git.corp.example", "a/b", "main", "../../etc"),
        ("git.corp.example", "a/b", "main", "/etc"),
        ("\uff47it.corp.example", "a/b", "main", None),
    ],
)
async def test_a_repository_that_is_not_where_it_says(
    tmp_path: Path, host: str, repo: str, ref: str, subpath: str | None
) -> None:
    """The clone URL is made of text. What could leave the host, the path or the argument is refused, and recorded."""
    guarded = Guarded(tmp_path, inner=NeverMade())
    await refused(guarded, Manifest(entries={"r": GitRepo(host=host, repo=repo, ref=ref, subpath=subpath)}))
    assert [action for action, _ in guarded.denied()] == ["manifest clone"]
    assert b"token" not in guarded.client.ledger.path.read_bytes()


async def test_entries_that_no_policy_can_hold(tmp_path: Path) -> None:
    """A bucket, a subclass that does as it likes, entries that climb, grants that contradict. Each is refused."""

    class Sneaky(GitRepo):
        type: Any = "sneaky_repo"

        async def apply(self, *_: Any) -> Any:
            raise AssertionError("applied")

    class OtherManifest(Manifest):
        pass

    bucket = S3Mount(bucket="b", mount_strategy=InContainerMountStrategy(pattern=RcloneMountPattern()))
    twice = (SandboxPathGrant(path="/data", read_only=True), SandboxPathGrant(path="/data"))
    attacks = [
        Manifest(entries={"m": bucket}),
        Manifest(entries={"s": Sneaky(repo="a/b", ref="main")}),
        Manifest(entries={"d": Dir(children={"../../x": File(content=b"")})}),
        Manifest(entries={"d": Dir(children={"a\\..\\x": File(content=b"")})}),
        Manifest(extra_path_grants=twice),
        Manifest(remote_mount_command_allowlist=["sh"]),
        OtherManifest(),
    ]
    for number, manifest in enumerate(attacks):
        await refused(Guarded(tmp_path / str(number), inner=NeverMade()), manifest)


def test_a_manifest_that_grows() -> None:
    """The SDK adds a field to its manifest. The import fails: nothing here would decide it."""

    class Grown(Manifest):
        kernel_modules: tuple[str, ...] = ()

    known: dict[Any, frozenset[str]] = {**manifests.KNOWN_FIELDS, Grown: manifests.KNOWN_FIELDS[Manifest]}
    with pytest.raises(CedarboxError, match=r"new: Grown\.kernel_modules"):
        manifests.check_fields(known)


async def test_a_manifest_changed_after_it_was_decided(tmp_path: Path) -> None:
    """The state's manifest gets an entry between creation and start, and a run brings one to a live session. Both are
    decided before: `mountRead`, deny; the file is not in the workspace.
    """
    (tmp_path / "secret").write_text("secret")
    guarded = Guarded(tmp_path / "guard", forbid("mountRead"))
    session = await guarded.client.create(manifest=Manifest())
    added = session.state.manifest.model_copy(update={"entries": {"f": LocalFile(src=tmp_path / "secret")}})
    kept, session.state = session.state, session.state.model_copy(update={"manifest": added})
    with pytest.raises(PolicyDenied, match="forbidden here"):
        await session.start()
    session.state = kept
    root = Path(session.state.manifest.root)
    await session.start()
    with pytest.raises(PolicyDenied, match="forbidden here"):
        await session._validate_manifest_application(manifest=added, session_running=True)
    entries = [(root / "d", Dir(children={"f": LocalFile(src=tmp_path / "secret")}))]
    with pytest.raises(PolicyDenied, match="forbidden here"):
        await session._apply_entry_batch(entries, base_dir=Path("/"))
    assert list(root.iterdir()) == []
    assert guarded.denied() == [("mountRead", f'HostPath::"{tmp_path}/secret"')] * 3
    await session.shutdown()
    await guarded.client.delete(session)


async def test_a_decision_that_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is cancelled while its decision is being recorded. The command never runs, and the outcome says so."""
    guarded = Guarded(tmp_path / "guard")
    async with session_of(guarded) as session:
        record, reached = guarded.client.ledger.record, asyncio.Event()

        async def held(entry: Any) -> Any:
            await record(entry)
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(guarded.client.ledger, "record", held)
        task = asyncio.create_task(session.exec("touch", str(tmp_path / "marker"), shell=False))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.undo()
    assert not (tmp_path / "marker").exists()
    decided, outcome = (r.entry for r in guarded.records() if r.entry.action == "exec")
    assert (decided.event, decided.decision) == ("decision", "allow")
    assert (outcome.event, outcome.outcome, outcome.attrs["begun"]) == ("outcome", "cancelled", False)


async def test_a_sandbox_that_outlives_its_time(tmp_path: Path) -> None:
    """A command runs when the lifetime ends, and more is tried after. It is cut off, the rest is denied, the sandbox is
    shut down; the record tells the lifetime that was decided, and why each was refused.
    """
    guarded = Guarded(tmp_path)
    client = GuardedClient(UnixLocalSandboxClient(), guarded.client.gate, lifetime_s=5)
    session = await client.create()
    await session.start()
    root = Path(session.state.manifest.root)
    started = await session.pty_exec_start("sleep 120", yield_time_s=0.1)
    assert started.process_id is not None
    cut = await session.exec("sleep 30; touch late")
    while await session.running():  # noqa: ASYNC110  # the real backend has no event for it
        await asyncio.sleep(0.01)
    assert cut.exit_code == 126
    assert b"lifetime" in cut.stderr
    assert (await session.exec("touch late")).exit_code == 126
    assert (await session.pty_exec_start("touch late")).exit_code == 126
    assert b"lifetime" in (await session.pty_write_stdin(session_id=started.process_id, chars="x")).output
    assert b"lifetime" in (await session.pty_write_stdin(session_id=started.process_id, chars="")).output
    for late in (session.read(Path("f")), session.write(Path("late"), io.BytesIO()), session.start()):
        with pytest.raises(PolicyDenied, match="lifetime"):
            await late
    assert os.listdir(root) == []  # noqa: PTH208  # what is there, hidden or not
    await client.delete(session)
    assert [r.entry.attrs["lifetime_s"] for r in guarded.records("sandbox.created")] == [5]
    assert "sandbox shutdown" in [r.entry.action for r in guarded.records("outcome")]
    assert reasons(guarded).count("the lifetime of the sandbox, 5 s, is over") == 8


async def test_a_lifetime_that_no_policy_permits(tmp_path: Path) -> None:
    """A rule wants sandboxes that end within an hour. One without an end, and one of two hours, are not made."""
    policy = forbid("create", '!(context has lifetime && context.lifetime <= duration("1h"))')
    guarded = Guarded(tmp_path, policy)
    for lifetime in (None, 7200):
        client = GuardedClient(NeverMade(), guarded.client.gate, lifetime_s=lifetime)
        with pytest.raises(PolicyDenied, match="forbidden here"):
            await client.create()
    allowed = GuardedClient(UnixLocalSandboxClient(), guarded.client.gate, lifetime_s=3600)
    session = await allowed.create()
    await session.shutdown()
    await allowed.delete(session)
    assert guarded.denied() == [("create", 'Image::"host"')] * 2
