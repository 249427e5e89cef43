"""The vendor's tracing: every way by which the SDK could post what a run says, with a server in the vendor's place.

Each attack runs in a process of its own. The address that the SDK has for the vendor is one of this machine, where a
server takes everything; a hook of the interpreter sees each look-up and each connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.redteam.sealing import MARKS, Outcome, Vendor, playing, vendor

Play = Callable[..., Outcome]


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    with playing() as attack:
        yield attack


@pytest.fixture
def at() -> Iterator[Vendor]:
    with vendor() as server:
        yield server


def nothing_left(outcome: Outcome, at: Vendor, *, refusals: int = 0) -> None:
    assert (at.received, at.connections) == ([], 0)
    assert outcome.watched == []
    assert len(outcome.refused) == refusals, outcome.refused
    assert outcome.sealed


def test_what_the_sdk_sends_without_the_seal(play: Play, at: Vendor) -> None:
    """No attack, but the proof that the others would be seen: without the seal the same run posts its question and its
    answer, to the server that stands in the vendor's place, and the hook sees the connection.
    """
    outcome = play("run()\n", at)
    assert any(MARKS[0].encode() in body for body in at.received)
    assert any(MARKS[1].encode() in body for body in at.received)
    assert any(event.startswith("socket.connect") for event in outcome.watched)


def test_the_default_processor_is_added(play: Play, at: Vendor) -> None:
    """`add_trace_processor(default_processor())` after the seal: refused, and the run posts nothing."""
    attack = (
        "seal()\nfrom agents import add_trace_processor\nfrom agents.tracing.processors import default_processor\n"
        "attempt(lambda: add_trace_processor(default_processor()))\nrun()\n"
    )
    nothing_left(play(attack, at), at, refusals=1)


def test_the_processors_are_replaced(play: Play, at: Vendor) -> None:
    """`set_trace_processors` with a batch processor made by hand around an exporter of its own address: refused."""
    attack = (
        "seal()\nfrom agents import set_trace_processors\nfrom agents.tracing.processors import BatchTraceProcessor\n"
        "mine = BatchTraceProcessor(BackendSpanExporter(api_key='sk-mine', endpoint=VENDOR), schedule_delay=0.01)\n"
        "attempt(lambda: set_trace_processors([mine]))\nrun()\nmine.shutdown()\n"
    )
    nothing_left(play(attack, at), at, refusals=1)


def test_a_batch_processor_made_by_hand_is_fed_by_hand(play: Play, at: Vendor) -> None:
    """A program keeps a batch processor around the vendor's exporter for itself and hands it real spans. The exporter
    refuses, whoever made it.
    """
    attack = (
        "seal()\nfrom agents.tracing import custom_span, trace\n"
        "from agents.tracing.processors import BatchTraceProcessor\n"
        "mine = BatchTraceProcessor(BackendSpanExporter(api_key='sk-mine', endpoint=VENDOR), schedule_delay=0.01)\n"
        "with trace('t') as t, custom_span('c', {'note': 'secret question'}) as s: pass\n"
        "mine.on_trace_start(t); mine.on_span_end(s); mine.force_flush(); mine.shutdown()\n"
    )
    nothing_left(play(attack, at), at)


@pytest.mark.parametrize(
    "key",
    [
        "from agents import set_tracing_export_api_key as f; f('sk-export-0000')",
        "from agents import set_default_openai_key as f; f('sk-default-0000', use_for_tracing=True)",
        (
            "from openai import AsyncOpenAI as C; from agents import set_default_openai_client as f\n"
            "f(C(api_key='sk-client-0000'), use_for_tracing=True)"
        ),
    ],
    ids=["export", "default", "client"],
)
def test_a_key_for_the_export_is_set(play: Play, at: Vendor, key: str) -> None:
    """A key is given to the exporter after the seal, in each of the three ways of the SDK, beside the one of the run
    (`RunConfig(tracing={"api_key": ...})`). Nothing is sent with any of them.
    """
    nothing_left(play(f"seal()\n{key}\nrun()\n", at), at)


@pytest.mark.parametrize(
    "environment",
    [
        {"OPENAI_AGENTS_DISABLE_TRACING": "false"},
        {"OPENAI_AGENTS_DISABLE_TRACING": "true"},
        {"OPENAI_AGENTS_DONT_LOG_MODEL_DATA": "0", "OPENAI_AGENTS_DONT_LOG_TOOL_DATA": "0", "OPENAI_LOG": "debug"},
        {"OPENAI_ORG_ID": "org-x", "OPENAI_PROJECT_ID": "proj-x", "OPENAI_AGENT_HARNESS_ID": "x"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"},
        {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"},
    ],
    ids=["on", "off", "logs", "account", "opentelemetry", "proxies"],
)
def test_the_environment_asks_for_an_export(play: Play, at: Vendor, environment: dict[str, str]) -> None:
    """Variables of the SDK, of the OpenAI client, of OpenTelemetry and for proxies, with a key and addresses set. None
    of them makes the run send anything.
    """
    nothing_left(play("seal()\nrun()\n", at, **environment), at)


def test_tracing_is_switched_off_and_on_again(play: Play, at: Vendor) -> None:
    """`set_tracing_disabled(True)`, then `False`, which in the SDK overrides what was configured. The seal stays."""
    attack = "seal()\nfrom agents import set_tracing_disabled as d\nd(True)\nrun()\nd(False)\nrun()\n"
    nothing_left(play(attack, at), at)


def test_traces_are_nested(play: Play, at: Vendor) -> None:
    """A trace in a trace with other keys, a run with tracing off in a trace that is on, and a run in a tool of a run,
    which has a configuration of its own as the SDK's memory jobs have.
    """
    attack = (
        "seal()\nfrom agents import RunConfig, Runner, function_tool, trace\n"
        "with trace('outer'), trace('inner', tracing={'api_key': 'sk-inner'}):\n"
        "    run()\n    run(tracing_disabled=True)\n"
        "@function_tool\n"
        "async def job(question: str) -> str:\n"
        "    return (await Runner.run(agent(), question, run_config=RunConfig())).final_output\n"
        "from agents import Agent\n"
        "from agents.testing import ScriptedModel, assistant_message, function_call\n"
        "steps = [[function_call('job', {'question': 'secret question'}, call_id='c')], [assistant_message('done')]]\n"
        "outer = Agent(name='o', model=ScriptedModel(steps, emit_traces=True), tools=[job])\n"
        "assert asyncio.run(Runner.run(outer, 'go')).final_output == 'done'\n"
    )
    nothing_left(play(attack, at), at)


def test_memory_jobs_trace(play: Play, at: Vendor) -> None:
    """The SDK's Memory capability summarises a run after its end, in runs of its own whose configuration is a fresh
    one, so with tracing on and a key from the environment. Its jobs run and are traced, and nothing is sent.
    """
    attack = (
        "seal()\nimport tempfile\nfrom agents import RunConfig, Runner\n"
        "from agents.sandbox import SandboxAgent, SandboxRunConfig\n"
        "from agents.sandbox.capabilities import Filesystem, Memory, Shell\n"
        "from agents.sandbox.config import MemoryGenerateConfig\n"
        "from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient\n"
        "from agents.sandbox.snapshot import NoopSnapshotSpec\n"
        "from agents.testing import ScriptedModel, assistant_message\n"
        "def says():\n    return ScriptedModel([[assistant_message('secret answer')]] * 9, emit_traces=True)\n"
        "phase = says()\n"
        "memory = Memory(generate=MemoryGenerateConfig(phase_one_model=phase, phase_two_model=says()))\n"
        "worker = SandboxAgent(name='w', model=says(), capabilities=[Shell(), Filesystem(), memory])\n"
        "box = SandboxRunConfig(client=UnixLocalSandboxClient(), snapshot=NoopSnapshotSpec())\n"
        "asyncio.run(Runner.run(worker, 'secret question', run_config=RunConfig(sandbox=box)))\n"
        "assert phase.calls, 'no job ran'\n"
    )
    nothing_left(play(attack, at), at)


def test_a_processor_was_registered_before_the_seal(play: Play, at: Vendor) -> None:
    """Tracing was set up, and used, before cedarbox was imported: what waits in the queue of the default processor is
    discarded, a trace that is still open reaches it no more, and its thread ends.
    """
    attack = (
        "from agents import add_trace_processor, trace\nfrom agents.tracing import custom_span\n"
        "from agents.tracing.processors import BatchTraceProcessor, default_processor\n"
        "mine = BatchTraceProcessor(BackendSpanExporter(endpoint=VENDOR), schedule_delay=3600)\n"
        "add_trace_processor(mine)\n"
        "with trace('before', metadata={'note': 'secret question'}), custom_span('queued'): pass\n"
        "with trace('open') as t, custom_span('still', {'note': 'secret question'}):\n    seal()\n"
        "mine.force_flush(); mine.shutdown(); default_processor().force_flush()\nrun()\n"
    )
    nothing_left(play(attack, at), at)


def test_the_address_of_the_exporter_is_changed(play: Play, at: Vendor) -> None:
    """The address of the vendor's exporter is monkeypatched, on the class and on the object, and its export is called
    directly, by both of its names, and by a name kept from before the seal: all refused.
    """
    attack = (
        "from agents.tracing import custom_span, trace\nfrom agents.tracing.processors import default_exporter\n"
        "kept = default_exporter().export\nseal()\n"
        "BackendSpanExporter._OPENAI_TRACING_INGEST_ENDPOINT = VENDOR\n"
        "mine = BackendSpanExporter(api_key='sk-mine'); mine.endpoint = VENDOR\n"
        "with trace('t') as t, custom_span('c', {'note': 'secret question'}) as s: pass\n"
        "for export in (kept, mine.export, lambda items: mine._export_with_deadline(items, None)):\n"
        "    attempt(lambda: export([t, s]))\nrun()\n"
    )
    nothing_left(play(attack, at), at, refusals=3)


def test_a_provider_of_its_own_is_set(play: Play, at: Vendor) -> None:
    """`set_trace_provider`, imported before the seal and after, with a provider that has the default processor: both
    refused.
    """
    attack = (
        "from agents import set_trace_provider as early\nfrom agents.tracing.provider import DefaultTraceProvider\n"
        "from agents.tracing.processors import default_processor\nseal()\n"
        "from agents.tracing import set_trace_provider as late\n"
        "theirs = DefaultTraceProvider(); theirs.register_processor(default_processor())\n"
        "attempt(lambda: early(theirs)); attempt(lambda: late(theirs))\nrun()\n"
    )
    nothing_left(play(attack, at), at, refusals=2)


def test_a_provider_is_put_in_place_by_assignment(play: Play, at: Vendor) -> None:
    """Python code assigns the SDK's global provider, around every refusal. The vendor's exporter still refuses; the
    seal says that it is broken, and under guard no further run starts (`SealError`).
    """
    attack = (
        "seal()\nfrom agents.tracing import setup\nfrom agents.tracing.processors import default_processor\n"
        "from agents.tracing.provider import DefaultTraceProvider\n"
        "theirs = DefaultTraceProvider(); theirs.register_processor(default_processor())\n"
        "setup.GLOBAL_TRACE_PROVIDER = theirs\nrun()\n"
        "from cedarbox.guard import runner\nrunner.enforce()\nfrom agents import Runner\n"
        "attempt(lambda: asyncio.run(Runner.run(agent(), 'secret question')))\n"
    )
    outcome = play(attack, at)
    assert (at.received, at.connections, outcome.watched, outcome.sealed) == ([], 0, [], False)
    assert len(outcome.refused) == 1


def test_another_process_is_forked(play: Play, at: Vendor) -> None:
    """The process forks after the seal, and the child runs an agent: the seal is in the child as well."""
    attack = (
        "seal()\nchild = os.fork()\nif not child:\n    status = 1\n    try:\n        run()\n"
        "        status = 0 if watched == [] else 2\n    finally:\n        os._exit(status)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    nothing_left(play(attack, at), at)


def test_many_threads_seal_and_trace_at_once(play: Play, at: Vendor) -> None:
    """Threads seal, run agents and try to add the default processor at the same time, eight of each."""
    attack = (
        "seal()\nfrom agents import add_trace_processor\nfrom agents.tracing.processors import default_processor\n"
        "def one():\n    seal(); attempt(lambda: add_trace_processor(default_processor())); run()\n"
        "threads = [threading.Thread(target=one) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    nothing_left(play(attack, at), at, refusals=8)


def test_a_voice_pipeline_traces(play: Play, at: Vendor) -> None:
    """The SDK's voice pipeline makes its trace from the provider itself, around the runner, with a key of its own and
    speech in the spans; here the same calls are made. They find the sealed provider, and nothing is sent.
    """
    attack = (
        "seal()\nfrom agents.tracing import get_trace_provider, speech_group_span, speech_span, transcription_span\n"
        "made = get_trace_provider().create_trace(\n"
        "    name='voice', metadata={'note': 'secret question'}, tracing={'api_key': 'sk-voice'})\n"
        "with made:\n"
        "    with transcription_span(input='secret question', output='secret answer'): pass\n"
        "    with speech_group_span(input='secret question'), speech_span(input='secret question'): pass\n"
    )
    nothing_left(play(attack, at), at)


def test_the_realtime_runner_asks_the_vendor_to_trace(play: Play, at: Vendor) -> None:
    """A realtime session has the vendor trace on its side, by a field of the session. Under guard no such session is
    started: it does not go through the runner, so it is refused before anything is connected.
    """
    attack = (
        "seal()\nfrom cedarbox.guard import runner\nrunner.enforce()\n"
        "from agents.realtime import RealtimeAgent, RealtimeRunner\n"
        "async def talk():\n"
        "    session = await RealtimeRunner(RealtimeAgent(name='r')).run(\n"
        "        model_config={'url': VENDOR.replace('http', 'ws'), 'initial_model_settings': {'tracing': 'auto'}})\n"
        "    await session.enter()\n"
        "try:\n    asyncio.run(talk())\n    raise SystemExit('it was started')\n"
        "except Exception as error:\n"
        "    assert type(error).__module__ == 'cedarbox.errors', error\n"
    )
    nothing_left(play(attack, at), at)
