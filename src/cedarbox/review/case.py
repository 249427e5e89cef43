"""One test case: a request, and the answer it must get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cedarbox.policy.actions import Action
from cedarbox.text import printable

__all__ = ["Case", "named_apart"]

_MAX_TITLE: Final = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One request and the answer it must get.

    Attributes:
        file: The file it stands in.
        line: 1-based line of its first key.
        action: The action of its table.
        title: What it is about.
        principal: The agent that asks.
        request: The request; None when it has no canonical form.
        refusal: Why it has none; empty when it has one.
        allowed: The answer must be *allow*.
        by: Ids of the policies that must determine the answer.
        error: A part of what must be said about an error; None when there must be none.
        approvers: Who may approve the call, each of whom alone can; empty when no approval may be needed; None when the
            case says nothing of it.
        approval_s: For how many seconds an approval must hold; None when the case says nothing of it.
        name: The action and the title, unlike that of any other case of the suite. :func:`named_apart` sets it.
    """

    file: Path
    line: int
    action: str
    title: str
    principal: str
    request: Action | None
    refusal: str
    allowed: bool
    by: frozenset[str]
    error: str | None
    approvers: frozenset[str] | None = None
    approval_s: int | None = None
    name: str = ""

    @property
    def id(self) -> str:
        """The file and the name, such as ``network.yaml::connect[deny metadata]``."""
        return f"{self.file.name}::{self.name}"


def named_apart(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Return the cases with a name each; what would be the same as an earlier one of its file gets a number."""
    seen: set[tuple[Path, str]] = set()
    found = []
    for case in cases:
        title = printable(case.title)[:_MAX_TITLE]
        plain = name = f"{case.action}[{'allow' if case.allowed else 'deny'} {title}]"
        number = 1
        while (case.file, name) in seen:
            number += 1
            name = f"{plain[:-1]} ({number})]"
        seen.add((case.file, name))
        found.append(replace(case, name=name))
    return tuple(found)
