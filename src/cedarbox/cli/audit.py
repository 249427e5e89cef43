"""``cedarbox audit``: check the ledger, show it and hand it out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cedarbox.audit import verify_ledger
from cedarbox.cli.audit_export import export
from cedarbox.cli.audit_show import show, tail

__all__ = ["app"]

app = typer.Typer(help="Check the ledger, show it and hand it out.", no_args_is_help=True)

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


app.command()(show)
app.command()(tail)
app.command()(export)
