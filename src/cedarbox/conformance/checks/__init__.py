"""The checks, by area."""

from __future__ import annotations

from cedarbox.conformance.check import Check
from cedarbox.conformance.checks import (
    archives,
    commands,
    directories,
    endings,
    escapes,
    files,
    lifecycle,
    patches,
    surroundings,
    terminals,
)

__all__ = ["all_checks"]


def all_checks() -> tuple[Check, ...]:
    """Return every check, in the order in which they are run."""
    areas = (commands, endings, terminals, files, directories, patches, escapes, archives, surroundings, lifecycle)
    return tuple(check for area in areas for check in area.checks())
