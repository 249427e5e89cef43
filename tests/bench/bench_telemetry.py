"""What telemetry costs: a span on disk, the metrics of a decision, and a line of metrics.

Run it: python -m tests.bench.bench_telemetry
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cedarbox.telemetry import attributes as names
from cedarbox.telemetry.spans import Telemetry

_ROUNDS = 15
_BATCH = 500


def _micros(run: Callable[[], object]) -> float:
    found = []
    for _ in range(_ROUNDS):
        started = time.process_time_ns()
        for _ in range(_BATCH):
            run()
        found.append((time.process_time_ns() - started) / 1000 / _BATCH)
    return statistics.median(found)


def main() -> None:
    """Print the median time on the processor of each, in microseconds."""
    with tempfile.TemporaryDirectory() as directory:
        kept = Telemetry(directory=Path(directory), metrics_interval_s=3600)
        nowhere = Telemetry(directory=None)
        about = {names.SANDBOX_OPERATION: "exec", names.SANDBOX_BACKEND: "boxlite", names.SANDBOX_SESSION_ID: "x" * 36}

        def span(telemetry: Telemetry) -> None:
            with telemetry.operation("exec", about) as operation:
                operation.set(names.CEDARBOX_POLICY_ACTION, "exec")
                operation.set(names.CEDARBOX_POLICY_RESOURCE, 'Executable::"sh"')
                operation.set(names.CEDARBOX_POLICY_DECISION, "allow")
                operation.set(names.CEDARBOX_POLICY_BUNDLE, "sha256:" + "0" * 64)
                operation.set(names.CEDARBOX_POLICY_IDS, ("all",))
                operation.set(names.CEDARBOX_POLICY_MICROS, 30)
                operation.set(names.CEDARBOX_RECORD_SEQ, 7)
                operation.set(names.AUDIT_RECORD_ID, "20261123T000931123456Z-5f0c2a9e/7")

        def decision(telemetry: Telemetry) -> None:
            telemetry.metrics.decided("exec", "allow", 0.001)

        def operation(telemetry: Telemetry) -> None:
            telemetry.metrics.operated("exec", "ok", 0.001)

        for what, run in (("span", span), ("decision's metrics", decision), ("operation's metrics", operation)):
            on_disk, bare = _micros(lambda run=run: run(kept)), _micros(lambda run=run: run(nowhere))  # type: ignore[misc]
            print(f"{what:22} {on_disk:7.1f} µs   without a directory {bare:7.1f} µs")

        def line() -> None:
            kept.metrics.sandboxes(1)
            kept.metrics.flush()

        print(f"{'a line of metrics':22} {_micros(line):7.1f} µs")
        kept.close()
        nowhere.close()


if __name__ == "__main__":
    main()
