"""What a policy wants approved waits by the SDK's own interruption, and runs once after a signature."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from agents import (
    Agent,
    ApplyPatchTool,
    CustomTool,
    LocalShellTool,
    Runner,
    RunState,
    ShellTool,
    WebSearchTool,
    function_tool,
)
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.mcp import MCPServerStdio
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Filesystem, Shell
from agents.testing import ScriptedModel, assistant_message, function_call
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from openai.types.responses import ResponseApplyPatchToolCall, ResponseCustomToolCall, ResponseFunctionShellToolCall
from tests.unit.approving import ASKS, DESK, OFFICER, Scene, metadata, pem, public
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.test_cli import assert_one_line
from typer.testing import CliRunner

from cedarbox import PolicyBundle, PolicyDenied, PolicyEngine, approvals, verify_ledger
from cedarbox.cli import app
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.guard.approvals import PAYLOAD_TYPE
from cedarbox.policy import Approval, actions
from cedarbox.policy.entities import Base

INVOKE = 'permit (principal, action == Sandbox::Action::"invokeTool", resource);'
EVERY_TOOL = (
    '@id("rest") permit (principal, action, resource) unless { action == Sandbox::Action::"invokeTool" };\n'
    f'@id("tools") @requires_approval("desk") {INVOKE}\n'
)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def signed(scene: Scene, state: RunState[Any, Any]) -> None:
    for item in state.get_interruptions():
        await approvals.approve(state, item, client=scene.client, key=DESK, approver="desk")


def outputs(result: Any) -> str:
    """Return what the model was given for its calls."""
    return str([item.output for item in result.new_items if item.type == "tool_call_output_item"])


@pytest.mark.parametrize(
    ("policy", "line", "said"),
    [
        ('\n@requires_approval("desk") forbid' + INVOKE[6:], 2, "stands on a forbid"),
        ('@requires_approval("desk")\npermit (principal, action, resource);', 1, "not invokeTool alone"),
        (
            '@requires_approval("desk") permit (principal, action == Sandbox::Action::"exec", resource);',
            1,
            "not invoke",
        ),
        (
            '@requires_approval("desk") permit (principal, action in Sandbox::Action::"intelligence", resource);',
            1,
            "not",
        ),
        (f'@id("x")\n@requires_approval("boss")\n{INVOKE}', 2, "'boss', who is no declared approver"),
        (f'@requires_approval("desk, boss") {INVOKE}', 1, "'boss'"),
        (f'@requires_approval("") {INVOKE}', 1, "needs the names"),
        (f"@requires_approval {INVOKE}", 1, "needs the names"),
        (f'@requires_approval("desk,") {INVOKE}', 1, "needs the names"),
        (f'@requires_approval("desk") @approval_expires("soon") {INVOKE}', 1, "'soon', which is no duration"),
        (f'@requires_approval("desk") @approval_expires("0m") {INVOKE}', 1, "no duration"),
        (f'@requires_approval("desk") @approval_expires("9999999h") {INVOKE}', 1, "no duration"),
        (f'@requires_approval("desk") @approval_expires("\N{FULLWIDTH DIGIT ONE}m") {INVOKE}', 1, "no duration"),
        (f'@requires_approval("desk") @approval_expires {INVOKE}', 1, "no duration"),
        (f'@approval_expires("15m") {INVOKE}', 1, "stands without @requires_approval"),
        (f'@require_approval("desk") {INVOKE}', 1, "is not an annotation that cedarbox knows"),
        (f'@requiresApproval("desk") {INVOKE}', 1, "is not an annotation that cedarbox knows"),
    ],
)
def test_an_annotation_that_could_not_be_held_to(tmp_path: Path, policy: str, line: int, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        PolicyBundle.load(write_bundle(tmp_path, policy, metadata=metadata()))
    assert said in str(caught.value)
    assert (caught.value.path.name, caught.value.line) == ("policies.cedar", line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "line", "said"),
    [
        ('approvers = "desk"', 3, "must be a table"),
        ('[approvers]\ndesk = "not base64"', 4, "not a public key"),
        ("[approvers]\ndesk = 5", 4, "not a public key"),
        ('[approvers]\ndesk = "AAAA"', 4, "not a public key"),
        (f'[approvers]\ndesk = "{public(DESK)[:-2]}B="', 4, "not a public key"),
        (f'[approvers]\ndesk = "{public(DESK)}"\nboss = "{public(DESK)}"', 5, "has the key of 'desk'"),
        (f'[approvers]\ndesk = "{public(DESK)}"\ndesk = "{public(OFFICER)}"', None, "not TOML"),
        (f'[approvers]\n"a b" = "{public(DESK)}"', 4, "no usable name"),
        (f'[approver]\ndesk = "{public(DESK)}"', None, "unknown key 'approver'"),
    ],
)
def test_approvers_that_cannot_be_used(tmp_path: Path, table: str, line: int | None, said: str) -> None:
    toml = f'name = "test"\nschema = 1\n{table}\n'
    with pytest.raises(BundleError) as caught:
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, metadata=toml))
    assert said in str(caught.value)
    assert caught.value.path.name == "bundle.toml"
    assert "must be a table" in said or caught.value.line == line
    assert "\n" not in str(caught.value)


def test_the_declared_approvers_are_part_of_the_bundle_and_its_digest(tmp_path: Path) -> None:
    bundle = PolicyBundle.load(write_bundle(tmp_path / "a", ASKS, metadata=metadata()))
    assert bundle.approvers == {"desk": public(DESK), "officer": public(OFFICER)}
    swapped = metadata().replace("officer =", "other =").replace("desk =", "officer =").replace("other =", "desk =")
    assert PolicyBundle.load(write_bundle(tmp_path / "b", ASKS, metadata=swapped)).digest != bundle.digest


@pytest.mark.parametrize(
    ("permits", "expected"),
    [
        ([INVOKE], None),
        ([f'@requires_approval("desk") {INVOKE}'], Approval(("desk",), 900)),
        (
            [f'@requires_approval("officer, desk") @approval_expires("2h") {INVOKE}'],
            Approval(("desk", "officer"), 7200),
        ),
        ([f'@requires_approval("desk") {INVOKE}', INVOKE], Approval(("desk",), 900)),
        (
            [
                f'@requires_approval("desk,officer") @approval_expires("30s") {INVOKE}',
                f'@requires_approval("officer") @approval_expires("1h") {INVOKE}',
            ],
            Approval(("officer",), 30),
        ),
    ],
)
def test_what_satisfies_every_permit_that_asks(tmp_path: Path, permits: list[str], expected: Approval | None) -> None:
    write_bundle(tmp_path, "\n".join(permits), metadata=metadata())
    decide = PolicyEngine(PolicyBundle.load(tmp_path)).decide
    base = Base(at=datetime.now(UTC), backend="x")
    decision = decide("agent", actions.invoke_tool(base, name="t", kind="function"))
    assert decision.allowed
    assert decision.approval == expected


async def test_a_signed_call_runs_once_and_the_ledger_alone_proves_who_signed_what(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    await signed(scene, state)
    result = await scene.run(agent, state)
    assert result.final_output == "done"
    assert scene.paid == [5]
    assert scene.events() == ["approval.requested", "approval.granted"]
    (granted,) = scene.guarded.records("approval.granted")
    (use,) = scene.used()
    attrs: Any = granted.entry.attrs
    assert (use["digest"], use["seq"], use["signature"]) == (attrs["digest"], granted.seq, attrs["signature"])
    statement = attrs["statement"]
    assert statement["arguments_digest"] == next(
        record.entry.attrs["arguments_digest"]
        for record in scene.guarded.records("outcome")
        if record.entry.tool == "pay"
    )
    payload = rfc8785.dumps(json.loads(json.dumps(statement)))
    message = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    Ed25519PublicKey.from_public_bytes(b64decode(public(DESK))).verify(b64decode(attrs["signature"]), message)
    scene.client.close()
    assert verify_ledger(scene.directory / "ledger").ok


async def test_arguments_are_in_the_request_and_never_in_the_ledger(scene: Scene) -> None:
    await scene.interrupted(scene.agent([function_call("pay", {"amount": 424242}, call_id="c1")]))
    (request,) = scene.store.requests()
    assert "424242" in request.call.arguments
    (file,) = scene.directory.glob("approvals/*")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert all(b"424242" not in path.read_bytes() for path in scene.directory.glob("ledger/*.jsonl"))


async def test_a_state_taken_up_without_an_answer_waits_again_and_asks_once(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    again = await scene.run(agent, await RunState.from_json(agent, state.to_json()))
    assert len(again.interruptions) == 1
    assert scene.events() == ["approval.requested"]
    state = again.to_state()
    await signed(scene, state)
    assert (await scene.run(agent, state)).final_output == "done"
    assert scene.paid == [5]


async def test_a_streamed_run_waits_too(scene: Scene) -> None:
    agent = scene.agent()
    result = Runner.run_streamed(agent, "go", run_config=scene.guarded.config)
    async for _ in result.stream_events():
        pass
    assert len(result.interruptions) == 1
    state = result.to_state()
    await signed(scene, state)
    resumed = Runner.run_streamed(agent, state, run_config=scene.guarded.config)
    async for _ in resumed.stream_events():
        pass
    assert scene.paid == [5]


async def test_what_the_program_itself_wants_approved_is_still_asked(scene: Scene) -> None:
    called = []

    @function_tool(needs_approval=True)
    def other() -> str:
        """Do something else."""
        called.append(True)
        return "did"

    agent = scene.agent([function_call("other", {}, call_id="o1")], tools=[other])
    result = await scene.run(agent)
    (item,) = result.interruptions
    state = result.to_state()
    with pytest.raises(ConfigurationError, match=r"state\.approve"):
        await approvals.approve(state, item, client=scene.client, key=DESK, approver="desk")
    state.approve(item)
    await scene.run(agent, state)
    assert called == [True]
    assert scene.events() == []


async def test_a_rejection_is_an_answer_to_the_model_and_on_the_record(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    (item,) = state.get_interruptions()
    await approvals.reject(state, item, client=scene.client, reason="too much", key=DESK, approver="desk")
    result = await scene.run(agent, state)
    assert scene.paid == []
    assert "too much" in outputs(result)
    (rejected,) = scene.guarded.records("approval.rejected")
    assert rejected.entry.attrs["approver"] == "desk"
    assert "signature" in rejected.entry.attrs
    assert scene.store.requests() == []


async def test_a_rejection_signed_with_another_key_is_refused(scene: Scene) -> None:
    state = await scene.interrupted(scene.agent())
    (item,) = state.get_interruptions()
    with pytest.raises(ConfigurationError, match="not that of"):
        await approvals.reject(state, item, client=scene.client, key=OFFICER, approver="desk")
    assert scene.events() == ["approval.requested"]


async def test_a_lifetime_may_be_shorter_than_the_policys_and_not_longer(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    (item,) = state.get_interruptions()
    give: Any = {"client": scene.client, "key": DESK, "approver": "desk"}
    with pytest.raises(ConfigurationError, match="1 to 900 s"):
        await approvals.approve(state, item, **give, lifetime_s=901)
    grant = await approvals.approve(state, item, **give, lifetime_s=60)
    assert grant.digest
    scene.late = timedelta(seconds=61)
    await scene.run(agent, state)
    assert scene.paid == []


async def test_wait_gives_up_and_applies_what_comes(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    assert len(await approvals.wait(state, client=scene.client, timeout_s=0)) == 1
    (request,) = scene.store.requests()
    bundle = scene.client.gate.engine.bundle
    give: Any = {"store": scene.store, "bundle": bundle, "ledger": scene.client.ledger}
    approvals.grant_request(request, key=DESK, approver="desk", **give)
    assert await approvals.wait(state, client=scene.client, timeout_s=60) == []
    await scene.run(agent, state)
    assert scene.paid == [5]


CUSTOM = ResponseCustomToolCall(type="custom_tool_call", call_id="k1", name="note", input="buy milk")
SHELL = ResponseFunctionShellToolCall.model_validate(
    {
        "type": "shell_call",
        "id": "sh1",
        "call_id": "k1",
        "status": "completed",
        "action": {"commands": ["echo hi"], "timeout_ms": 1000, "max_output_length": 100},
    }
)
PATCH = ResponseApplyPatchToolCall.model_validate(
    {
        "type": "apply_patch_call",
        "id": "ap1",
        "call_id": "k1",
        "status": "completed",
        "operation": {"type": "delete_file", "path": "a.txt"},
    }
)


class _Editor:
    def __init__(self, done: list[str]) -> None:
        self.done = done

    def create_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        return self.delete_file(operation)

    def update_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        return self.delete_file(operation)

    def delete_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        self.done.append(operation.path)
        return ApplyPatchResult(output="deleted")


def native(kind: str, done: list[str]) -> tuple[Any, Any]:
    def note(_: object, text: str) -> str:
        done.append(text)
        return "noted"

    def shell(request: Any) -> str:
        done.extend(request.data.action.commands)
        return "ran"

    async def noting(context: object, text: str) -> str:
        return note(context, text)

    if kind == "custom":
        return CustomTool(name="note", description="notes", on_invoke_tool=noting), CUSTOM
    if kind == "shell":
        return ShellTool(executor=shell), SHELL
    return ApplyPatchTool(editor=_Editor(done)), PATCH


@pytest.mark.parametrize("kind", ["custom", "shell", "apply_patch"])
@pytest.mark.parametrize("stored", [False, True], ids=["live", "stored"])
async def test_every_kind_of_tool_that_the_sdk_can_hold_is_held(tmp_path: Path, kind: str, stored: bool) -> None:
    scene = Scene(tmp_path, EVERY_TOOL)
    done: list[str] = []
    tool, call = native(kind, done)
    agent = scene.agent([call], tools=[tool])
    result = await scene.run(agent)
    assert len(result.interruptions) == 1
    assert done == []
    state = result.to_state()
    await signed(scene, state)
    if stored:
        state = await RunState.from_json(agent, json.loads(json.dumps(state.to_json())))
    await scene.run(agent, state)
    assert len(done) == 1
    (granted,) = scene.guarded.records("approval.granted")
    assert granted.entry.attrs["statement"]["kind"] == kind  # type: ignore[call-overload,index]


@pytest.mark.parametrize("kind", ["custom", "shell", "apply_patch"])
async def test_no_kind_of_tool_runs_by_the_states_word_alone(tmp_path: Path, kind: str) -> None:
    scene = Scene(tmp_path, EVERY_TOOL)
    done: list[str] = []
    tool, call = native(kind, done)
    agent = scene.agent([call], tools=[tool])
    state = (await scene.run(agent)).to_state()
    state.approve(state.get_interruptions()[0])
    with pytest.raises(PolicyDenied, match="nobody has signed"):
        await scene.run(agent, state)
    assert done == []


@pytest.mark.parametrize("tool", [LocalShellTool(executor=lambda _: ""), WebSearchTool()], ids=lambda tool: tool.name)
async def test_a_kind_of_tool_that_the_sdk_cannot_hold_is_denied(tmp_path: Path, tool: Any) -> None:
    scene = Scene(tmp_path, EVERY_TOOL)
    agent = scene.agent([assistant_message("never")], tools=[tool])
    with pytest.raises(PolicyDenied, match="nothing here that could wait"):
        await scene.run(agent)


async def test_a_command_in_a_sandbox_waits(tmp_path: Path) -> None:
    rest = ASKS.replace('"pay"', '"exec_command"')
    scene = Scene(tmp_path, rest)
    call = function_call("exec_command", {"cmd": "echo approved", "yield_time_ms": 5000}, call_id="e1")
    model = ScriptedModel([[call], [assistant_message("done")]])
    agent = SandboxAgent(name="worker", model=model, capabilities=[Shell()])
    result = await scene.run(agent)
    assert [action for _, action, _ in scene.guarded.decisions() if action == "exec"] == []
    state = result.to_state()
    await signed(scene, state)
    result = await scene.run(agent, state)
    assert "approved" in outputs(result)


async def test_a_patch_in_a_sandbox_waits(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ASKS.replace('"pay"', '"apply_patch"'))
    text = "*** Begin Patch\n*** Add File: a.txt\n+hello\n*** End Patch\n"
    call = ResponseCustomToolCall(type="custom_tool_call", call_id="p1", name="apply_patch", input=text)
    model = ScriptedModel([[call], [assistant_message("done")]])
    agent = SandboxAgent(name="worker", model=model, capabilities=[Filesystem()])
    result = await scene.run(agent)
    assert "writeFile" not in {action for _, action, _ in scene.guarded.decisions()}
    state = result.to_state()
    await signed(scene, state)
    await scene.run(agent, state)
    assert "writeFile" in {action for _, action, _ in scene.guarded.decisions()}


async def test_a_tool_of_an_mcp_server_waits(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        textwrap.dedent(f"""
        from pathlib import Path
        from mcp.server.mcpserver import MCPServer
        server = MCPServer("bank")
        @server.tool()
        def pay(amount: int) -> str:
            Path({str(tmp_path / "paid")!r}).write_text(str(amount))
            return "paid"
        server.run()
        """)
    )
    scene = Scene(tmp_path, EVERY_TOOL)
    async with MCPServerStdio({"command": sys.executable, "args": [str(program)]}, name="bank") as server:
        model = ScriptedModel([[function_call("pay", {"amount": 5}, call_id="c1")], [assistant_message("done")]])
        agent = Agent(name="clerk", model=model, mcp_servers=[server])
        state = (await scene.run(agent)).to_state()
        assert not (tmp_path / "paid").exists()
        await signed(scene, state)
        await scene.run(agent, state)
    assert (tmp_path / "paid").read_text() == "5"
    (granted,) = scene.guarded.records("approval.granted")
    statement: Any = granted.entry.attrs["statement"]
    assert (statement["kind"], statement["server"]) == ("mcp", "bank")


def configured(scene: Scene) -> Path:
    """Write the settings that the command line reads, and return their directory."""
    directory = scene.directory
    (directory / "cedarbox.toml").write_text(
        f'[policy]\nbundle = "{directory / "bundle"}"\n'
        f'[audit]\ndirectory = "{directory / "ledger"}"\nsigning_key = "{directory / "ledger.key"}"\n'
    )
    return directory


def cedarbox(scene: Scene, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cedarbox", "approve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=configured(scene), timeout=120)


async def test_an_approver_at_another_terminal(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    listed = json.loads(cedarbox(scene, "list", "--json").stdout)
    assert json.loads(listed[0]["call"]["arguments"]) == {"amount": 5}
    assert '{"amount": 5}' in cedarbox(scene, "list").stdout.replace('{"amount":5}', '{"amount": 5}')
    key = pem(scene.directory / "desk.key", DESK)
    done = cedarbox(scene, "grant", listed[0]["id"][:8], "--key", key, "--as", "desk", "--expires", "5m")
    assert done.returncode == 0, done.stderr
    assert "granted as desk until" in done.stdout
    state = await RunState.from_json(agent, state.to_json())
    assert approvals.collect(state, client=scene.client) == []
    await scene.run(agent, state)
    assert scene.paid == [5]
    (granted,) = scene.guarded.records("approval.granted")
    assert scene.used()[0]["digest"] == granted.entry.attrs["digest"]
    assert json.loads(cedarbox(scene, "list", "--json").stdout) == []


async def test_a_rejection_at_another_terminal(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    (request,) = scene.store.requests()
    done = cedarbox(scene, "reject", request.id, "--reason", "no order number")
    assert done.returncode == 0, done.stderr
    key = pem(scene.directory / "desk.key", DESK)
    assert_one_line(cedarbox(scene, "grant", request.id, "--key", key, "--as", "desk"), "rejected already")
    assert approvals.collect(state, client=scene.client) == []
    result = await scene.run(agent, state)
    assert scene.paid == []
    assert "no order number" in outputs(result)
    assert scene.events() == ["approval.requested", "approval.rejected"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["grant", "../../etc", "--key", "desk.key", "--as", "desk"], "no request"),
        (["grant", "", "--key", "desk.key", "--as", "desk"], "no request"),
        (["grant", "ID", "--key", "desk.key", "--as", "officer"], "desk may"),
        (["grant", "ID", "--key", "desk.key", "--as", "../desk"], "desk may"),
        (["grant", "ID", "--key", "officer.key", "--as", "desk"], "not by the key of 'desk'"),
        (["grant", "ID", "--key", "none.key", "--as", "desk"], "there is no key"),
        (["grant", "ID", "--key", "desk.key", "--as", "desk", "--expires", "tomorrow"], "--expires"),
        (["grant", "ID", "--key", "desk.key", "--as", "desk", "--expires", "2h"], "1 to 900 s"),
        (["reject", "ID", "--key", "officer.key", "--as", "desk"], "not that of"),
    ],
)
async def test_a_command_that_cannot_be_done_is_one_line(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    await scene.interrupted(scene.agent())
    pem(scene.directory / "desk.key", DESK)
    pem(scene.directory / "officer.key", OFFICER)
    (request,) = scene.store.requests()
    configured(scene)
    monkeypatch.chdir(scene.directory)
    done = CliRunner().invoke(app, ["approve", *(request.id if word == "ID" else word for word in arguments)])
    assert isinstance(done.exception, ConfigurationError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert scene.events() == ["approval.requested"]


@pytest.mark.parametrize("name", ["list", "grant", "reject"])
def test_help_has_an_example(name: str) -> None:
    done = CliRunner().invoke(app, ["approve", name, "--help"])
    assert f"Example: cedarbox approve {name}" in " ".join(done.stdout.split())


def test_the_example(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "examples/approvals.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["waiting: wire {'amount': 250}", "wired 250", "The money is on its way."]
    assert verify_ledger(tmp_path / "ledger").ok
