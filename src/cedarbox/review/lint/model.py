"""What a lint rule is, and what it hands over: a finding before severities and suppressions are applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from cedarbox.review.finding import Edit, Place, Severity
from cedarbox.review.subject import ReviewedPolicy

if TYPE_CHECKING:
    from cedarbox.review.lint.context import Context

__all__ = ["Fix", "Hit", "How", "LintRule", "NodePath"]

NodePath = tuple[str | int, ...]
"""The way to a node of a policy in Cedar's JSON form, such as ``("conditions", 0, "body", "&&", "left")``."""

How = Literal["text", "meaning", "prover", "tests"]
"""What a rule looks at: the ``text`` and its form; the ``meaning``, by real decisions and by regions of connections;
the same and the ``prover`` for what those leave open; the ``tests`` beside a bundle."""


@dataclass(frozen=True, slots=True)
class Fix:
    """A change of files that does away with a finding.

    Attributes:
        edits: What to change.
        safe: No decision changes by it. Others are made only when they are asked for.
    """

    edits: tuple[Edit, ...]
    safe: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """One finding of a rule.

    Attributes:
        message: One line without a full stop.
        policy: What it is about; None for a file or the bundle.
        path: The node of the policy that it is about; empty for all of it.
        place: Where, when that is not in a policy.
        hint: What to do in this case; empty for what the rule says.
        fix: How it can be done away with.
        severity: Worse or milder than the rule's own; None for that one.
        key: What tells it from other hits of the rule about the same policy; holds no line.
        details: More for programs, in JSON values.
    """

    message: str
    policy: ReviewedPolicy | None = None
    path: NodePath = ()
    place: Place | None = None
    hint: str = ""
    fix: Fix | None = None
    severity: Severity | None = None
    key: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


_NOTHING: Final[Callable[[Context], Iterator[Hit]]] = lambda _: iter(())  # noqa: E731  # a default, not a function


@dataclass(frozen=True, slots=True)
class LintRule:
    """A rule.

    Attributes:
        id: Such as ``S013``.
        name: In kebab case.
        severity: By default.
        summary: One line without a full stop.
        hint: What to do about a finding, in one line.
        how: What it looks at.
        find: Yields what it finds.
        sandbox: It speaks about the schema of cedarbox, so it says nothing about other Cedar.
    """

    id: str
    name: str
    severity: Severity
    summary: str
    hint: str
    how: How = "text"
    find: Callable[[Context], Iterator[Hit]] = _NOTHING
    sandbox: bool = True
