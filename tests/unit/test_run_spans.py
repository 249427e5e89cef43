"""The spans of real runs: the tree, that it agrees with the ledger, and that it holds nothing that no table knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, function_tool, handoff, set_tracing_disabled, trace
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Filesystem, Shell
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool import Tool
from agents.usage import Usage
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded
from tests.unit.spanned import Spanned, chain, named, spans_of

from cedarbox.telemetry import attributes as names
from cedarbox.telemetry.otlp import from_json

_TYPES = {"string": str, "int": int, "boolean": bool, "string[]": list}
_NO_WGET = (
    PERMIT_ALL + '@id("no-wget") forbid (principal, action == Sandbox::Action::"exec", resource) '
    'when { context.commandLine like "*wget*" };'
)


@function_tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    await asyncio.sleep(0)
    return a + b


def _command(text: str, call: str) -> Any:
    return function_call("exec_command", {"cmd": text}, call_id=call)


def _agent(**options: Any) -> SandboxAgent[Any]:
    """An agent that runs commands and tools in parallel, asks another agent, and hands over to a third."""
    helper = Agent[Any](name="helper", model=ScriptedModel([[assistant_message("helped")]]))
    last = SandboxAgent[Any](
        name="last",
        model=ScriptedModel([[_command("true", "e")], [assistant_message("done")]]),
        capabilities=[Shell()],
    )
    usage = Usage(requests=1, input_tokens=11, output_tokens=3, total_tokens=14)
    model = ScriptedModel(
        [
            [
                _command("echo x > note; exit 3", "a"),
                function_call("add", {"a": 1, "b": 2}, call_id="b"),
                _command("wget http://x.example", "c"),
            ],
            [function_call("ask_helper", {"input": "?"}, call_id="d")],
            [function_call("transfer_to_last", {}, call_id="h")],
        ],
        emit_traces=True,
        default_usage=usage,
    )
    tools: list[Tool] = [add, helper.as_tool("ask_helper", "ask")]
    handoffs: list[Any] = [handoff(last)]
    return SandboxAgent[Any](
        name="first", model=model, tools=tools, handoffs=handoffs, capabilities=[Shell(), Filesystem()], **options
    )


async def _run(guarded: Guarded, agent: Agent[Any], *, streamed: bool, config: RunConfig | None = None) -> None:
    config = config or guarded.config
    if streamed:
        async for _ in Runner.run_streamed(agent, "go", run_config=config).stream_events():
            pass
        await asyncio.sleep(0)
    else:
        await Runner.run(agent, "go", run_config=config)
    guarded.client.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path, _NO_WGET)


@pytest.fixture
def _tracing_off() -> Iterator[None]:
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(False)


def _agree(guarded: Guarded, spans: list[Spanned]) -> None:
    """Check that each record of a run has its span and each span its records."""
    by_id = {(span.trace, span.id): span for span in spans}
    (stream,) = {span.resource[names.CEDARBOX_LEDGER_STREAM] for span in spans}
    told = {(span.trace, span.id, span.attributes.get(names.CEDARBOX_RECORD_SEQ)) for span in spans}
    decisions = [record for record in guarded.records("decision") if record.entry.trace_id]
    assert decisions == guarded.records("decision")
    assert decisions
    recorded = {(record.entry.trace_id, record.entry.span_id, record.seq) for record in decisions}
    assert recorded == {each for each in told if each[2] is not None}
    for record in decisions:
        span = by_id[record.entry.trace_id or "", record.entry.span_id or ""]
        assert span.attributes[names.AUDIT_RECORD_ID] == f"{stream}/{record.seq}"
        assert span.attributes[names.CEDARBOX_POLICY_DECISION] == record.entry.decision
        assert span.attributes.get(names.CEDARBOX_RUN_ID) == record.entry.run
        assert span.attributes.get(names.GEN_AI_TOOL_CALL_ID) == record.entry.call_id
    others = [r for r in guarded.records() if r.entry.trace_id and r.entry.event != "decision"]
    outcomes = {(record.entry.trace_id, record.entry.span_id, record.seq) for record in others}
    told = {(span.trace, span.id, span.attributes.get(names.CEDARBOX_OUTCOME_SEQ)) for span in spans}
    assert outcomes == {each for each in told if each[2] is not None}


def _all_in_the_table(spans: list[Spanned]) -> None:
    for span in spans:
        for key, value in (span.attributes | span.resource).items():
            line = names.ATTRIBUTES[key]
            assert type(value) is _TYPES[line.type], (span.name, key, value)
            assert not line.content, (span.name, key)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_tree_of_a_run(guarded: Guarded, streamed: bool) -> None:
    await _run(guarded, _agent(), streamed=streamed)
    spans = spans_of(guarded.directory)
    run = ["task Agent workflow", "invoke_workflow Agent workflow"]
    assert {span.trace for span in spans} == {spans[0].trace}
    assert [span.name for span in spans if not span.parent] == ["invoke_workflow Agent workflow"]
    assert {span.attributes.get(names.CEDARBOX_RUN_ID) for span in spans} == {guarded.records("decision")[0].entry.run}
    commands = {span.attributes[names.GEN_AI_TOOL_CALL_ID]: span for span in named(spans, "exec")}
    assert set(commands) == {"a", "c", "e"}
    for call, agent in (("a", "first"), ("c", "first"), ("e", "last")):
        above = ["exec", "tool invoke", "execute_tool exec_command", "turn", f"invoke_agent {agent}", *run]
        assert chain(spans, commands[call]) == above
    assert commands["a"].attributes[names.PROCESS_EXIT_CODE] == 3
    assert commands["a"].attributes[names.ERROR_TYPE] == "exit_nonzero"
    assert commands["c"].attributes[names.ERROR_TYPE] == "policy_denied"
    assert commands["c"].attributes[names.CEDARBOX_POLICY_IDS] == ["no-wget"]
    assert not commands["e"].failed
    calls = named(spans, "chat ScriptedModel")
    assert len(calls) == 6
    nested = [span for span in calls if span.attributes[names.GEN_AI_AGENT_NAME] == "helper"]
    tool = ["tool invoke", "execute_tool ask_helper", "turn", "invoke_agent first", *run]
    assert [chain(spans, span)[-len(tool) :] for span in nested] == [tool]
    first = [span for span in calls if span.attributes[names.GEN_AI_AGENT_NAME] == "first"]
    assert [chain(spans, span) for span in first] == [
        ["chat ScriptedModel", "turn", "invoke_agent first", *run],
    ] * 3
    assert {span.attributes[names.GEN_AI_USAGE_INPUT_TOKENS] for span in first} == {11}
    assert {span.attributes[names.GEN_AI_REQUEST_STREAM] for span in first} == {streamed}
    (over,) = named(spans, "handoff last")
    assert over.attributes[names.CEDARBOX_HANDOFF_FROM] == "first"
    _agree(guarded, spans)
    _all_in_the_table(spans)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("how", ["run", "process"])
async def test_a_run_whose_tracing_is_off_is_a_tree_too(
    guarded: Guarded, streamed: bool, how: str, request: pytest.FixtureRequest
) -> None:
    config = guarded.config
    if how == "run":
        config.tracing_disabled = True
    else:
        request.getfixturevalue("_tracing_off")
    await _run(guarded, _agent(), streamed=streamed, config=config)
    spans = spans_of(guarded.directory)
    assert {span.trace for span in spans} == {spans[0].trace}
    assert [span.name for span in spans if not span.parent] == ["invoke_agent first"]
    assert not any(names.CEDARBOX_SDK_SPAN in span.attributes for span in spans if "invoke_agent" in span.name)
    commands = {span.attributes[names.GEN_AI_TOOL_CALL_ID]: span for span in named(spans, "exec")}
    assert {call: chain(spans, span) for call, span in commands.items()} == {
        call: ["exec", "tool invoke", "invoke_agent first"] for call in ("a", "c", "e")
    }
    tool = next(span for span in named(spans, "tool invoke") if span.id == commands["a"].parent)
    assert tool.attributes[names.GEN_AI_OPERATION_NAME] == "execute_tool"
    assert tool.attributes[names.GEN_AI_TOOL_NAME] == "exec_command"
    assert len(named(spans, "chat ScriptedModel")) == 6
    _agree(guarded, spans)
    _all_in_the_table(spans)


@pytest.mark.parametrize("off", [False, True])
async def test_a_run_inside_a_span_of_the_caller_joins_its_trace(guarded: Guarded, off: bool) -> None:
    tracer = TracerProvider().get_tracer("the program's own")
    config = guarded.config
    config.tracing_disabled = off
    agent = Agent[Any](name="a", model=ScriptedModel([[assistant_message("x")]]))
    with tracer.start_as_current_span("request") as outer, nullcontext() if off else trace("nested"):
        await Runner.run(agent, "go", run_config=config)
    guarded.client.close()
    spans = spans_of(guarded.directory)
    context = outer.get_span_context()
    assert {span.trace for span in spans} == {f"{context.trace_id:032x}"}
    tops = [span for span in spans if span.parent == f"{context.span_id:016x}"]
    assert tops
    assert all(chain(spans, span)[-1] in {top.name for top in tops} for span in spans)
    _agree(guarded, spans)


async def test_a_failed_model_call_is_an_error_without_its_text(guarded: Guarded) -> None:
    model = ScriptedModel([RuntimeError("the text of the error")])
    with pytest.raises(RuntimeError):
        await _run(guarded, Agent[Any](name="a", model=model), streamed=False)
    guarded.client.close()
    (call,) = named(spans_of(guarded.directory), "chat ScriptedModel")
    assert call.failed
    assert call.attributes[names.ERROR_TYPE] == "RuntimeError"
    assert b"the text of the error" not in b"".join(p.read_bytes() for p in (guarded.directory / "spans").iterdir())


async def test_the_metrics_of_a_run_agree_with_the_ledger(guarded: Guarded) -> None:
    await _run(guarded, _agent(), streamed=False)
    lines = [p.read_bytes() for p in (guarded.directory / "spans").glob("metrics-*.jsonl")]
    requests = [from_json(line, ExportMetricsServiceRequest) for line in b"".join(lines).splitlines()]
    metrics = {m.name: m for r in requests for o in r.resource_metrics for i in o.scope_metrics for m in i.metrics}
    decisions = guarded.decisions()
    assert sum(point.as_int for point in metrics["cedarbox.decisions"].sum.data_points) == len(decisions)
    assert sum(point.as_int for point in metrics["cedarbox.denials"].sum.data_points) == len(guarded.denied()) == 1
    assert sum(point.count for point in metrics["cedarbox.decision.duration"].histogram.data_points) == len(decisions)
    assert sum(point.as_int for point in metrics["cedarbox.sandboxes"].sum.data_points) == 0
    assert sum(p.as_int for p in metrics["gen_ai.client.inference.usage.input_tokens"].sum.data_points) == 33
    assert sum(p.count for p in metrics["gen_ai.client.inference.duration"].histogram.data_points) == 6
    ended = {
        tuple(item.value.string_value for item in point.attributes): point.count
        for point in metrics["cedarbox.operation.duration"].histogram.data_points
    }
    assert ended["exec", "denied"] == 1
    assert ended["exec", "ok"] == 2
    # All but the last, which says that the ledger was closed.
    assert metrics["cedarbox.ledger.records"].sum.data_points[0].as_int == len(guarded.records()) - 1
