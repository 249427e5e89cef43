"""Every rule, and its page of help."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

from cedarbox.review.finding import Rule
from cedarbox.review.lint.model import LintRule
from cedarbox.review.lint.rules import (
    connect,
    hosts,
    intelligence,
    layout,
    lifecycle,
    logic,
    said,
    scope,
    storage,
    surroundings,
)

__all__ = ["NEVER_SUPPRESSED", "OWN", "RULES", "by_name", "page", "told"]

UNUSED: Final = "S092"
UNUSABLE: Final = "S093"
STALE: Final = "S094"

OWN: Final = (
    LintRule(
        UNUSED,
        "unused-suppression",
        "warning",
        "A suppression that suppresses nothing",
        "remove it",
        sandbox=False,
    ),
    LintRule(
        UNUSABLE,
        "unusable-suppression",
        "error",
        "A suppression without a reason, of a rule that there is not, or in a place where it means nothing",
        "write it like // cedarbox-lint: ignore S013 -- why this is right here",
        sandbox=False,
    ),
    LintRule(
        STALE,
        "stale-baseline",
        "note",
        "An entry of the baseline that matches no finding any more",
        "write the baseline again with --write-baseline",
        sandbox=False,
    ),
)
"""The rules about the review itself."""

RULES: Final[tuple[LintRule, ...]] = tuple(
    sorted(
        (
            *scope.RULES,
            *hosts.RULES,
            *connect.RULES,
            *storage.RULES,
            *lifecycle.RULES,
            *intelligence.RULES,
            *said.RULES,
            *logic.RULES,
            *surroundings.RULES,
            *layout.RULES,
            *OWN,
        ),
        key=lambda rule: rule.id,
    )
)
"""Every rule, in the order of their ids."""

NEVER_SUPPRESSED: Final = frozenset({UNUSED, UNUSABLE, STALE, "S091"})
"""What no comment can suppress: it would hide what the reader is to be warned of."""


def by_name(text: str) -> LintRule | None:
    """Return the rule with an id or a name."""
    return next((rule for rule in RULES if text in {rule.id, rule.name}), None)


@cache
def page(rule_id: str) -> str:
    """Return the page of help of a rule, in Markdown."""
    return resources.files("cedarbox.review.lint").joinpath("pages", f"{rule_id}.md").read_text("utf-8")


def told(rule: LintRule) -> Rule:
    """Return a rule as reports tell it."""
    return Rule(rule.id, rule.name, rule.severity, rule.summary, page(rule.id))
