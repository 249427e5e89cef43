"""Attacks on the seal, each in a process of its own with every look-up and connection trapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest
from tests.unit.forked import forked

_TRAP: Final = """
import asyncio, json, os, sys
attempts = []
def trap(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        attempts.append(event + " " + str(args[:2]))
        raise OSError("trapped")
sys.addaudithook(trap)
os.environ["OPENAI_API_KEY"] = "sk-attack-000000000000"
refused = []
def attempt(action):
    try:
        action()
    except Exception as error:
        if type(error).__name__ != "SealError":
            raise
        refused.append(str(error))
def seal():
    from cedarbox.telemetry import tracing
    tracing.seal()
def run():
    from agents import Agent, RunConfig, Runner, flush_traces, trace
    from agents.testing import ScriptedModel, assistant_message
    model = ScriptedModel([[assistant_message("secret answer")]], emit_traces=True)
    with trace("attack"):
        asyncio.run(Runner.run(Agent(name="a", model=model), "secret question", run_config=RunConfig(
            tracing={"api_key": "sk-run-0000000000000"})))
    flush_traces()
"""
_END: Final = """
from agents.tracing import setup
if setup.GLOBAL_TRACE_PROVIDER is not None and hasattr(setup.GLOBAL_TRACE_PROVIDER, "shutdown"):
    setup.GLOBAL_TRACE_PROVIDER.shutdown(timeout=1)
try:
    from cedarbox.telemetry.tracing import is_sealed
    sealed = is_sealed()
except Exception as error:
    if type(error).__name__ != "SealError":
        raise
    sealed = False
from agents.tracing import processors
print(json.dumps({"attempts": attempts, "refused": refused, "sealed": sealed,
                  "built": processors._global_exporter is not None}))
"""


@dataclass(frozen=True, slots=True)
class _Outcome:
    attempts: list[str]
    refused: list[str]
    sealed: bool
    built: bool


@pytest.fixture(scope="module")
def play() -> Iterator[Callable[..., _Outcome]]:
    with forked() as carry_out:

        def run(attack: str, **environment: str) -> _Outcome:
            return _Outcome(**carry_out(_TRAP + attack + _END, environment))

        yield run


def test_without_the_seal_the_trap_sees_the_export(play: Callable[..., _Outcome]) -> None:
    assert play("run()\n").attempts


ATTACKS: Final = {
    "nothing": ("seal(); run()", 0),
    "twice": ("seal(); seal(); run()", 0),
    "disabled_and_enabled": ("seal(); from agents import set_tracing_disabled as d; d(True); d(False); run()", 0),
    "add_default_processor": (
        (
            "seal()\nfrom agents import add_trace_processor\nfrom agents.tracing.processors import default_processor\n"
            "attempt(lambda: add_trace_processor(default_processor()))\nrun()"
        ),
        1,
    ),
    "set_default_processor": (
        (
            "seal()\nfrom agents import set_trace_processors\nfrom agents.tracing.processors import default_processor\n"
            "attempt(lambda: set_trace_processors([default_processor()]))\nrun()"
        ),
        1,
    ),
    "set_no_processors": ("seal(); from agents import set_trace_processors as s; s([]); run()", 0),
    "fan_out_of_the_provider": (
        (
            "seal()\nfrom agents.tracing import get_trace_provider\n"
            "from agents.tracing.processors import default_processor\n"
            "attempt(lambda: get_trace_provider()._multi_processor.add_tracing_processor(default_processor()))\nrun()"
        ),
        1,
    ),
    "own_subclass_of_the_exporter": (
        (
            "seal()\nfrom agents import add_trace_processor\n"
            "from agents.tracing.processors import BackendSpanExporter, BatchTraceProcessor\n"
            "class Mine(BackendSpanExporter): pass\n"
            "attempt(lambda: add_trace_processor(BatchTraceProcessor(Mine(api_key='sk-mine'))))\nrun()"
        ),
        1,
    ),
    "third_party_processor": (
        (
            "seal()\nfrom agents import add_trace_processor\nfrom agents.tracing import TracingProcessor\n"
            "class Third(TracingProcessor):\n"
            "    def on_trace_start(self, trace): pass\n    def on_trace_end(self, trace): pass\n"
            "    def on_span_start(self, span): pass\n    def on_span_end(self, span): pass\n"
            "    def shutdown(self): pass\n    def force_flush(self): pass\n"
            "attempt(lambda: add_trace_processor(Third()))\nrun()"
        ),
        1,
    ),
    "export_key": (
        (
            "seal(); from agents import set_tracing_export_api_key as k, set_default_openai_key as o\n"
            "k('sk-export-0000'); o('sk-default-0000'); run()"
        ),
        0,
    ),
    "set_provider": (
        (
            "seal()\nfrom agents import set_trace_provider\nfrom agents.tracing.provider import DefaultTraceProvider\n"
            "attempt(lambda: set_trace_provider(DefaultTraceProvider()))\nrun()"
        ),
        1,
    ),
    "set_provider_imported_before": (
        (
            "from agents import set_trace_provider\nfrom agents.tracing.provider import DefaultTraceProvider\nseal()\n"
            "attempt(lambda: set_trace_provider(DefaultTraceProvider()))\nrun()"
        ),
        1,
    ),
    "processor_used_directly": (
        (
            "seal()\nfrom agents.tracing import custom_span, trace\n"
            "from agents.tracing.processors import default_processor\n"
            "with trace('t') as t, custom_span('c') as s: pass\n"
            "d = default_processor(); d.on_trace_start(t); d.on_span_end(s); d.force_flush()\n"
            "run()"
        ),
        0,
    ),
    "exporter_used_directly": (
        (
            "seal()\nfrom agents.tracing import custom_span, trace\n"
            "from agents.tracing.processors import default_exporter\n"
            "with trace('t') as t, custom_span('c') as s: pass\n"
            "attempt(lambda: default_exporter().export([t, s]))\n"
            "attempt(lambda: default_exporter()._export_with_deadline([t, s], 1e12))\nrun()"
        ),
        2,
    ),
    "bound_export_kept_from_before": (
        (
            "from agents.tracing import custom_span, trace\n"
            "from agents.tracing.processors import default_exporter\n"
            "kept = default_exporter().export\nseal()\n"
            "with trace('t') as t, custom_span('c') as s: pass\nattempt(lambda: kept([t, s]))\nrun()"
        ),
        1,
    ),
    "used_before_the_seal": (
        (
            "from agents.tracing import custom_span, trace, flush_traces\n"
            "with trace('before'), custom_span('queued'): pass\n"
            "seal()\nflush_traces()\nrun()"
        ),
        0,
    ),
    "open_trace_across_the_seal": (
        (
            "from agents.tracing import custom_span, trace, flush_traces\n"
            "with trace('before'):\n    with custom_span('open'):\n        seal()\nflush_traces()\nrun()"
        ),
        0,
    ),
    "flushed_by_the_default_processor_after": (
        (
            "from agents.tracing import custom_span, trace\nfrom agents.tracing.processors import default_processor\n"
            "with trace('before'), custom_span('queued'): pass\n"
            "seal()\ndefault_processor().force_flush()\ndefault_processor().shutdown()\nrun()"
        ),
        0,
    ),
    "own_batch_before": (
        (
            "from agents import set_trace_processors\nfrom agents.tracing import custom_span, trace\n"
            "from agents.tracing.processors import BackendSpanExporter, BatchTraceProcessor\n"
            "class Mine(BackendSpanExporter):\n"
            "    def export(self, items): self._client.post('http://127.0.0.1:9/steal', json={'n': len(items)})\n"
            "batch = BatchTraceProcessor(Mine(), schedule_delay=3600)\nset_trace_processors([batch])\n"
            "with trace('before'), custom_span('queued'): pass\nseal()\nbatch.force_flush()\nbatch.shutdown()\nrun()"
        ),
        0,
    ),
}


_OWN_EXPORTER: Final = (
    "import socket\nfrom agents import set_trace_processors\nfrom agents.tracing import custom_span, trace\n"
    "from agents.tracing.processor_interface import TracingExporter\n"
    "from agents.tracing.processors import BatchTraceProcessor\n"
    "class Mine(TracingExporter):\n"
    "    def export(self, items): socket.create_connection(('127.0.0.1', 9))\n"
    "batch = BatchTraceProcessor(Mine(), schedule_delay=3600)\nset_trace_processors([batch])\n"
)


def test_an_exporter_from_before_is_cut_off_its_batch(play: Callable[..., _Outcome]) -> None:
    used = "with trace('t'), custom_span('c') as s: pass\n"
    after = "batch.on_span_end(s)\nbatch.force_flush()\n"
    assert play(_OWN_EXPORTER + used + after).attempts
    outcome = play(_OWN_EXPORTER + used + "seal()\n" + after)
    assert outcome.attempts == []
    assert outcome.sealed


def test_what_is_still_open_no_longer_reaches_a_batch_from_before(play: Callable[..., _Outcome]) -> None:
    opened = "with trace('t'):\n    with custom_span('c'):\n        seal()\nassert batch._queue.empty()\n"
    assert play(_OWN_EXPORTER + opened).sealed


def test_a_retry_under_way_has_no_connection_left(play: Callable[..., _Outcome]) -> None:
    outcome = play(
        "from agents.tracing.processors import default_exporter\nexporter = default_exporter()\n"
        "assert not exporter._client.is_closed\nseal()\n"
        "assert exporter._client.is_closed and exporter._shutdown_event.is_set()\n"
    )
    assert outcome.sealed


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_leaves(play: Callable[..., _Outcome], attack: str) -> None:
    code, refusals = ATTACKS[attack]
    outcome = play(code + "\n")
    assert outcome.attempts == []
    assert len(outcome.refused) == refusals
    assert outcome.sealed


@pytest.mark.parametrize("value", ["0", "1", "false", "true"])
def test_environment_changes_nothing(play: Callable[..., _Outcome], value: str) -> None:
    outcome = play(
        "seal(); run()\n",
        OPENAI_AGENTS_DISABLE_TRACING=value,
        OPENAI_AGENTS_TRACE_INCLUDE_SENSITIVE_DATA="1",
        OPENAI_BASE_URL="http://127.0.0.1:9",
        OPENAI_ORG_ID="org",
    )
    assert outcome.attempts == []
    assert outcome.sealed
    assert not outcome.built


def test_a_provider_put_in_place_by_hand_breaks_the_seal_visibly(play: Callable[..., _Outcome]) -> None:
    outcome = play(
        "seal()\nfrom agents.tracing import setup\nfrom agents.tracing.provider import DefaultTraceProvider\n"
        "setup.GLOBAL_TRACE_PROVIDER = DefaultTraceProvider()\n"
    )
    assert outcome.sealed is False


@pytest.mark.parametrize(
    "tamper",
    [
        "get_trace_provider()._multi_processor._processors += (default_processor(),)",
        "get_trace_provider()._multi_processor._processors = ()",
        "BackendSpanExporter.export = lambda self, items: None",
        "BackendSpanExporter._export_with_deadline = lambda self, items, deadline: None",
        "setup.set_trace_provider = lambda provider: None",
    ],
)
def test_tampering_is_seen(play: Callable[..., _Outcome], tamper: str) -> None:
    outcome = play(
        "seal()\nfrom agents.tracing import get_trace_provider, setup\n"
        f"from agents.tracing.processors import BackendSpanExporter, default_processor\n{tamper}\n"
    )
    assert outcome.sealed is False
    assert outcome.attempts == []


def test_a_foreign_processor_from_before_stops_the_seal_and_nothing_is_changed(play: Callable[..., _Outcome]) -> None:
    outcome = play(
        "from agents import set_trace_processors\nfrom agents.tracing import TracingProcessor, setup\n"
        "class Third(TracingProcessor):\n"
        "    def on_trace_start(self, trace): pass\n    def on_trace_end(self, trace): pass\n"
        "    def on_span_start(self, span): pass\n    def on_span_end(self, span): pass\n"
        "    def shutdown(self): pass\n    def force_flush(self): pass\n"
        "third = Third(); set_trace_processors([third]); before = setup.GLOBAL_TRACE_PROVIDER\nattempt(seal)\n"
        "assert setup.GLOBAL_TRACE_PROVIDER is before and before._multi_processor._processors == (third,)\n"
    )
    assert outcome.sealed is False
    assert len(outcome.refused) == 1
    assert "Third took over the tracing" in outcome.refused[0]


def test_a_foreign_provider_from_before_stops_the_seal(play: Callable[..., _Outcome]) -> None:
    outcome = play(
        "from agents import set_trace_provider\nfrom agents.tracing.provider import DefaultTraceProvider\n"
        "class Wrapper(DefaultTraceProvider): pass\nset_trace_provider(Wrapper())\nattempt(seal)\n"
    )
    assert outcome.sealed is False
    assert "import cedarbox first" in outcome.refused[0]


def test_disabled_before_stays_disabled(play: Callable[..., _Outcome]) -> None:
    outcome = play(
        "from agents import set_tracing_disabled\nset_tracing_disabled(True)\nseal()\n"
        "from agents.tracing import trace\nassert trace('t').trace_id == 'no-op'\n"
    )
    assert outcome.sealed


def test_span_ids_fit_opentelemetry(play: Callable[..., _Outcome]) -> None:
    outcome = play(
        "import re\nseal()\nfrom agents.tracing import custom_span, trace\n"
        "with trace('t') as t, custom_span('c') as s:\n"
        "    assert re.fullmatch('[0-9a-f]{16}', s.span_id)\n"
        "    assert re.fullmatch('trace_[0-9a-f]{32}', t.trace_id)\n"
    )
    assert outcome.sealed
