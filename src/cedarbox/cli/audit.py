"""``cedarbox audit``: check and show the ledger."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cedarbox.audit import read_records, verify_ledger
from cedarbox.cli.audit_keys import rotate

__all__ = ["app"]

app = typer.Typer(help="Check and show the ledger.", no_args_is_help=True)
app.command()(rotate)

Directory = Annotated[Path, typer.Argument(readable=False, help="Directory of the ledger.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    directory: Directory = Path(".cedarbox/ledger"),
    *,
    public_key: Annotated[
        Path | None,
        typer.Option(readable=False, help="Key that the checkpoints must be signed with, from outside the ledger."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every record, the chain and the signed checkpoints.

    Exit code 0: nothing found. 1: something was changed, and the first such place is named. 2: no ledger there.

    Example: cedarbox audit verify .cedarbox/ledger --public-key auditor/ledger.pub
    """
    report = verify_ledger(directory, public_key=public_key)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if as_json:
        console.print(orjson.dumps(dataclasses.asdict(report)).decode())
    else:
        for finding in report.findings:
            place = "" if finding.line is None else f", line {finding.line}"
            console.print(f"{finding.kind}: stream {finding.stream}{place}: {finding.message}")
        for note in report.notes:
            console.print(f"note: {note}")
        if report.key_source == "beside":
            console.print("note: the key was found beside the ledger; give --public-key from a place you trust")
        counts = f"{report.records} records, {report.streams} streams, {report.checkpoints} signed checkpoints"
        console.print(f"{'the ledger verifies' if report.ok else 'THE LEDGER DOES NOT VERIFY'}: {counts}")
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def show(directory: Directory = Path(".cedarbox/ledger"), *, as_json: AsJson = False) -> None:
    """Print the records in the order of time.

    Exit code 0: printed. 2: no ledger there, or a record that cannot be read.

    Example: cedarbox audit show .cedarbox/ledger --json
    """
    console = Console(highlight=False, markup=False, soft_wrap=as_json)
    records = read_records(directory)
    if as_json:
        for _, record in records:
            console.print(record.to_line().decode().rstrip("\n"))
        return
    table = Table("seq", "time", "event", "action", "resource", "decision", "policies or outcome", box=None)
    for _, record in records:
        entry = record.entry
        last = ", ".join(entry.policies) or entry.outcome or ""
        decision, resource = entry.decision or "", entry.resource or ""
        table.add_row(str(record.seq), record.time, entry.event, entry.action or "", resource, decision, last)
    console.print(table)
