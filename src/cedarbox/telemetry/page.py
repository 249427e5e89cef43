"""The page about spans and metrics, from the tables in the code.

Run it: python -m cedarbox.telemetry.page > compliance/TELEMETRY.md
"""

from __future__ import annotations

import sys
from typing import Final

from cedarbox.telemetry.attributes import ATTRIBUTES, GEN_AI_VERSION, SCHEMA_URL, Attribute
from cedarbox.telemetry.metrics import METRICS

__all__ = ["rendered"]

_HEAD: Final = """\
# Spans and metrics

What cedarbox sends to an OTLP collector beside the records of the ledger, and what is in it. This file is written by
`python -m cedarbox.telemetry.page`, and a test fails when it is not up to date. Another test reads the spans of a run
and fails on an attribute that is not in the table; the code leaves such an attribute out.

Names under `gen_ai.` and `mcp.` are those of OpenTelemetry's semantic-conventions-genai {version}, the others of the
core conventions are of `{schema}`. `cedarbox.` is our own.

## The tree

- `invoke_workflow …`: a run. Below it `task`, `invoke_agent …`, `turn`, `handoff …`, `guardrail …`: what the Agents SDK
  traces, turned into OpenTelemetry spans. A run inside a span of the caller joins the trace of that span.
- `chat …`: a call of a model, below the turn. Also where the SDK's tracing is switched off.
- `execute_tool …`: a call of a tool, below the turn; below it `tool invoke`, the decision whether it may run. Where the
  SDK's tracing is switched off there is `tool invoke` alone, with the attributes of both, and `invoke_agent …` is the
  root of the run.
- `exec`, `terminal open`, `terminal write`, `file …`, `sandbox …`, `snapshot …`, `port expose`: operations on the
  sandbox. `decide …` is a decision on which something else acts.
- `egress connect`: a connection of a guest, or one request in plain HTTP, from its opening to its end. It is below the
  command that runs in the sandbox when there is one alone, else below the span in which the sandbox was made.
- `snapshot restore` and `snapshot fork` have a link to the span in which the snapshot was made, where that was in the
  same process.

Every decision in the ledger names its span, and the span names the record: `cedarbox.record.seq` the decision,
`cedarbox.outcome.seq` the outcome, both in the stream `cedarbox.ledger.stream` of the resource. A decision that had to
be made again, because the policies changed while it was being recorded, leaves two records and one span, which names
the last.

## Content

No prompt, answer, argument, result, output, file content or value of a variable is on a span unless two parties agree:
the site sets `otlp.capture_content = true`, and a policy permits `captureContent` for that kind of content. No bundle
that ships permits it. What is captured has its secrets hidden as far as they are known as such, and is cut to
`otlp.content_max_chars`. It is on spans only, never in the ledger or in metrics. The attributes are marked below.

## Attributes

| attribute | type | where | meaning | content |
|---|---|---|---|---|
"""

_METRICS: Final = """
## Metrics

Totals are cumulative since the start of the process, so that a line that is sent twice counts once. They are written to
`metrics-*.jsonl` beside the spans every `otlp.metrics_interval_s` seconds and at the end, when something has changed;
0 seconds keep none.
No attribute holds a path, a host, an id or the name of an agent or a tool, and of more than 128 values of one attribute
the later are counted as `_OTHER`.

| metric | instrument | unit | attributes | meaning |
|---|---|---|---|---|
"""


def rendered() -> str:
    """Return the page as Markdown."""
    lines = [_row(name, line) for name, line in sorted(ATTRIBUTES.items())]
    metrics = [
        f"| `{name}` | {kind} | `{unit}` | {_attributes(about)} | {told} |"
        for name, (kind, unit, about, told) in METRICS.items()
    ]
    head = _HEAD.format(version=GEN_AI_VERSION, schema=SCHEMA_URL)
    return head + "\n".join(lines) + "\n" + _METRICS + "\n".join(metrics) + "\n"


def _row(name: str, line: Attribute) -> str:
    return f"| `{name}` | {line.type} | {line.on} | {line.meaning} | {'yes' if line.content else ''} |"


def _attributes(about: str) -> str:
    names = [name if "." in name else f"cedarbox.{name}" for name in about.split(", ") if name]
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(rendered())
