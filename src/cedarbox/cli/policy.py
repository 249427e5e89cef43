"""``cedarbox policy``: policies reviewed like code."""

from __future__ import annotations

from typing import Final

import typer

from cedarbox.cli.on_demand import Command, group_of

__all__ = ["COMMANDS", "app"]


def _of(about: str, module: str, name: str = "") -> Command:
    return Command(about, f"cedarbox.cli.policy_{module}", name or module)


COMMANDS: Final = {
    "fmt": _of("Format policies, keeping their comments.", "fmt"),
    "check": _of("Parse and type-check policies, entities and metadata, and tell every error.", "check"),
    "lint": _of("Look for what policies of sandboxes get wrong.", "lint"),
    "test": _of("Run the test cases in tests/*.yaml of a bundle against Cedar itself.", "test"),
    "diff": _of("Compare two versions of a bundle, and prove what the change permits.", "diff"),
    "accept": _of("Accept one widening that diff found, with a signature.", "accept"),
    "prove": _of("Prove properties of policies, or show a request that refutes them.", "prove"),
    "review": _of("Run all of the above, and make one report of it.", "review"),
    "explain": _of("Explain a decision, and what would have to change to turn it around.", "explain"),
    "endpoints": _of("Print what agents may connect to: the list that a firewall team needs.", "endpoints"),
    "compile": _of("Make the allow-list that a backend takes, and prove it.", "compile", "compile_policies"),
    "render": _of("Write a bundle down for people who do not read Cedar.", "render"),
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
