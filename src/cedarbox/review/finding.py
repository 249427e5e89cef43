"""What a review finds, and what a command of it reports: the one model that every output format is made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = [
    "SEVERITIES",
    "Check",
    "Edit",
    "Finding",
    "Place",
    "Report",
    "Rule",
    "Section",
    "Severity",
    "Status",
    "Suppression",
]

Severity = Literal["error", "warning", "note"]
Status = Literal["passed", "failed", "skipped", "undecided"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
"""The severities, the worst first."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file.

    Attributes:
        file: Its path as the user would open it, relative to the working directory where it is below it, with ``/``.
        line: 1-based line.
        column: 1-based column in characters; None when only the line is known.
        end_line: 1-based line of the end; None when the end is not known.
        end_column: 1-based column after the last character; None when the end is not known.
    """

    file: str
    line: int = 1
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a file that is safe to make.

    Attributes:
        file: As in :class:`Place`.
        start: Where the replaced text begins, in characters from the start of the file.
        end: Where it ends.
        text: What to put there.
    """

    file: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What a kind of finding is about.

    Attributes:
        id: Such as ``S013``.
        name: A few words in kebab case, such as ``reaches-private-address``.
        severity: What it has by default.
        summary: One line without a full stop.
        help: A page of Markdown: why it matters, an example of bad and of good, how to fix it, how to suppress it.
    """

    id: str
    name: str
    severity: Severity
    summary: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why a finding does not count.

    Attributes:
        kind: ``inline``: a comment in the file says so; ``baseline``: it was there before; ``accepted``: a signed entry
            accepts it.
        reason: What whoever suppressed it wrote; may be empty for a baseline.
        place: Where that is written, when known.
    """

    kind: Literal["inline", "baseline", "accepted"]
    reason: str = ""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a reviewer should know.

    Attributes:
        rule: Id of the rule.
        severity: How bad it is.
        message: One line without a full stop; it makes sense without the text of the policy.
        place: Where; None when it is about no place in a file.
        policy: Id of the policy; empty when it is about none.
        hint: What to do about it; may be empty.
        edits: A fix that is safe to make by itself; empty when there is none.
        details: More for programs, such as a witness, in JSON values.
        key: What tells it from other findings of the same rule about the same policy. It must stay the same when lines
            move, so it holds no line number.
        suppressed: Why it does not count; None when it counts. Reports for people leave a suppressed finding out; JSON
            and SARIF tell it with the reason.
    """

    rule: str
    severity: Severity
    message: str
    place: Place | None = None
    policy: str = ""
    hint: str = ""
    edits: tuple[Edit, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    suppressed: Suppression | None = None

    @property
    def fingerprint(self) -> str:
        """32 hex digits that stay the same while the rule, the file, the policy and the key do, whatever the line."""
        file = self.place.file if self.place else ""
        told = json.dumps((self.rule, file, self.policy, self.key or ("" if self.policy else self.message)))
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked and how that ended: a case of JUnit, a point of TAP.

    Attributes:
        suite: What it belongs to: a file, an action.
        name: What it is.
        status: How it ended.
        message: Why it did not pass; empty when it did.
        place: Where it is written.
        seconds: How long it took.
    """

    suite: str
    name: str
    status: Status
    message: str = ""
    place: Place | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report for people: some lines, then a table.

    Attributes:
        title: Its heading.
        lines: Paragraphs before the table, plain text.
        columns: The heads of the table; empty for no table.
        rows: Its rows, plain text, as wide as ``columns``.
        opened: It is what a reader came for: where parts can be folded, this one is not.
    """

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    opened: bool = False


@dataclass(frozen=True)
class Report:
    """What one command found.

    Attributes:
        command: Its name, such as ``lint``.
        subject: What was looked at, in a few words, such as ``policies/airgapped``.
        summary: The outcome in one line without a full stop.
        findings: In the order to show them.
        checks: What was checked; empty for commands that check nothing by name.
        sections: More for people.
        notes: What a reader must know, such as rules that were not run and why; plain lines.
        rules: The rules that were used, each once.
        data: What ``--json`` prints besides, by name.
        failed: There is something to act on: exit code 1.
        undecided: Something was not decided, and nothing failed: exit code 3.
        place: Where a form that needs a file tells what is about no place in one; the subject when it is None.
    """

    command: str
    subject: str
    summary: str
    findings: Sequence[Finding] = ()
    checks: Sequence[Check] = ()
    sections: Sequence[Section] = ()
    notes: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False
    undecided: bool = False
    place: Place | None = None

    @property
    def counted(self) -> tuple[Finding, ...]:
        """The findings that are not suppressed."""
        return tuple(finding for finding in self.findings if finding.suppressed is None)

    @property
    def exit_code(self) -> int:
        """0 good, 1 failed, 3 not decided."""
        return 1 if self.failed else 3 if self.undecided else 0
