"""``cedarbox policy``: what is done with a policy bundle before it decides anything."""

from __future__ import annotations

import typer

from cedarbox.cli import policy_test

__all__ = ["app"]

app = typer.Typer(help="Sign, verify and test policy bundles.", no_args_is_help=True)
app.command()(policy_test.test)
