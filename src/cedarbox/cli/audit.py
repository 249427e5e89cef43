"""``cedarbox audit``: check the ledger, show it, prove its records and hand them out."""

from __future__ import annotations

import typer

from cedarbox.cli.audit_export import export
from cedarbox.cli.audit_keys import rotate
from cedarbox.cli.audit_ship import anchors, ship
from cedarbox.cli.audit_show import show, tail
from cedarbox.cli.audit_verify import prove, verifier, verify

__all__ = ["app"]

app = typer.Typer(help="Check the ledger, show it, prove its records and hand them out.", no_args_is_help=True)

for command in (verify, show, tail, prove, verifier, export, rotate, ship, anchors):
    app.command()(command)
