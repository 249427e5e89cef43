"""The Cedar schema that this version enforces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

import cedarpy

__all__ = ["SCHEMA_VERSION", "enumerations", "packaged_schema", "schema_text"]

SCHEMA_VERSION: Final = 1
"""Version of the schema; a bundle says in ``bundle.toml`` for which it was written."""

_ENUM: Final = re.compile(r"entity\s+(\w+)\s+enum\s*\[([^\]]*)\]")


def schema_text() -> str:
    """Return the Cedar schema that this version of cedarbox enforces."""
    return resources.files("cedarbox.policy").joinpath("schema.cedarschema").read_text("utf-8")


@cache
def packaged_schema() -> cedarpy.Schema:
    """Return that schema as cedarpy has it; to read it takes cedarpy 8 ms each time."""
    return cedarpy.Schema.from_str(schema_text())


@cache
def enumerations() -> Mapping[str, frozenset[str]]:
    """Return the members of each closed set of the schema, by its name without the namespace."""
    return {name: frozenset(re.findall(r'"([^"]+)"', body)) for name, body in _ENUM.findall(schema_text())}
