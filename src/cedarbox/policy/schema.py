"""The Cedar schema that this version enforces."""

from __future__ import annotations

from importlib import resources
from typing import Final

__all__ = ["SCHEMA_VERSION", "schema_text"]

SCHEMA_VERSION: Final = 1
"""Version of the schema; a bundle says in ``bundle.toml`` for which it was written."""


def schema_text() -> str:
    """Return the Cedar schema that this version of cedarbox enforces."""
    return resources.files("cedarbox.policy").joinpath("schema.cedarschema").read_text("utf-8")
