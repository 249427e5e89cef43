"""``cedarbox audit``: check and show the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cedarbox.audit import read_records
from cedarbox.cli.audit_keys import rotate
from cedarbox.cli.audit_verify import prove, verifier, verify

__all__ = ["app"]

app = typer.Typer(help="Check and show the ledger.", no_args_is_help=True)
app.command()(verify)
app.command()(prove)
app.command()(verifier)
app.command()(rotate)

Directory = Annotated[Path, typer.Argument(readable=False, help="Directory of the ledger.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
