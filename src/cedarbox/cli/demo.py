"""``cedarbox demo``: the main job, end to end."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cedarbox.collector.show import render_trace
from cedarbox.collector.store import Store
from cedarbox.demo import DemoOptions, DemoResult, run_demo
from cedarbox.demo.scenes import Seen

__all__ = ["demo"]

_PLAIN_WIDTH = 160
"""Columns where no terminal says how wide it is."""

_SHOWN_DIGITS = 12


def demo(
    *,
    rootfs: Annotated[Path | None, typer.Option(readable=False, help="Local OCI layout to boot.")] = None,
    image: Annotated[str | None, typer.Option(help="Image reference to boot instead.")] = None,
    policies: Annotated[Path, typer.Option(readable=False, help="Policy bundle.")] = Path("policies/airgapped"),
    directory: Annotated[Path, typer.Option(readable=False, help="Where ledger, spans and store are put.")] = Path(
        ".cedarbox/demo"
    ),
    endpoint: Annotated[str | None, typer.Option(help="OTLP/HTTP collector; an embedded one when not given.")] = None,
    model_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible model server; scripted when not given.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model there.")] = None,
    api_key: Annotated[str, typer.Option(help="Key of that server.", envvar="CEDARBOX_MODEL_API_KEY")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Let an agent work in a microVM under policy, let others try to do wrong, and show what was decided.

    Exit code 0: all ended as it must. 1: something did not. 2: bad input, or this host cannot boot a microVM.

    Example: cedarbox demo --rootfs ./oci --directory /tmp/demo
    """
    console = Console(highlight=False, stderr=as_json)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    options = DemoOptions(
        directory=directory,
        policies=policies,
        rootfs=rootfs,
        image=image,
        endpoint=endpoint,
        model_url=model_url,
        model=model,
        api_key=api_key,
    )
    with console.status("starting") as status:

        def tell(title: str, seen: Seen | None) -> None:
            if seen is None:
                status.update(title)
                console.print(Text(f"— {title}"))
            else:
                console.print(_line(seen))

        result = asyncio.run(run_demo(options, tell=tell))
    if as_json:
        typer.echo(orjson.dumps(_document(result)).decode())
    else:
        _show(console, result)
    raise typer.Exit(0 if result.good else 1)


def _line(seen: Seen) -> Text:
    verdict = ("refused" if seen.refused else "done") if seen.as_expected else "NOT AS IT MUST BE"
    style = "green" if seen.as_expected else "bold red"
    return Text.assemble("  ", (verdict, style), f": {seen.attempt}: {seen.detail}")


def _show(console: Console, result: DemoResult) -> None:
    table = Table("decision", "action", "resource", "determining policies", "times", title="What was decided", box=None)
    counted = Counter(
        (r.entry.decision or "", r.entry.action or "", r.entry.resource or "", ", ".join(r.entry.policies))
        for r in result.decisions
    )
    for (decision, action, resource, policies), times in counted.items():
        style = "red" if decision == "deny" else "green"
        row = (action, _short(resource), policies or "none permits it", str(times))
        table.add_row(Text(decision, style), *(Text(cell, overflow="fold") for cell in row))
    console.print(table)
    if result.collected is not None:
        with Store(result.collected) as store:
            for run in reversed(store.runs()):
                console.print(render_trace(store, run.trace_id))
    report = result.report
    console.print(
        Text(
            f"ledger: {report.records} records, {report.checkpoints} signed checkpoints: "
            f"{'verifies' if report.ok else 'DOES NOT VERIFY'}; "
            f"{'all delivered to the collector' if result.delivered else 'NOT ALL DELIVERED to the collector'}"
        )
    )
    console.print(Text(f"records: {result.ledger}\nThe demo {'succeeded' if result.good else 'FAILED'}."))


def _short(resource: str) -> str:
    before, algorithm, digits = resource.partition("sha256:")
    return f"{before}{algorithm}{digits[:_SHOWN_DIGITS]}…" if len(digits) > _SHOWN_DIGITS else resource


def _document(result: DemoResult) -> dict[str, object]:
    return {
        "good": result.good,
        "attempts": [
            {"attempt": s.attempt, "refused": s.refused, "as_expected": s.as_expected, "detail": s.detail}
            for s in result.seen
        ],
        "decisions": [orjson.loads(record.to_line()) for record in result.decisions],
        "ledger": {"directory": str(result.ledger), "records": result.report.records, "verifies": result.report.ok},
        "delivered": result.delivered,
    }
