"""``cedarbox policy``: policies reviewed like code."""

from __future__ import annotations

from typing import Final

import typer

from cedarbox.cli.on_demand import Command, group_of

__all__ = ["COMMANDS", "app"]


def _of(about: str, module: str, name: str = "") -> Command:
    return Command(about, f"cedarbox.cli.policy_{module}", name or module)


COMMANDS: Final = {
    "fmt": _of("Format policies as Cedar's own formatter does.", "fmt"),
    "check": _of("Check that policies parse and fit the schema.", "check"),
    "lint": _of("Look at the policies of a bundle as a reviewer of sandboxes would.", "lint"),
    "test": _of("Run the test cases in tests/*.yaml of a bundle against Cedar itself.", "test"),
    "diff": _of(
        "Compare two versions of policies.",
        "diff",
    ),
    "accept": _of("Sign the acceptance of a widening.", "accept"),
    "prove": _of("Prove properties of policies, or find a request that refutes them.", "prove"),
    "review": _of(
        "Check, lint and test bundles.",
        "review",
    ),
    "explain": _of(
        "Explain one decision.",
        "explain",
    ),
    "endpoints": _of("Print what the policies of a bundle let an agent connect to.", "endpoints"),
    "compile": _of(
        "Compile what an agent may connect to into the list of a backend.",
        "compile",
        "compile_policies",
    ),
    "render": _of("Make a page that says in plain sentences who may do what.", "render"),
    "keygen": _of("Make an Ed25519 key pair to sign bundles with. Nothing is overwritten.", "sign", "keygen"),
    "sign": _of("Check a bundle and sign it.", "sign"),
    "verify": _of("Check the signatures of a bundle, its expiry, and the bundle itself.", "sign", "verify"),
}
"""The commands, with what the help says of each."""

app = typer.Typer(
    cls=group_of(COMMANDS),
    help="Format, check, test, compare, prove, explain and sign policies.",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """Format, check, test, compare, prove, explain and sign policies."""
