"""The conformance kit and the SDK's own helpers on BoxLite, guarded and not, all in one box.

On a machine whose KVM boots guests natively, and with ``CEDARBOX_CONFORMANCE=full``, every check is run. In the
emulated machine, where a command takes a second, a fixed selection is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest
from agents import RunConfig, Runner, RunResult, function_tool
from agents.items import ToolCallOutputItem, TResponseOutputItem
from agents.run_state import RunState
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.sandbox.manifest import Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec
from agents.testing import ScriptedModel, assistant_message, function_call
from tests.conformance import shown
from tests.microvm.boxes import options
from tests.microvm.sdk_helpers import entries_for, load_helpers
from tests.microvm.selection import GUARDED, PLAIN
from tests.unit.guarded import Guarded

from cedarbox.boxlite import BoxLiteSandboxClient
from cedarbox.conformance import Backend, Outcome, run_conformance, shared_manifest
from cedarbox.conformance.backends import boxlite
from cedarbox.guard import GuardedSession

EMULATED = os.environ.get("CEDARBOX_RIG") == "1"
FULL = not EMULATED or os.environ.get("CEDARBOX_CONFORMANCE") == "full"
PATIENCE = 4.0 if EMULATED else 1.0
LIMIT_SECONDS = 3000 if FULL else 1800


@pytest.fixture(scope="module")
def helpers() -> ModuleType | None:
    """The SDK's helpers, if they are here and are used."""
    used = not EMULATED or os.environ.get("CEDARBOX_LONG") == "1"
    return load_helpers() if used and os.environ.get("CEDARBOX_SDK") else None


@pytest.fixture(scope="module")
async def box(
    client: BoxLiteSandboxClient,
    helpers: ModuleType | None,
    oci_layout: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SandboxSession]:
    """One started box with what the kit and the helpers need in its workspace."""
    manifest = shared_manifest(tmp_path_factory.mktemp("kit"))
    if helpers is not None:
        manifest = joined(manifest, entries_for(helpers, tmp_path_factory.mktemp("sdk")))
    made = await client.create(options=options(oci_layout), manifest=manifest)
    try:
        await made.start()
        yield made
    finally:
        await client.delete(made)


def joined(one: Manifest, other: Manifest) -> Manifest:
    """One manifest with the entries and grants of both."""
    assert not set(one.entries) & set(other.entries)
    return one.model_copy(
        update={
            "entries": {**one.entries, **other.entries},
            "extra_path_grants": (*one.extra_path_grants, *other.extra_path_grants),
        }
    )


async def checked(backend: Backend, only: tuple[str, ...], config: pytest.Config) -> None:
    """Run the kit, show its report, and expect no failure that is not known."""
    # Shown by pytest when the test fails, and as it comes with `pytest -s`.
    report = await run_conformance(
        backend,
        only=None if FULL else only,
        progress=lambda result: print(f"{result.seconds:6.1f} s {result.outcome} {result.name} {result.reason}"),
    )
    shown.keep(config, report)
    assert [(result.name, result.reason) for result in report.of(Outcome.FAILED)] == []
    assert report.counts[Outcome.PASSED] >= (100 if FULL else 30)
    assert report.good


# The guarded run does the same work in the same box, and more.
@pytest.mark.long
@pytest.mark.timeout(LIMIT_SECONDS)
async def test_boxlite(
    client: BoxLiteSandboxClient, box: SandboxSession, oci_layout: Path, pytestconfig: pytest.Config
) -> None:
    backend = boxlite(client, rootfs=oci_layout, user="agent", patience=PATIENCE)
    await checked(dataclasses.replace(backend, session=box), PLAIN, pytestconfig)


@pytest.mark.timeout(LIMIT_SECONDS)
async def test_guarded_boxlite(
    client: BoxLiteSandboxClient,
    box: SandboxSession,
    oci_layout: Path,
    pytestconfig: pytest.Config,
    tmp_path: Path,
) -> None:
    guarded = Guarded(tmp_path, inner=client)
    backend = boxlite(guarded.client, rootfs=oci_layout, user="agent", patience=PATIENCE, name="guarded boxlite")
    session = GuardedSession.wrap(box, guarded.client.gate, isolated=True)
    try:
        await checked(dataclasses.replace(backend, session=session), GUARDED, pytestconfig)
        assert len(guarded.records("decision")) > 30
    finally:
        guarded.client.close()


