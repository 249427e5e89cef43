"""What a change takes away from the review itself: the files that say what is reviewed are part of the change too.

Nothing here judges whether that is right. A rule may be off for a good reason; but whoever approves the change must not
learn of it from a report that has become shorter.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from cedarbox.errors import BundleError
from cedarbox.review.beside import BASELINE
from cedarbox.review.cases import Case, Suite
from cedarbox.review.diff.compared import Incomparable
from cedarbox.review.diff.plan import Plan
from cedarbox.review.diff.rules import WEAKENS
from cedarbox.review.finding import SEVERITIES, Finding, Place
from cedarbox.review.lint.baseline import Known, baseline_of
from cedarbox.review.lint.options import FILE, ISOLATIONS, LintConfig, Options, config_of
from cedarbox.review.lint.rulebook import NEVER_SUPPRESSED, RULES
from cedarbox.review.lint.suppress import Suppression, suppressions
from cedarbox.review.properties.files import Property, read_properties
from cedarbox.review.subject import Subject, shown
from cedarbox.review.version import Version

__all__ = ["weakened"]

_LEVELS: Final = (*SEVERITIES, "off")
_SHOWN: Final = 5
_HINT: Final = "ask why; it belongs in a change of its own"

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class _Change:
    """Both versions of one bundle."""

    old: Version
    new: Version
    before: Subject | None
    after: Subject | None
    baseline: Path | None

    def place(self, name: str, line: int = 1) -> Place:
        """Return where to tell what is about a file: the bundle where that is gone."""
        if name == BASELINE and self.baseline is not None:
            return Place(shown(self.baseline), line)
        if name in self.new.beside:
            return Place(shown(self.new.root / name), line)
        return Place(shown(self.new.root / "bundle.toml"))

    def differs(self, kind: Callable[[str], bool]) -> bool:
        """Whether the files of a kind do."""
        old, new = ({name: data for name, data in each.beside.items() if kind(name)} for each in (self.old, self.new))
        return old != new


def weakened(outcome: Plan | Incomparable, baseline: Path | None = None) -> Iterator[Finding]:
    """Yield what a change takes away from the review of a bundle.

    Args:
        outcome: The bundle in both versions.
        baseline: The baseline of the linter that was named.
    """
    pair = outcome.pair if isinstance(outcome, Incomparable) else outcome.compared.pair
    if pair.base.files is None or pair.head.files is None or pair.head.schema is not None:
        return
    subjects: tuple[Subject | None, Subject | None] = (None, None)
    if isinstance(outcome, Plan):
        subjects = outcome.compared.old.subject, outcome.compared.new.subject
    change = _Change(pair.base, pair.head, *subjects, baseline)
    for told in (_rules, _suppressions, _baselines, _cases, _properties):
        yield from told(change)


def _finding(what: str, place: Place, key: str, listed: Sequence[str] = (), policy: str = "") -> Finding:
    details = {"listed": list(listed)} if listed else {}
    message = f"the change weakens the review: {what}"
    return Finding(WEAKENS.id, "warning", message, place, policy, _HINT, details=details, key=key)


def _some(listed: Sequence[str]) -> str:
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{', '.join(listed[:_SHOWN])}{more}"


def _rules(change: _Change) -> Iterator[Finding]:
    if not change.differs(lambda name: name == FILE):
        return
    try:
        old = _config(change.old)
    except BundleError:
        # Whatever it was, the new one is held against the rules as they are by default.
        old = LintConfig()
    try:
        new = _config(change.new)
    except BundleError as error:
        yield _finding(f"{FILE} cannot be used any more: {error.message}", change.place(FILE), "unusable")
        return
    text = (change.new.beside.get(FILE) or b"").decode("utf-8", "replace")
    for rule in RULES:
        settings = [config.rules.get(rule.id) for config in (old, new)]
        was, now = (setting.level if setting else rule.severity for setting in settings)
        if _LEVELS.index(now) > _LEVELS.index(was):
            reason = f": {settings[1].reason}" if settings[1] is not None and settings[1].reason else ""
            word = "is off" if now == "off" else f"is only a {now}"
            told = f"{rule.id} ({rule.name}) {word}, and was {_article(was)}{reason}"
            yield _finding(told, change.place(FILE, _line(text, rule.id)), rule.id)
    if SEVERITIES.index(new.fail_level) < SEVERITIES.index(old.fail_level):
        told = f"lint fails at {_article(new.fail_level)} only, and did at {_article(old.fail_level)}"
        yield _finding(told, change.place(FILE, _line(text, "fail_level")), "fail_level")
    for name, told in _options(old.options, new.options):
        yield _finding(f"{name} {told}", change.place(FILE, _line(text, name)), name)


def _config(version: Version) -> LintConfig:
    if FILE not in version.beside:
        return LintConfig()
    data = version.beside[FILE]
    if data is None:
        raise BundleError("it cannot be read", path=version.root / FILE)
    return config_of(version.root / FILE, data, {rule.id: rule.severity for rule in RULES})


def _article(level: str) -> str:
    return f"an {level}" if level == "error" else level if level == "off" else f"a {level}"


def _line(text: str, name: str) -> int:
    found = re.search(rf"^.*\b{re.escape(name)}\b", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _options(old: Options, new: Options) -> Iterator[tuple[str, str]]:
    for name in ("sensitive_paths", "sensitive_capabilities"):
        if gone := [each for each in getattr(old, name) if each not in getattr(new, name)]:
            yield name, f"has {_some(gone)} no more"
    if wider := [each for each in new.wide_domains if each not in old.wide_domains]:
        yield "wide_domains", f"has {_some(wider)} besides"
    if ISOLATIONS.index(new.isolation_floor) < ISOLATIONS.index(old.isolation_floor):
        yield "isolation_floor", f"is {new.isolation_floor}, and was {old.isolation_floor}"
    if old.require_signed_images and not new.require_signed_images:
        yield "require_signed_images", "is false, and was true"
    if new.max_ports > old.max_ports:
        yield "max_ports", f"is {new.max_ports}, and was {old.max_ports}"
    if new.egress != old.egress:
        # Each of the two makes other rules speak, so either may be the one that is meant to be silenced.
        yield "egress", f"is {new.egress}, and was {old.egress}"
    if old.idle_forbids and not new.idle_forbids:
        yield "idle_forbids", "is false, and was true"


def _suppressions(change: _Change) -> Iterator[Finding]:
    if change.before is None or change.after is None:
        return
    known = frozenset(rule.id for rule in RULES)
    left = Counter(_mark(each) for each in suppressions(change.before, known, NEVER_SUPPRESSED)[0])
    for each in suppressions(change.after, known, NEVER_SUPPRESSED)[0]:
        mark = _mark(each)
        if left[mark] > 0:
            left[mark] -= 1
            continue
        about = f"for {each.policy}" if each.policy else "for a whole file"
        told = f"{each.rule} is suppressed {about}, and was not: {each.reason}"
        yield _finding(told, each.place, f"{each.rule} inline", policy=each.policy)


def _mark(each: Suppression) -> tuple[str, str, bool]:
    """Return what a suppression does, whatever line it stands on."""
    return each.rule, each.policy or f"file {Path(each.place.file).name}", bool(each.line)


def _baselines(change: _Change) -> Iterator[Finding]:
    names = [name for name in change.new.beside if name == BASELINE or name.endswith(".json")]
    for name in names:
        if change.new.beside[name] == change.old.beside.get(name):
            continue
        before = Counter(entry.fingerprint for entry in _known(change.old, name))
        added = []
        for entry in _known(change.new, name):
            if before[entry.fingerprint] > 0:
                before[entry.fingerprint] -= 1
            else:
                added.append(f"{entry.rule} of {entry.policy or entry.file or 'the bundle'}")
        if added:
            word = "finding is" if len(added) == 1 else "findings are"
            told = f"{len(added)} more {word} in the baseline: {_some(added)}"
            yield _finding(told, change.place(name), f"{name} {' '.join(added)}", added)


def _known(version: Version, name: str) -> tuple[Known, ...]:
    data = version.beside.get(name)
    try:
        return () if data is None else baseline_of(version.root / name, data).known
    except BundleError:
        return ()  # another file in JSON; when it is used as a baseline, lint refuses it


def _cases(change: _Change) -> Iterator[Finding]:
    def ours(name: str) -> bool:
        return name.startswith("tests/")

    if not change.differs(ours) or not any(map(ours, change.old.beside)):
        return
    before = _written(change.old, change.before, _suite)
    after = _written(change.new, change.after, _suite)
    if isinstance(before, str):
        why = f"the test cases of before cannot be read ({before}), so it is not known which are gone"
        yield _finding(why, change.place(next(filter(ours, change.new.beside), "")), "cases unknown")
        return
    if isinstance(after, str):
        why = f"the test cases cannot be read any more: {after}"
        yield _finding(why, change.place(next(filter(ours, change.new.beside), "")), "cases unreadable")
        return
    kept = {_meaning(case) for case in after}
    yield from _gone(change, "test case", ((f"tests/{c.file.name}", c.name) for c in before if _meaning(c) not in kept))


def _properties(change: _Change) -> Iterator[Finding]:
    def ours(name: str) -> bool:
        return name.startswith("properties/")

    if not change.differs(ours):
        return
    names = [name for name in change.old.beside if ours(name)]
    kept = set()
    for name in filter(ours, change.new.beside):
        found = _properties_of(change.new, change.after, name)
        kept |= set() if isinstance(found, str) else set(map(_claim, found))
    gone: list[tuple[str, str]] = []
    for name in names:
        found = _properties_of(change.old, change.before, name)
        if isinstance(found, str):
            why = f"{name} of before cannot be read ({found}), so it is not known which properties are gone"
            yield _finding(why, change.place(name), f"{name} unknown")
            continue
        gone += [(name, each.name) for each in found if _claim(each) not in kept]
    yield from _gone(change, "property", gone)


def _properties_of(version: Version, subject: Subject | None, name: str) -> Sequence[Property] | str:
    return _written(version, subject, lambda _, root: read_properties(root / name))


def _gone(change: _Change, word: str, gone: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Yield one finding for each file with what it no longer has."""
    by_file: dict[str, list[str]] = {}
    for name, told in gone:
        by_file.setdefault(name, []).append(told)
    for name, listed in by_file.items():
        things = "properties" if word == "property" else f"{word}s"
        several = f"{len(listed)} {things} of {name} are gone or say something else"
        told = several if len(listed) > 1 else f"a {word} of {name} is gone or says something else"
        yield _finding(f"{told}: {_some(listed)}", change.place(name), f"{name} {' '.join(listed)}", listed)


