"""Sets of plain Cedar policies in directories: those of these tests, and whatever CEDARBOX_CEDAR_EXAMPLES names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.review.plain import load_cedar
from cedarbox.review.subject import Subject

__all__ = ["ELSEWHERE", "OWN", "CedarSet", "sets_below"]

OWN: Final = Path(__file__).parent / "cedar_examples"
"""Written for these tests, after what the documentation of Cedar is about."""
ELSEWHERE: Final = os.environ.get("CEDARBOX_CEDAR_EXAMPLES", "")
"""A directory with others, such as a checkout of cedar-policy/cedar-examples; empty for none."""


@dataclass(frozen=True, slots=True)
class CedarSet:
    """One file of policies with what stands beside it.

    Attributes:
        policies: The file.
        schema: A schema beside it.
        entities: The entities beside it; None when there is no single file.
        links: Template links beside it, as the program ``cedar`` has them; None for none.
    """

    policies: Path
    schema: Path
    entities: Path | None
    links: Path | None

    @property
    def options(self) -> list[str]:
        """What the command line needs to be told."""
        named = {"--schema": self.schema, "--entities": self.entities, "--links": self.links}
        return [part for name, path in named.items() if path is not None for part in (name, str(path))]

    def load(self) -> Subject:
        """Read and check it."""
        return load_cedar(self.policies, schema=self.schema, entities=self.entities, links=self.links)


def sets_below(root: Path) -> Iterator[CedarSet]:
    """Yield each file of policies below a directory with each schema beside it."""
    for policies in sorted(root.rglob("*.cedar")):
        beside = policies.parent
        entities = sorted(beside.glob("*entities.json"))
        links = beside / "linked"
        for schema in sorted((*beside.glob("*.cedarschema"), *beside.glob("*.cedarschema.json"))):
            yield CedarSet(
                policies, schema, entities[0] if len(entities) == 1 else None, links if links.is_file() else None
            )
