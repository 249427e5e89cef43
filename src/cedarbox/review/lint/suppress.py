"""Suppressions in the text of policies: ``// cedarbox-lint: ignore S013 -- reason``.

One that stands directly before a policy, or on a line of its own in it, is for the whole policy. One behind something
on a line is for what is found on that line. ``ignore-file`` before the first policy of a file is for the file. Only a
comment is one: text in a string never is. What cannot be used, and what is not needed, is a finding of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cedarbox.review.finding import Finding, Place
from cedarbox.review.lint.places import place_at
from cedarbox.review.subject import Subject, shown

__all__ = ["Problem", "Suppression", "suppressions"]

# As in Cedar, a comment ends at a carriage return too. A string may run over lines.
_COMMENT: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|(?P<comment>//[^\n\r]*)', re.DOTALL)
_MARK: Final = re.compile(r"//\s*cedarbox-lint\b", re.IGNORECASE)
_WHOLE: Final = re.compile(r"// ?cedarbox-lint: (?P<verb>ignore|ignore-file) (?P<rules>[^-].*?) -- (?P<reason>.*)")
_LEAST_REASON: Final = 8


@dataclass(frozen=True, slots=True)
class Suppression:
    """One suppression of one rule.

    Attributes:
        rule: Id of the rule.
        reason: Why.
        place: The comment.
        policy: Id of the policy that it is for; empty for a file.
        line: The line that it is for; 0 for the whole policy or file.
    """

    rule: str
    reason: str
    place: Place
    policy: str
    line: int

    def covers(self, finding: Finding) -> bool:
        """Whether it is for a finding."""
        if finding.rule != self.rule or finding.place is None or finding.place.file != self.place.file:
            return False
        if self.line:
            return finding.place.line == self.line and finding.policy == self.policy
        return finding.policy == self.policy if self.policy else True


@dataclass(frozen=True, slots=True)
class Problem:
    """A suppression that cannot be used.

    Attributes:
        message: Why not.
        place: The comment.
        hint: What to do.
    """

    message: str
    place: Place
    hint: str


def suppressions(
    subject: Subject, known: frozenset[str], never: frozenset[str]
) -> tuple[tuple[Suppression, ...], tuple[Problem, ...]]:
    """Return the suppressions of a subject, and those that cannot be used.

    Args:
        subject: What is reviewed.
        known: Ids of the rules.
        never: Ids of the rules that cannot be suppressed in the text.
    """
    good: list[Suppression] = []
    bad: list[Problem] = []
    for name in sorted(subject.files):
        if name.endswith(".cedar"):
            for found in _in_file(subject, name, known, never):
                if isinstance(found, Problem):
                    bad.append(found)
                else:
                    good.append(found)
    return tuple(good), tuple(bad)


def _in_file(
    subject: Subject, name: str, known: frozenset[str], never: frozenset[str]
) -> Iterator[Suppression | Problem]:
    text = subject.text(name)
    if "cedarbox-lint" not in text.lower():
        return
    file = shown(subject.root / name)
    spans = [(p.offset, p.offset + len(p.text), p.id) for p in subject.policies if p.file == name]
    for match in _COMMENT.finditer(text):
        comment = match.group("comment")
        if comment is None or not _MARK.match(comment):
            continue
        place = place_at(file, text, match.start(), match.end())
        said = _WHOLE.fullmatch(comment.rstrip())
        hint = "write it like // cedarbox-lint: ignore S013 -- why this is right here"
        if said is None:
            what = "cannot be read" if re.search(r" -- \S", comment) else "has no reason"
            yield Problem(f"this suppression {what}, so it suppresses nothing", place, hint)
            continue
        reason = said["reason"].strip()
        if len(reason) < _LEAST_REASON or not comment.isprintable():
            yield Problem("this suppression has no reason that says something", place, hint)
            continue
        where = _target(text, match.start(), spans, said["verb"])
        if where is None:
            verb = said["verb"]
            message = (
                f"this {verb} stands where no policy is meant by it"
                if verb == "ignore"
                else ("ignore-file stands behind the first policy of the file")
            )
            yield Problem(message, place, "put it directly before a policy, in one, or at the head of the file")
            continue
        for rule in (part.strip() for part in said["rules"].split(",")):
            if rule not in known:
                yield Problem(f"there is no rule {rule[:40]!r}", place, "see cedarbox policy lint --rules")
            elif rule in never:
                yield Problem(f"{rule} cannot be suppressed in the text", place, "correct what it finds")
            else:
                yield Suppression(rule, reason, place, where[0], place.line if where[1] else 0)


def _target(text: str, at: int, spans: Sequence[tuple[int, int, str]], verb: str) -> tuple[str, bool] | None:
    """Return the policy that a comment is for, and whether only for its line; None when that cannot be told."""
    if verb == "ignore-file":
        return ("", False) if not spans or at < spans[0][0] else None
    line_start = text.rfind("\n", 0, at) + 1
    before = text[line_start:at].strip()
    inside = next((policy for start, end, policy in spans if start <= at < end), None)
    if inside is not None:
        return inside, bool(before)
    # Of several policies on one line, the last one before the comment is meant.
    behind = next((policy for _, end, policy in reversed(spans) if line_start < end <= at), None)
    if before:
        return None if behind is None else (behind, True)
    start, following = next(((start, policy) for start, _, policy in spans if start > at), (0, ""))
    # Directly before it: nothing but comments between, and no empty line.
    lines = text[at:start].split("\n")[:-1]
    return (following, False) if following and all(line.strip().startswith("//") for line in lines) else None
