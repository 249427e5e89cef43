"""What the gate costs: a decision against a bare cedarpy call, and a whole operation against a bare durable record.

Run it: python -m tests.bench.bench_gate
Each pair is measured in turns in one run, so that the ratios hold where the machine is noisy.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cedarpy
import orjson

from cedarbox.audit import Entry, Ledger
from cedarbox.guard import Gate
from cedarbox.guard.question import Question
from cedarbox.policy import PolicyBundle, PolicyEngine, actions
from cedarbox.policy.entities import NAMESPACE, Base
from cedarbox.telemetry.spans import Telemetry

_ROUNDS = 15
_BATCH = 200


def _micros(run: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    for _ in range(_BATCH):
        run()
    return (time.perf_counter_ns() - started) / 1000 / _BATCH


def _report(name: str, ours: list[float], bare: list[float]) -> None:
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    print(f"{name:32} {statistics.median(ours):9.1f} µs  bare {statistics.median(bare):9.1f} µs  ratio {ratio:.2f}")


def decisions(engine: PolicyEngine) -> None:
    """A decision against cedarpy on the same handles."""
    action = actions.touch_file(Base(datetime.now(UTC), "boxlite"), path="/workspace/a", operation="read")
    delta = orjson.dumps([action.resource.to_json()]).decode()
    request = {
        "principal": {"type": f"{NAMESPACE}::Agent", "id": "agent"},
        "action": {"type": f"{NAMESPACE}::Action", "id": action.name},
        "resource": action.resource.uid,
        "context": dict(action.context),
    }
    policies, entities, schema = engine._sets[action.name], engine._entities, engine._schema

    def bare() -> object:
        return cedarpy.is_authorized(request, policies, entities.with_added_json_str(delta, schema), schema)

    ours, theirs = [], []
    for _ in range(_ROUNDS):
        ours.append(_micros(lambda: engine.decide("agent", action)))
        theirs.append(_micros(bare))
    _report("decide / cedarpy", ours, theirs)


async def operations(engine: PolicyEngine, directory: Path) -> None:
    """A whole operation (span, decision, two records) against two bare durable records."""
    with Ledger.open(directory / "ledger", signing_key=directory / "key") as ledger:
        telemetry = Telemetry(directory=directory / "spans")
        gate = Gate(engine=engine, ledger=ledger, telemetry=telemetry, principal="agent", backend="boxlite")
        question = Question("file read", lambda base: actions.touch_file(base, path="/workspace/a", operation="read"))
        ours, theirs = [], []
        for _ in range(_ROUNDS):
            started = time.perf_counter_ns()
            for _ in range(_BATCH):
                async with gate.operation(question):
                    pass
            ours.append((time.perf_counter_ns() - started) / 1000 / _BATCH)
            started = time.perf_counter_ns()
            for _ in range(_BATCH):
                await ledger.record(Entry(event="decision"))
                await ledger.record(Entry(event="outcome"))
            theirs.append((time.perf_counter_ns() - started) / 1000 / _BATCH)
        _report("operation / two records", ours, theirs)
        telemetry.close()


def main() -> None:
    """Print both comparisons."""
    engine = PolicyEngine(PolicyBundle.load(Path("policies/airgapped")))
    decisions(engine)
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(operations(engine, Path(directory)))


if __name__ == "__main__":
    main()
