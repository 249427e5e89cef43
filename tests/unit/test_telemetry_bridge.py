"""The mirrored spans of real Agents SDK runs: names, parents, ids, and the absence of content."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, Tool, custom_span, function_tool, trace
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing import agent_span, function_span, generation_span
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cedarbox.telemetry import attributes as names
from cedarbox.telemetry.otlp import from_json
from cedarbox.telemetry.spans import Telemetry

_CONFIG = RunConfig(trace_include_sensitive_data=True)
_SECRET = "the-content-of-the-conversation"


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    made = Telemetry(directory=tmp_path / "spans")
    made.attach()
    yield made
    made.close()


def kept(telemetry: Telemetry) -> list[Span]:
    lines = [line for path in telemetry.source().streams() for line in path.read_bytes().splitlines()]
    requests = [from_json(line, ExportTraceServiceRequest) for line in lines]
    return [
        span
        for request in requests
        for outer in request.resource_spans
        for inner in outer.scope_spans
        for span in inner.spans
    ]


def chain(spans: list[Span], span: Span) -> list[str]:
    by_id = {item.span_id: item for item in spans}
    found = [span.name]
    while span.parent_span_id:
        span = by_id[span.parent_span_id]
        found.append(span.name)
    return found


def values(span: Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "") for item in span.attributes}


def _tool(telemetry: Telemetry) -> Tool:
    @function_tool
    async def look(name: str) -> str:
        with telemetry.operation("exec look", {names.GEN_AI_TOOL_CALL_ID: name}):
            await asyncio.sleep(0.02 if name == "A" else 0)
        return _SECRET

    return look


async def _run(agent: Agent[None], *, streamed: bool) -> None:
    if streamed:
        result = Runner.run_streamed(agent, _SECRET, run_config=_CONFIG)
        async for _ in result.stream_events():
            pass
    else:
        await Runner.run(agent, _SECRET, run_config=_CONFIG)


@pytest.mark.parametrize("streamed", [False, True])
async def test_parallel_tool_calls_nest(telemetry: Telemetry, streamed: bool) -> None:
    calls = [function_call("look", {"name": which}, call_id=which) for which in "AB"]
    model = ScriptedModel([calls, [assistant_message(_SECRET)]], emit_traces=True)
    await _run(Agent[None](name="worker", model=model, tools=[_tool(telemetry)]), streamed=streamed)
    spans = kept(telemetry)
    own = [span for span in spans if span.name == "exec look"]
    expected = ["exec look", "execute_tool look", "turn", "invoke_agent worker", "task Agent workflow"]
    assert [chain(spans, span) for span in own] == [[*expected, "invoke_workflow Agent workflow"]] * 2
    assert {values(span)[names.GEN_AI_TOOL_CALL_ID] for span in own} == {"A", "B"}
    assert len({span.parent_span_id for span in own}) == 2
    assert len({span.trace_id for span in spans}) == 1


async def test_runs_one_after_another_are_separate_traces(telemetry: Telemetry) -> None:
    for streamed in (True, False, True):
        await _run(Agent[None](name="w", model=ScriptedModel([[assistant_message("x")]])), streamed=streamed)
    with telemetry.operation("after"):
        pass
    spans = kept(telemetry)
    assert len({span.trace_id for span in spans}) == 4
    roots = sorted(span.name for span in spans if not span.parent_span_id)
    assert roots == ["after", *["invoke_workflow Agent workflow"] * 3]


async def test_nested_agent_is_under_the_tool_that_calls_it(telemetry: Telemetry) -> None:
    inner_calls = [function_call("look", {"name": "inner"}, call_id="i")]
    inner_model = ScriptedModel([inner_calls, [assistant_message("deep")]])
    inner = Agent[None](name="inner", model=inner_model, tools=[_tool(telemetry)])
    ask = inner.as_tool(tool_name="ask", tool_description="ask")
    outer_calls = [function_call("ask", {"input": "q"}, call_id="o")]
    outer_model = ScriptedModel([outer_calls, [assistant_message("done")]])
    await _run(Agent[None](name="outer", model=outer_model, tools=[ask]), streamed=False)
    spans = kept(telemetry)
    (own,) = [span for span in spans if span.name == "exec look"]
    path = chain(spans, own)
    assert path.index("invoke_agent inner") < path.index("execute_tool ask") < path.index("invoke_agent outer")


@pytest.mark.parametrize("streamed", [False, True])
async def test_no_content_is_kept(telemetry: Telemetry, streamed: bool) -> None:
    calls = [function_call("look", {"name": _SECRET}, call_id="A")]
    model = ScriptedModel([calls, [assistant_message(_SECRET)]], emit_traces=True)

    @function_tool
    def look(name: str) -> str:
        raise RuntimeError(f"cannot look at {name}")

    await _run(Agent[None](name="worker", model=model, tools=[look]), streamed=streamed)
    with trace("t", metadata={"note": _SECRET}), custom_span("c", {"note": _SECRET}) as span:
        span.set_error({"message": _SECRET, "data": {"text": _SECRET}})
    with trace("t"), generation_span(input=[{"content": _SECRET}], output=[{"content": _SECRET}], model="m"):
        pass
    text = b"".join(path.read_bytes() for path in telemetry.source().streams())
    assert b"execute_tool look" in text
    assert names.CEDARBOX_TOOL_ARGUMENTS_DIGEST.encode() in text
    assert _SECRET.encode() not in text


async def test_names_and_attributes(telemetry: Telemetry) -> None:
    with trace("flow", group_id="group-7") as run, agent_span("planner"):
        config = {"base_url": "http://user:pw@127.0.0.1:8080/v1"}
        with generation_span(model="m1", model_config=config) as call:
            call.span_data.usage = {"input_tokens": 3, "output_tokens": 5}
        with function_span("look", input="{}") as tool:
            tool.set_error({"message": "Error running tool", "data": {"error_type": "ValueError"}})
        with custom_span("sandbox.exec", {"sandbox.operation": "exec", "process.exit.code": 3, "other": "x"}):
            pass
    spans = {span.name: span for span in kept(telemetry)}
    assert set(spans) == {
        "invoke_workflow flow",
        "invoke_agent planner",
        "chat m1",
        "execute_tool look",
        "sandbox.exec",
    }
    assert values(spans["invoke_workflow flow"]) == {
        names.CEDARBOX_SDK_SPAN: "trace",
        names.CEDARBOX_SDK_TRACE_ID: run.trace_id,
        names.GEN_AI_AGENT_NAME: "flow",
        names.GEN_AI_OPERATION_NAME: "invoke_workflow",
        names.GEN_AI_CONVERSATION_ID: "group-7",
    }
    assert spans["invoke_workflow flow"].trace_id.hex() == run.trace_id.removeprefix("trace_")
    assert values(spans["chat m1"]) == {
        names.CEDARBOX_SDK_SPAN: "generation",
        names.GEN_AI_OPERATION_NAME: "chat",
        names.GEN_AI_PROVIDER_NAME: "_OTHER",
        names.GEN_AI_REQUEST_MODEL: "m1",
        names.GEN_AI_USAGE_INPUT_TOKENS: 3,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: 5,
        names.SERVER_ADDRESS: "127.0.0.1",
        names.SERVER_PORT: 8080,
    }
    assert spans["chat m1"].kind == Span.SPAN_KIND_CLIENT
    assert values(spans["execute_tool look"])[names.ERROR_TYPE] == "ValueError"
    assert spans["execute_tool look"].status.code == 2
    assert values(spans["sandbox.exec"]) == {
        names.CEDARBOX_SDK_SPAN: "custom",
        names.SANDBOX_OPERATION: "exec",
        names.PROCESS_EXIT_CODE: 3,
    }
    assert all(set(values(span)) <= set(names.ATTRIBUTES) for span in spans.values())


def test_ids_are_those_of_the_sdk(telemetry: Telemetry) -> None:
    with trace("t"), custom_span("c") as span:
        pass
    (mirror,) = [item for item in kept(telemetry) if item.name == "c"]
    assert mirror.span_id.hex() == span.span_id
    assert "trace_" + mirror.trace_id.hex() == span.trace_id


def test_a_child_that_outlives_its_parent_keeps_it(telemetry: Telemetry) -> None:
    with trace("t"), custom_span("parent") as parent:
        late = custom_span("late", parent=parent)
    late.start()
    late.finish()
    spans = kept(telemetry)
    (mirror,) = [item for item in spans if item.name == "late"]
    assert chain(spans, mirror) == ["late", "parent", "invoke_workflow t"]


def test_a_span_ended_in_another_context_leaves_no_noise(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps() -> Any:
        with trace("t"), custom_span("c"):
            yield 1

    async def main() -> None:
        generator = steps()
        await asyncio.create_task(anext(generator))
        await asyncio.create_task(generator.aclose())

    asyncio.run(main())
    assert {span.name for span in kept(telemetry)} == {"invoke_workflow t", "c"}
    assert caplog.records == []


def test_a_run_inside_an_operation_joins_its_trace(telemetry: Telemetry) -> None:
    with telemetry.operation("outer") as outer, trace("t"), custom_span("c"):
        pass
    spans = kept(telemetry)
    (mirror,) = [item for item in spans if item.name == "c"]
    assert chain(spans, mirror) == ["c", "invoke_workflow t", "outer"]
    assert mirror.trace_id.hex() == outer.trace_id


def test_two_attached_do_not_double_spans(telemetry: Telemetry, tmp_path: Path) -> None:
    second = Telemetry(directory=tmp_path / "second")
    second.attach()
    with trace("t"), custom_span("c"):
        pass
    assert len(kept(telemetry)) == 0
    assert len(kept(second)) == 2
    second.close()
    with trace("t"), custom_span("c"):
        pass
    assert len(kept(telemetry)) == 2


def test_attach_counts(telemetry: Telemetry) -> None:
    telemetry.attach()
    telemetry.detach()
    with trace("t"), custom_span("still"):
        pass
    telemetry.detach()
    telemetry.detach()
    with trace("t"), custom_span("gone"):
        pass
    assert {span.name for span in kept(telemetry)} == {"invoke_workflow t", "still"}


def test_a_trace_begun_before_attaching_keeps_its_id(tmp_path: Path) -> None:
    with trace("early") as early:
        made = Telemetry(directory=tmp_path)
        made.attach()
        with custom_span("c"):
            pass
        made.detach()
    (mirror,) = kept(made)
    assert "trace_" + mirror.trace_id.hex() == early.trace_id
    assert mirror.parent_span_id == b""
    made.close()


def test_ids_of_another_shape_are_accepted(telemetry: Telemetry) -> None:
    with trace("t", trace_id="trace_mine"), custom_span("c", span_id="not hexadecimal"), custom_span("d"):
        pass
    spans = kept(telemetry)
    (mirror,) = [item for item in spans if item.name == "d"]
    assert chain(spans, mirror) == ["d", "c", "invoke_workflow t"]
