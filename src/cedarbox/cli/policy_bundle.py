"""Which policies a command is about: the options that say so, and the bundle that is meant when nobody named one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Bundle",
    "BundleOrConfigured",
    "PlainEntities",
    "PlainLinks",
    "PlainSchema",
    "Principal",
    "configured_bundle",
]

Bundle = Annotated[Path, typer.Argument(readable=False, help="Directory of the policy bundle.")]
BundleOrConfigured = Annotated[
    Path | None,
    typer.Argument(readable=False, help="The bundle; by default that of the settings.", show_default=False),
]
"""Its default is None, for :func:`configured_bundle`."""
Principal = Annotated[
    str | None,
    typer.Option(help="The agent; needed where entities.json declares more than one.", show_default=False),
]
PlainSchema = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        help="The schema of policies that are no bundle, in Cedar's own syntax or in JSON; by default the only "
        ".cedarschema or schema.json there.",
        show_default=False,
    ),
]
PlainEntities = Annotated[
    Path | None,
    typer.Option(readable=False, help="Their entities; by default the only entities.json there.", show_default=False),
]
PlainLinks = Annotated[
    Path | None, typer.Option(readable=False, help="Their template links, in JSON.", show_default=False)
]


def configured_bundle() -> Path:
    """Return the bundle of the settings.

    Raises:
        ConfigurationError: The settings cannot be read.
    """
    # Only when it is used: the settings know of the ledger, and load much that reviews do not need.
    from cedarbox.settings import load_settings

    return load_settings().policy.bundle
