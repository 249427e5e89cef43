"""What a policy wants approved waits by the SDK's own interruption, and runs once after a signature."""

from __future__ import annotations

import json
import sys
import textwrap
from base64 import b64decode
from datetime import timedelta
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
from tests.unit.approving import ASKS, DESK, EVERY_TOOL, OFFICER, Scene, outputs, public

from cedarbox import PolicyDenied, approvals, verify_ledger
from cedarbox.errors import ConfigurationError
from cedarbox.guard.approvals import PAYLOAD_TYPE


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_signed_call_runs_once_and_the_ledger_alone_proves_who_signed_what(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    await scene.sign(state)
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
    await scene.sign(state)
    assert (await scene.run(agent, state)).final_output == "done"
    assert scene.paid == [5]


async def test_a_streamed_run_waits_too(scene: Scene) -> None:
    agent = scene.agent()
    result = Runner.run_streamed(agent, "go", run_config=scene.guarded.config)
    async for _ in result.stream_events():
        pass
    assert len(result.interruptions) == 1
    state = result.to_state()
    await scene.sign(state)
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
    await scene.sign(state)
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
    answered = (await scene.run(agent, state)).to_input_list()
    assert done == []
    assert any("nobody has signed" in str(item.get("output")) for item in answered)
    (denied,) = [r.entry for r in scene.guarded.records("decision") if r.entry.decision == "deny"]
    assert (denied.action, "nobody has signed" in str(denied.attrs["reason"])) == ("invokeTool", True)


@pytest.mark.parametrize("tool", [LocalShellTool(executor=lambda _: ""), WebSearchTool()], ids=lambda tool: tool.name)
async def test_a_kind_of_tool_that_the_sdk_cannot_hold_is_denied(tmp_path: Path, tool: Any) -> None:
    scene = Scene(tmp_path, EVERY_TOOL)
    agent = scene.agent([assistant_message("never")], tools=[tool])
    with pytest.raises(PolicyDenied, match="nothing here that could wait"):
        await scene.run(agent)


async def test_a_command_in_a_sandbox_waits(tmp_path: Path) -> None:
    rest = ASKS.replace('"pay"', '"exec_command"')
    scene = Scene(tmp_path, rest)
    call = function_call("exec_command", {"cmd": "echo approved", "yield_time_ms": 30_000}, call_id="e1")
    model = ScriptedModel([[call], [assistant_message("done")]])
    agent = SandboxAgent(name="worker", model=model, capabilities=[Shell()])
    result = await scene.run(agent)
    assert [action for _, action, _ in scene.guarded.decisions() if action == "exec"] == []
    state = result.to_state()
    await scene.sign(state)
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
    await scene.sign(state)
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
        await scene.sign(state)
        await scene.run(agent, state)
    assert (tmp_path / "paid").read_text() == "5"
    (granted,) = scene.guarded.records("approval.granted")
    statement: Any = granted.entry.attrs["statement"]
    assert (statement["kind"], statement["server"]) == ("mcp", "bank")
