"""Content where none belongs: prompts, answers, arguments, results, output, files and secrets in spans and records."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest
from agents import Agent, Runner, function_tool, trace
from agents.models.openai_responses import OpenAIResponsesModel
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Shell
from agents.sandbox.entries import File
from agents.sandbox.manifest import Environment, Manifest
from agents.testing import ScriptedModel, assistant_message, function_call
from openai import AsyncOpenAI
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded
from tests.unit.model_server import model_server, response_call, response_text
from tests.unit.spanned import named, spans_of

from cedarbox.telemetry import attributes as names

_ON = {"capture_content": True}
_KINDS = ("prompts", "responses", "toolArguments", "toolResults", "commandOutput")
_DENIED = PERMIT_ALL + '@id("no") forbid (principal, action == Sandbox::Action::"captureContent", resource);'
_CONTENT = {name for name, line in names.ATTRIBUTES.items() if line.content}
_SECRET = "sk-canary0000000000000000"
_PASSWORD = "canary-password-1"


def _only(kind: str) -> str:
    """Permit everything but to capture content of another kind."""
    condition = f'resource != Sandbox::Content::"{kind}"'
    forbid = f'(principal, action == Sandbox::Action::"captureContent", resource) when {{ {condition} }}'
    return PERMIT_ALL + f'@id("only") forbid {forbid};'


def _canary(where: str) -> str:
    return f"Canary~{where}~{where[::-1]}~4711"


def _spellings(canary: str) -> Iterator[bytes]:
    raw = canary.encode()
    yield from (raw, raw[::-1], quote(canary, safe="").encode(), raw.hex().encode(), json.dumps(canary).encode()[1:-1])
    for shift in range(3):
        # The middle of the base64 form is the same whatever stands before and after.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + raw + b"\0" * 3)[4:-8]


def _written(guarded: Guarded) -> dict[str, bytes]:
    """Return every file that the guard wrote."""
    bundle = guarded.directory / "bundle"
    files = [path for path in guarded.directory.rglob("*") if path.is_file() and not path.is_relative_to(bundle)]
    return {path.name: path.read_bytes() for path in files}


def _found(guarded: Guarded, wheres: list[str]) -> list[tuple[str, str]]:
    files = _written(guarded)
    assert any(name.startswith("spans-") for name in files)
    return [
        (where, name)
        for where in wheres
        for spelling in _spellings(_canary(where))
        for name, data in files.items()
        if spelling in data
    ]


@function_tool
def lookup(question: str) -> str:
    """Look something up."""
    return _canary("result") + question[:1]


@function_tool
def broken(question: str) -> str:
    """Fail with a text that quotes what it was given."""
    raise ValueError(_canary("exception") + question)


async def _leaky_run(guarded: Guarded, *, streamed: bool) -> None:
    key = _canary("password").replace("~", "")
    steps: list[Any] = [
        [
            function_call("lookup", {"question": _canary("arguments")}, call_id="a"),
            function_call("broken", {"question": _canary("arguments")}, call_id="b"),
            function_call("exec_command", {"cmd": "cat note; echo $HIDDEN; cat note >&2; exit 4"}, call_id="c"),
            function_call(
                "exec_command", {"cmd": f"true --password {key} https://user:{key}@mirror.corp.example/"}, call_id="d"
            ),
        ],
        [assistant_message(_canary("answer"))],
        RuntimeError(_canary("failure")),
    ]
    manifest = Manifest(
        entries={"note": File(content=_canary("file").encode())},
        environment=Environment(value={"HIDDEN": _canary("environment")}),
    )
    agent = SandboxAgent[Any](
        name="a",
        instructions=_canary("instructions"),
        model=ScriptedModel(steps, emit_traces=True),
        tools=[lookup, broken],
        capabilities=[Shell()],
        default_manifest=manifest,
    )
    with trace("told", metadata={"note": _canary("metadata")}):
        for _ in range(2):
            try:
                if streamed:
                    async for _event in Runner.run_streamed(
                        agent, _canary("prompt"), run_config=guarded.config
                    ).stream_events():
                        pass
                else:
                    await Runner.run(agent, _canary("prompt"), run_config=guarded.config)
            except RuntimeError:
                pass
    async with await guarded.client.create(manifest=manifest) as session:
        await session.write(Path("other"), io.BytesIO(_canary("written").encode()))
        with await session.read(Path("other")) as file:
            assert file.read() == _canary("written").encode()
    await guarded.client.delete(session)
    guarded.client.close()


_EVERYWHERE = [
    *("prompt", "instructions", "arguments", "result", "exception", "answer", "failure", "file", "environment"),
    *("metadata", "written"),
]


@pytest.mark.parametrize("streamed", [False, True])
async def test_content_reaches_no_file_of_the_guard(tmp_path: Path, streamed: bool) -> None:
    """A run has a mark of its own in every place that holds content: prompt, instructions, arguments, results, output,
    files, variables, errors, passwords in a command. No file of spans, metrics or records holds one of them, as it is,
    encoded or backwards.
    """
    guarded = Guarded(tmp_path)
    await _leaky_run(guarded, streamed=streamed)
    assert _found(guarded, _EVERYWHERE) == []
    key = _canary("password").replace("~", "").encode()
    assert [name for name, data in _written(guarded).items() if key in data] == []
    # The run did take place, and the search does find what is there.
    assert {"a", "b", "c", "d"} <= {record.entry.call_id for record in guarded.records("decision")}
    assert any(b"HIDDEN" in data for data in _written(guarded).values())


async def test_content_of_a_real_model_server_reaches_no_file_of_the_guard(tmp_path: Path) -> None:
    """The SDK's own model class talks to a server whose address has a password in it, under a model's name that is a
    key. Spans and records name the host and hide both.
    """
    call = response_call("lookup")
    call["output"][0]["arguments"] = json.dumps({"question": _canary("arguments")})
    guarded = Guarded(tmp_path)
    with model_server(call, response_text(_canary("answer"))) as server:
        address = f"http://user:{_PASSWORD}@127.0.0.1:{server.port}/v1"
        client = AsyncOpenAI(base_url=address, api_key=_PASSWORD, max_retries=0)
        model = OpenAIResponsesModel(_SECRET, openai_client=client)
        agent = Agent[Any](name="a", model=model, tools=[lookup], instructions=_canary("instructions"))
        await Runner.run(agent, _canary("prompt"), run_config=guarded.config)
        assert len(server.requests) == 2
        await client.close()
    guarded.client.close()
    assert _found(guarded, _EVERYWHERE) == []
    calls = [span for span in spans_of(tmp_path) if span.attributes.get(names.GEN_AI_OPERATION_NAME) == "chat"]
    assert [span.attributes[names.SERVER_ADDRESS] for span in calls] == ["127.0.0.1"] * 2
    assert [span.name for span in calls] == ["chat [redacted]"] * 2
    for secret in (_SECRET.encode(), _PASSWORD.encode()):
        assert not [name for name, data in _written(guarded).items() if secret in data]


def _captured(guarded: Guarded) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for span in spans_of(guarded.directory):
        for name in _CONTENT & set(span.attributes):
            found.setdefault(name, []).append(span.attributes[name])
    return found


def _captures(guarded: Guarded) -> list[tuple[str, str]]:
    return [(d, r) for d, action, r in guarded.decisions() if action == "captureContent"]


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_the_setting_alone_captures_nothing(tmp_path: Path, mode: Literal["enforce", "shadow"]) -> None:
    """An operator switches content on, and no policy permits it. Nothing is captured, in shadow mode neither, where
    denials otherwise change nothing; each kind is denied on record, once in a run.
    """
    guarded = Guarded(tmp_path, _DENIED, otlp=_ON, mode=mode)
    await _leaky_run(guarded, streamed=False)
    assert _captured(guarded) == {}
    assert _found(guarded, _EVERYWHERE) == []
    denied = [resource for decision, resource in _captures(guarded) if decision == "deny"]
    assert set(denied) == {f'Content::"{kind}"' for kind in _KINDS}
    runs = [(r.entry.run, r.entry.resource) for r in guarded.records("decision") if r.entry.action == "captureContent"]
    assert len(runs) == len(set(runs))


async def test_a_policy_alone_captures_nothing(tmp_path: Path) -> None:
    """A bundle permits everything, content too, and the site did not switch it on. Nothing is captured, and nothing is
    asked.
    """
    guarded = Guarded(tmp_path)
    await _leaky_run(guarded, streamed=False)
    assert (_captured(guarded), _captures(guarded)) == ({}, [])


@pytest.mark.parametrize("streamed", [False, True])
async def test_permitted_content_is_on_spans_without_its_secrets_and_not_in_the_ledger(
    tmp_path: Path, streamed: bool
) -> None:
    """Setting and policy agree. The content is on the spans in the form of the conventions, a key in it is hidden, and
    the ledger holds none of it.
    """
    guarded = Guarded(tmp_path, otlp=_ON)
    model = ScriptedModel(
        [[function_call("lookup", {"question": _canary("arguments")}, call_id="a")], [assistant_message("the answer")]]
    )
    agent = Agent[Any](name="a", model=model, tools=[lookup], instructions=_canary("instructions"))
    question = f"{_canary('prompt')} token={_SECRET}"
    if streamed:
        async for _ in Runner.run_streamed(agent, question, run_config=guarded.config).stream_events():
            pass
    else:
        await Runner.run(agent, question, run_config=guarded.config)
    guarded.client.close()
    found = _captured(guarded)
    first, second = (json.loads(text) for text in found[names.GEN_AI_INPUT_MESSAGES])
    hidden = {"type": "text", "content": f"{_canary('prompt')} token=[redacted]"}
    assert first == [{"role": "user", "parts": [hidden]}]
    assert [message["role"] for message in second] == ["user", "assistant", "tool"]
    call, result = second[1]["parts"][0], second[2]["parts"][0]
    assert (call["type"], call["id"], call["name"]) == ("tool_call", "a", "lookup")
    assert json.loads(call["arguments"]) == {"question": _canary("arguments")}
    assert result == {"type": "tool_call_response", "id": "a", "response": _canary("result") + "C"}
    told = [{"type": "text", "content": _canary("instructions")}]
    assert [json.loads(text) for text in found[names.GEN_AI_SYSTEM_INSTRUCTIONS]] == [told, told]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "the answer"}], "finish_reason": "stop"}]
    assert json.loads(found[names.GEN_AI_OUTPUT_MESSAGES][-1]) == answer
    assert json.loads(found[names.GEN_AI_TOOL_CALL_ARGUMENTS][0]) == {"question": _canary("arguments")}
    assert found[names.GEN_AI_TOOL_CALL_RESULT] == [_canary("result") + "C"]
    files = _written(guarded)
    assert not [name for name, data in files.items() if _SECRET.encode() in data]
    ledger = [path.name for path in (tmp_path / "ledger").iterdir()]
    assert not [name for name in ledger for _, data in [(name, files[name])] if b"Canary" in data]
    assert {decision for decision, _ in _captures(guarded)} == {"allow"}


@pytest.mark.parametrize("kind", _KINDS)
async def test_one_kind_of_content_does_not_bring_another_along(tmp_path: Path, kind: str) -> None:
    """Only one kind is permitted. A conversation holds the others as well, such as results of tools in a prompt: they
    are left out of it.
    """
    guarded = Guarded(tmp_path, _only(kind), otlp=_ON)
    await _leaky_run(guarded, streamed=False)
    marks = {
        "prompts": {"prompt", "instructions"},
        "responses": {"answer"},
        "toolArguments": {"arguments"},
        "toolResults": {"result", "exception", "file", "environment"},
        "commandOutput": {"file", "environment"},
    }
    allowed = marks[kind] | ({"arguments"} if kind == "toolResults" else set())
    found = {where for where, _ in _found(guarded, _EVERYWHERE)}
    assert found <= allowed
    # What a tool answers may quote what it was asked.
    assert found & marks[kind]
    ledger = {path.name for path in (tmp_path / "ledger").iterdir()}
    assert not {name for _, name in _found(guarded, _EVERYWHERE)} & ledger


async def test_a_withdrawn_permission_stops_the_capture_at_once(tmp_path: Path) -> None:
    """The policies permit content, and are changed while a run goes on. From the change on nothing is captured, in the
    same run; what was sent before cannot be taken back.
    """
    guarded = Guarded(tmp_path, otlp=_ON)

    @function_tool
    async def withdraw() -> str:
        """Change the policies."""
        guarded.rewrite(_DENIED)
        await guarded.client.reload()
        return _canary("result")

    model = ScriptedModel([[function_call("withdraw", {}, call_id="a")], [assistant_message(_canary("answer"))]])
    agent = Agent[Any](name="a", model=model, tools=[withdraw])
    await Runner.run(agent, _canary("prompt"), run_config=guarded.config)
    guarded.client.close()
    first, second = named(spans_of(tmp_path), "chat ScriptedModel")
    assert names.GEN_AI_INPUT_MESSAGES in first.attributes
    assert not _CONTENT & set(second.attributes)
    assert {where for where, _ in _found(guarded, _EVERYWHERE)} == {"prompt"}


async def test_content_of_any_size_is_cut(tmp_path: Path) -> None:
    """A prompt of megabytes with a key at the place where it is cut, and thousands of messages. Each attribute keeps to
    the limit, is valid JSON, and shows no part of the key.
    """
    guarded = Guarded(tmp_path, otlp={**_ON, "content_max_chars": 2000})
    model = ScriptedModel([[assistant_message("x" * 3980 + _SECRET + "y" * 1000)] for _ in range(2)])
    agent = Agent[Any](name="a", model=model)
    await Runner.run(agent, "p" * 3990 + _SECRET + "q" * 2_000_000, run_config=guarded.config)
    many: list[Any] = [{"role": "user", "content": f"message {number}"} for number in range(3000)]
    await Runner.run(agent, many, run_config=guarded.config)
    guarded.client.close()
    calls = named(spans_of(tmp_path), "chat ScriptedModel")
    for span in calls:
        assert span.attributes[names.CEDARBOX_CONTENT_TRUNCATED] is True
        for name in _CONTENT & set(span.attributes):
            assert 2 < len(span.attributes[name]) <= 2000
            assert json.loads(span.attributes[name])
            assert "sk-" not in span.attributes[name]
    last = json.loads(calls[1].attributes[names.GEN_AI_INPUT_MESSAGES])[-1]
    assert last["parts"][0]["content"] == "message 2999"
