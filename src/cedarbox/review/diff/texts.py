"""What changed in the text of the policies: which were added, removed, changed or renamed, and by which lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cedarbox.review.diff.effects import Effect
from cedarbox.review.finding import Place
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["TextChange", "text_changes"]

Kind = Literal["added", "removed", "changed", "renamed", "annotated"]

# Two policies whose ids differ are one that was renamed and changed when their texts are as alike as this (difflib).
_ALIKE: Final = 0.6
_MAX_PAIRS: Final = 400
_MAX_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class TextChange:
    """One policy whose text changed.

    Attributes:
        kind: What happened to it; ``annotated`` when only annotations changed, and with no effect.
        old: How it was; None for a new one.
        new: How it is; None for one that was removed.
    """

    kind: Kind
    old: ReviewedPolicy | None
    new: ReviewedPolicy | None

    @property
    def policy(self) -> str:
        """Id of the policy, the new one when it has one."""
        each = self.new or self.old
        return each.id if each else ""

    @property
    def told(self) -> str:
        """What happened, in a few words."""
        if self.old is not None and self.new is not None and self.old.id != self.new.id:
            return f"{self.kind} from {self.old.id}"
        return self.kind

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that differ, each with ``-`` or ``+`` in front; at most a dozen."""
        found = [line for line, _ in self._differing()]
        more = len(found) - _MAX_LINES
        return (*found[:_MAX_LINES], *([f"… and {more} lines more"] if more > 0 else []))

    @property
    def place(self) -> Place | None:
        """Where the new text first differs from the old; the whole policy when it is new; None when it is gone."""
        if self.new is None:
            return None
        at = next((number for line, number in self._differing() if line.startswith("+")), None)
        if self.old is None or at is None:
            return self.new.place
        text = self.new.text.split("\n")[at]
        indent = len(text) - len(text.lstrip())
        first = self.new.place.column or 1
        begin = (first if at == 0 else 1) + indent
        line = self.new.place.line + at
        return Place(self.new.place.file, line, begin, line, begin + len(text.strip()))

    def _differing(self) -> Iterator[tuple[str, int]]:
        old = self.old.text.split("\n") if self.old else []
        new = self.new.text.split("\n") if self.new else []
        matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
        for what, one, two, three, four in matcher.get_opcodes():
            if what != "equal":
                yield from ((f"- {line.strip()}", three) for line in old[one:two] if line.strip())
                yield from ((f"+ {new[at].strip()}", at) for at in range(three, four) if new[at].strip())


def text_changes(old: Mapping[str, Effect], new: Mapping[str, Effect]) -> tuple[TextChange, ...]:
    """Return the policies whose text, annotations or id changed, in the order of the new version, removed ones last.

    Comments and the order of policies are no change.

    Args:
        old: The policies of the old version by id.
        new: Those of the new one.
    """
    found: dict[str, TextChange] = {}
    for name in new.keys() & old.keys():
        before, after = old[name], new[name]
        if before.digest != after.digest:
            found[name] = TextChange("changed", before.policy, after.policy)
        elif before.policy.annotations != after.policy.annotations:
            found[name] = TextChange("annotated", before.policy, after.policy)
    gone = [name for name in old if name not in new]
    for name in [name for name in new if name not in old]:
        origin = _origin(new[name], {each: old[each] for each in gone})
        if origin is None:
            found[name] = TextChange("added", None, new[name].policy)
        else:
            gone.remove(origin)
            same = old[origin].digest == new[name].digest
            found[name] = TextChange("renamed" if same else "changed", old[origin].policy, new[name].policy)
    ordered = [found[name] for name in new if name in found]
    return (*ordered, *(TextChange("removed", old[name].policy, None) for name in gone))


def _origin(effect: Effect, gone: Mapping[str, Effect]) -> str | None:
    same = next((name for name, each in gone.items() if each.digest == effect.digest), None)
    if same is not None or len(gone) > _MAX_PAIRS:
        return same
    best, score = None, _ALIKE
    for name, each in gone.items():
        if each.policy.effect == effect.policy.effect:
            matcher = difflib.SequenceMatcher(None, each.policy.text, effect.policy.text, autojunk=False)
            if matcher.real_quick_ratio() > score and matcher.quick_ratio() > score and matcher.ratio() > score:
                best, score = name, matcher.ratio()
    return best
