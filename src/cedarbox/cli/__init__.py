"""The command line: one thin module for each group of commands.

Exit codes: 0 good; 1 findings, such as a broken chain; 2 usage, bad input, or a host that lacks something; 3 not
decided.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from cedarbox.cli import approve, audit, collector, demo, egress, image, init, policy, snapshot
from cedarbox.errors import CedarboxError

__all__ = ["app", "main"]

app = typer.Typer(
    name="cedarbox",
    help="Hardened microVM sandboxes for the OpenAI Agents SDK.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(init.init)
app.add_typer(approve.app, name="approve")
app.add_typer(audit.app, name="audit")
app.add_typer(collector.app, name="collector")
app.add_typer(egress.app, name="egress")
app.add_typer(image.app, name="image")
app.add_typer(policy.app, name="policy")
app.add_typer(snapshot.app, name="snapshot")


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 2."""
    try:
        app()
    except CedarboxError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"cedarbox: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