@pytest.mark.long
@pytest.mark.timeout(LIMIT_SECONDS)
async def test_the_sdks_helpers(box: SandboxSession, helpers: ModuleType | None) -> None:
    if helpers is None:
        load_helpers()
    assert helpers is not None
    wanted = helpers.BUILTIN_MANIFEST_ENTRY_TYPES
    assert helpers.manifest_entry_types(box.state.manifest) == wanted
    await helpers.assert_manifest_materialized(box)
    await helpers.write_workspace_text(box, "runtime_note.txt", "runtime note v1\n")
    assert await box.apply_patch(helpers.lifecycle_patch_operations()) == "Done!"
    await helpers.assert_lifecycle_patch_state(box)
    await helpers.assert_workspace_escape_blocked(box)
    await box.extract("bundle.tar", helpers._tar_bytes(helpers.ARCHIVE_WORKSPACE_TEXTS))
    await helpers.assert_workspace_texts(box, helpers.ARCHIVE_WORKSPACE_TEXTS)
    dirs, files = await helpers._workspace_tree(box)
    assert theirs(dirs) == helpers.RESTORED_WORKSPACE_DIRS
    assert theirs(files) == helpers.RESTORED_WORKSPACE_FILES


def theirs(names: set[str]) -> set[str]:
    """The names that are not of the kit."""
    return {name for name in names if name.split("/")[0] not in ("given", "copied", "copied.bin", "conformance")}


@pytest.mark.skipif(not FULL, reason="two more boxes: natively, or with CEDARBOX_CONFORMANCE=full")
@pytest.mark.timeout(LIMIT_SECONDS)
async def test_a_run_is_paused_and_resumed(
    client: BoxLiteSandboxClient, oci_layout: Path, tmp_path: Path, helpers: ModuleType | None
) -> None:
    """The SDK's test_runner_pause_resume.py, with this client, without what needs git or rclone."""
    if helpers is None:
        load_helpers()
    assert helpers is not None
    manifest = entries_for(helpers, tmp_path)
    config = RunConfig(
        tracing_disabled=True,
        sandbox=SandboxRunConfig(
            client=client, options=options(oci_layout), snapshot=LocalSnapshotSpec(base_path=tmp_path / "kept")
        ),
    )

    def agent_of(*turns: TResponseOutputItem) -> SandboxAgent[None]:
        capabilities = [helpers.SandboxFileCapability(), helpers.SandboxLifecycleProbeCapability()]
        return SandboxAgent(
            name="sandbox",
            model=ScriptedModel([[turn] for turn in turns]),
            instructions="Use the sandbox lifecycle tools.",
            default_manifest=manifest,
            tools=[approval],
            capabilities=capabilities,
        )

    @function_tool(name_override="approval_tool", needs_approval=True)
    def approval() -> str:
        return "approved"

    # A terminal in the emulated machine says nothing in the quarter of a second that the probe waits.
    terminal = [] if EMULATED else [function_call("start_lifecycle_pty", {}, call_id="terminal")]
    first = agent_of(
        function_call("assert_manifest_materialized", {}, call_id="given"),
        function_call("write_file", {"path": "runtime_note.txt", "content": "runtime note v1\n"}, call_id="note"),
        function_call("apply_lifecycle_patch", {}, call_id="patch"),
        function_call("assert_workspace_escape_blocked", {}, call_id="escape"),
        function_call("extract_lifecycle_archive", {}, call_id="archive"),
        *terminal,
        function_call("approval_tool", {}, call_id="approval"),
    )
    paused = await Runner.run(first, "verify the lifecycle and wait for approval", run_config=config)
    assert outputs(paused) == [
        "manifest materialized",
        "wrote runtime_note.txt",
        "lifecycle patch applied",
        "workspace escape blocked",
        "archive extracted",
        *(["pty started and echoed stdin"] if terminal else []),
    ]
    assert len(paused.interruptions) == 1
    state = paused.to_state()
    assert state._sandbox is not None
    assert state._sandbox["backend_id"] == "boxlite"

    second = agent_of(
        function_call("assert_restored_lifecycle_state", {}, call_id="restored"),
        function_call("read_file", {"path": "runtime_note.txt"}, call_id="note"),
        assistant_message("done"),
    )
    restored = await RunState.from_json(second, state.to_json())
    restored.approve(restored.get_interruptions()[0])
    resumed = await Runner.run(second, restored, run_config=config)
    assert resumed.final_output == "done"
    assert outputs(resumed)[-3:] == ["approved", "restored lifecycle state verified", "runtime note v1\n"]


def outputs(result: RunResult) -> list[str]:
    """What the tools answered."""
    return [str(item.output) for item in result.new_items if isinstance(item, ToolCallOutputItem)]
