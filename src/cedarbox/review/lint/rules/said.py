"""The rule about what a policy says of itself: S050."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from cedarbox.review.finding import Edit
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Fix, Hit, LintRule
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["RULES"]

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?", re.ASCII)
_SLUG: Final = re.compile(r"[^a-z0-9]+")


def _annotations(context: Context) -> Iterator[Hit]:
    taken = {policy.annotations["id"] for policy in context.policies if policy.annotations.get("id")}
    seen: dict[str, ReviewedPolicy] = {}
    for policy in context.policies:
        said = policy.annotations
        if not said.get("id"):
            fix = None
            if "id" not in said:
                name = _new_id(policy, taken)
                edit = Edit(policy.place.file, policy.offset, policy.offset, f'@id("{name}")\n')
                fix = Fix((edit,), safe=True)
            yield Hit(
                "has no @id, so records and tests name it by its number",
                policy,
                hint='write @id("…") before it, or lint with --fix',
                # Other programs have other names for policies, such as that of the file.
                severity=None if context.subject.bundle else "note",
                key="id",
                fix=fix,
            )
        elif (first := seen.setdefault(said["id"], policy)) and first is not policy:
            yield Hit(
                f"has the @id of the policy at {first.place}",
                policy,
                hint="give one of them another",
                key=f"twice {policy.place.line}",
            )
        wanted = ("reason",) if policy.effect == "permit" else ("reason", "advice")
        for name in wanted if context.subject.bundle else ():
            if not said.get(name, "").strip():
                what = "what it is for" if name == "reason" else "what to do instead"
                message = f"has no @{name}, which tells people and models {what}"
                hint = f'write @{name}("…") before it'
                yield Hit(message, policy, hint=hint, key=name, severity="warning")
        if "expires" in said:
            yield from _expiry(context, policy, said["expires"])


def _expiry(context: Context, policy: ReviewedPolicy, text: str) -> Iterator[Hit]:
    path = ("annotations", "expires")
    until = None
    if _DATE.fullmatch(text):
        try:
            until = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
        except ValueError:
            until = None
    if until is None:
        message = f"has an @expires that is no date: {text[:40]!r}"
        yield Hit(message, policy, path, hint="write it like 2027-01-31", key="expires")
    elif until <= context.now:
        message = f"expired: its @expires was {text}, and it still decides"
        yield Hit(message, policy, path, hint="remove it, or review it again and give it a new date", key="expires")


def _new_id(policy: ReviewedPolicy, taken: set[str]) -> str:
    words = policy.annotations.get("reason", "").lower()
    stem = _SLUG.sub("-", words).strip("-")[:40].strip("-")
    if not stem:
        scope = policy.est["action"]
        named = [scope["entity"]] if "entity" in scope else scope.get("entities", [])
        actions = "-".join(str(uid["id"]) for uid in named[:2]) or "all"
        stem = _SLUG.sub("-", f"{policy.effect}-{re.sub(r'(?<!^)(?=[A-Z])', '-', actions)}".lower()).strip("-")
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


RULES: Final = (
    LintRule(
        "S050",
        "missing-annotation",
        "error",
        "A policy without @id, @reason or (a forbid) @advice, with the @id of another, or whose @expires is over",
        "say it in an annotation",
        "text",
        _annotations,
        sandbox=False,
    ),
)
"""The rules."""
