"""What a change widens, one by one: what each is called, what an acceptance of it names, and a line about it."""

from __future__ import annotations

from collections.abc import Sequence

from cedarbox.review.configured import SETTINGS
from cedarbox.review.diff.acceptance import Subject
from cedarbox.review.diff.compared import Compared, Incomparable
from cedarbox.review.diff.effects import Effects, digest_of
from cedarbox.review.diff.metadata import MetadataChange
from cedarbox.review.diff.plan import Plan, Widening
from cedarbox.review.version import Version

__all__ = ["Outcome", "identity", "message", "metadata_message", "metadata_subject", "widened"]

Outcome = Plan | Incomparable
"""What came of one bundle."""


def identity(subject: Subject) -> str:
    """Return what a widening is called on the command line: 16 hex digits of the digest of all that it is."""
    return digest_of(subject.to_json()).removeprefix("sha256:")[:16]


def metadata_subject(compared: Compared, change: MetadataChange) -> Subject:
    """Return what an acceptance of a change beside the policies names."""
    digest = digest_of({"key": change.key, "value": change.exact or change.new})
    old = _state(compared.old, compared.pair.base, change)
    new = _state(compared.new, compared.pair.head, change)
    return Subject(compared.name, change.file, change.key, ("*",), change.file, digest, old, new)


def widened(outcomes: Sequence[Outcome]) -> dict[Subject, str]:
    """Return everything that a change widens, with a line about each, in order."""
    found: dict[Subject, str] = {}
    for plan in outcomes:
        if isinstance(plan, Plan):
            for change in plan.compared.metadata:
                if change.widens:
                    found[metadata_subject(plan.compared, change)] = metadata_message(change)
            for each in plan.widenings:
                if each.cause is not None:
                    found[each.subject] = message(each)
    return found


def message(each: Widening) -> str:
    """Return a widening in one line, with the request that shows it."""
    what = f"{each.subject.action} on {each.subject.resource} is widened for {each.agents.told}"
    by = f" by {each.cause.policy} ({each.cause.told})" if each.cause else ""
    return f"{what}{by}: {each.witness.told()} was {each.before}, and is {each.after}"


def metadata_message(change: MetadataChange) -> str:
    """Return a change beside the policies in one line."""
    if change.old == change.new:
        return f"{change.key} is still {change.new}: {change.told}"
    return f"{change.key} was {change.old or 'not there'} and is {change.new or 'not there'}: {change.told}"


def _digest(effects: Effects) -> str:
    bundle = effects.subject.bundle if effects.subject else None
    return bundle.digest if bundle else ""


def _state(effects: Effects, version: Version, change: MetadataChange) -> str:
    state = [None if effects.subject is None else _digest(effects)]
    if change.file == SETTINGS and version.settings is not None:
        # So that it is used up once the change is in the base.
        state.append(version.settings.state)
    return digest_of(state)