def _written(
    version: Version, subject: Subject | None, read: Callable[[Subject, Path], Sequence[_Read]]
) -> Sequence[_Read] | str:
    """Return what is read of the files of a version, written to a directory; or why it cannot be."""
    if subject is None:
        return "its bundle cannot be loaded"
    with TemporaryDirectory(prefix="cedarbox-review-") as made:
        root = Path(made)
        for name, data in version.beside.items():
            if "/" not in name:
                continue
            if data is None:
                return f"{name} is no plain file, or too large"
            path = root / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        try:
            return read(subject, root)
        except (BundleError, OSError, ValueError) as error:
            # By its name in the bundle, and not by that of a directory that is gone when it is told.
            told = error.message.replace(f"{root}/", "") if isinstance(error, BundleError) else ""
            return told or "a name that this system does not take"


def _suite(subject: Subject, root: Path) -> tuple[Case, ...]:
    if not (root / "tests").is_dir() or subject.bundle is None:
        return ()
    return Suite.load(replace(subject.bundle, path=root)).cases


def _meaning(case: Case) -> str:
    """Return the request and the answer that a case asks for; where it stands and what it is called do not count."""
    request: Mapping[str, object] | None = None
    if case.request is not None:
        others = [entity.to_json() for entity in case.request.others]
        request = {"resource": case.request.resource.to_json(), "context": case.request.context, "others": others}
    asked = [None if each is None else sorted(each) for each in (case.by, case.approvers)]
    told = (case.action, case.principal, request, bool(case.refusal), case.allowed, case.error, case.approval_s, asked)
    return json.dumps(told, sort_keys=True, default=str)


def _claim(each: Property) -> tuple[object, ...]:
    return each.kind, each.about, each.approved_too, each.other, each.policies
