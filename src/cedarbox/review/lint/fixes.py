"""Makes the changes that do away with findings, and makes sure that no decision changes by them.

What is changed is loaded again. Each policy must then decide what a policy decided before, in the same form but for the
spelling of networks, and none may be gone that decided something of its own. Only then are files replaced.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.files import replacing
from cedarbox.policy.signing import SIGNATURE_FILE
from cedarbox.review.finding import Edit
from cedarbox.review.formatting import FormatError, format_policies
from cedarbox.review.limited import limited_bytes
from cedarbox.review.lint.model import Fix
from cedarbox.review.lint.rules.logic import decides
from cedarbox.review.subject import Subject, shown

__all__ = ["Fixed", "fixed", "write"]


_MAX_FILE: Final = 16 * 1024 * 1024
_AGAIN: Final = "nothing was written; run it again"


@dataclass(frozen=True)
class Fixed:
    """Changed files that were not written yet.

    Attributes:
        root: Where they are.
        before: Their text by name.
        after: Their new text by name.
        made: How many changes are in them.
        left: How many are not, because they would touch each other; run it again.
        notes: What a reader must know.
    """

    root: Path
    before: Mapping[str, str]
    after: Mapping[str, str]
    made: int = 0
    left: int = 0
    notes: tuple[str, ...] = ()

    @property
    def diff(self) -> str:
        """The changes as a unified diff."""
        return "".join(self._diffs())

    def _diffs(self) -> Iterator[str]:
        for name, after in self.after.items():
            file = shown(self.root / name)
            old, new = self.before[name].splitlines(keepends=True), after.splitlines(keepends=True)
            for line in difflib.unified_diff(old, new, file, file):
                yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def fixed(subject: Subject, fixes: Sequence[Fix], *, unsafe: bool) -> Fixed:
    """Return the files of a subject with changes in them; nothing is written.

    Args:
        subject: What was reviewed.
        fixes: The changes.
        unsafe: Make those as well that change decisions.
    """
    names = {shown(subject.root / name): name for name in subject.files}
    chosen = [fix for fix in fixes if fix.safe or unsafe]
    texts = {name: subject.text(name) for name in subject.files if name.endswith(".cedar")}
    layout: set[str] = set()
    edits: dict[str, list[Edit]] = {}
    made = left = 0
    for fix in chosen:
        here = {names.get(edit.file, "") for edit in fix.edits}
        if not here <= texts.keys():
            continue
        (name,) = here if len(here) == 1 else ("",)
        if name and len(fix.edits) == 1 and (fix.edits[0].start, fix.edits[0].end) == (0, len(texts[name])):
            layout.add(name)
            made += 1
        elif all(_free(edit, edits.get(names[edit.file], ())) for edit in fix.edits):
            for edit in fix.edits:
                edits.setdefault(names[edit.file], []).append(edit)
            made += 1
        else:
            left += 1
    after = {name: _applied(texts[name], edits.get(name, ())) for name in sorted(edits.keys() | layout)}
    after = {name: _laid_out(text) if name in layout else text for name, text in after.items()}
    after = {name: text for name, text in after.items() if text != texts[name]}
    if not after:
        return Fixed(subject.root, {}, {}, 0, left)
    try:
        changed = _loaded(subject, {**subject.files, **{name: text.encode() for name, text in after.items()}})
    except BundleError as error:
        return Fixed(subject.root, {}, {}, 0, 0, (f"nothing was fixed: the bundle would not load ({error})",))
    notes: tuple[str, ...] = ()
    if _decided(subject) != _decided(changed):
        if not unsafe:
            return Fixed(subject.root, {}, {}, 0, 0, ("nothing was fixed: a decision might change",))
        notes = ("decisions change by what was fixed: review it, and run cedarbox policy diff",)
    if subject.bundle is not None and (subject.root / SIGNATURE_FILE).exists():
        notes = (*notes, "the signature of the bundle is about what it was; sign it again")
    return Fixed(subject.root, {name: texts[name] for name in after}, after, made, left, notes)


def write(result: Fixed) -> None:
    """Replace the files, each in one step, with the mode that it had.

    Raises:
        BundleError: One cannot be written, or is not any more what was looked at, and the edit would be lost: then none
            was written.
    """
    for name, before in result.before.items():
        path = result.root / name
        if limited_bytes(path, _MAX_FILE, hint=_AGAIN) != before.encode():
            raise BundleError("it was edited meanwhile", path=path, hint=_AGAIN)
    for name, text in result.after.items():
        path = result.root / name
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            with replacing(path, mode) as draft:
                draft.write(text.encode())
                os.fchmod(draft.fileno(), mode)  # the umask took from it
        except OSError as error:
            raise BundleError(f"cannot write it ({error.strerror})", path=path, hint="check the directory") from None


def _free(edit: Edit, taken: Sequence[Edit]) -> bool:
    return all(edit.end < other.start or edit.start > other.end for other in taken)


def _applied(text: str, edits: Sequence[Edit]) -> str:
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _laid_out(text: str) -> str:
    try:
        return format_policies(text)
    except FormatError:
        return text


def _loaded(subject: Subject, files: Mapping[str, bytes]) -> Subject:
    if subject.bundle is not None:
        return Subject.of_bundle(subject.label, subject.root, files)
    return Subject.of_cedar(
        subject.label, subject.root, files, schema=subject.schema, entities=subject.entities, links=subject.links
    )


def _decided(subject: Subject) -> frozenset[str]:
    """Return what the policies decide, as texts that are the same for the same decisions."""
    return frozenset(map(decides, subject.policies))
