"""Bundles to lint, written to disk and linted for real."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.unit.bundles import write_bundle

from cedarbox.review.lint.baseline import read_baseline
from cedarbox.review.lint.options import read_config
from cedarbox.review.lint.proving import Wanted
from cedarbox.review.lint.rulebook import RULES, page
from cedarbox.review.lint.run import Chosen, Linted, lint
from cedarbox.review.subject import Subject

__all__ = ["NOW", "example", "found", "lint_bundle", "lint_text", "permit"]

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
_FENCE = re.compile(r"```(?P<kind>cedar|toml|json|yaml)(?: (?P<name>\S+))?\n(?P<text>.*?)```", re.DOTALL)


def lint_bundle(directory: Path, *rules: str, prover: bool = False) -> Linted:
    """Lint a bundle with some rules, or with all."""
    config = read_config(directory / "lint.toml", {rule.id: rule.severity for rule in RULES}, missing_ok=True)
    known = directory / "baseline.json"
    baseline = read_baseline(known) if known.exists() else None
    chosen = Chosen(frozenset(rules))
    wanted = Wanted(limit_s=60) if prover else None
    return lint(Subject.load(directory), config, now=NOW, chosen=chosen, baseline=baseline, prover=wanted)


def lint_text(directory: Path, policies: str, *rules: str, entities: str | None = None, config: str = "") -> Linted:
    """Write a bundle and lint it."""
    write_bundle(directory, policies, entities=entities)
    if config:
        (directory / "lint.toml").write_text(config)
    return lint_bundle(directory, *rules)


def found(linted: Linted) -> list[tuple[str, str]]:
    """Return the rule and the policy of each finding."""
    return [(finding.rule, finding.policy) for finding in linted.findings]


def example(rule: str, heading: str) -> Mapping[str, str]:
    """Return the files of an example of a page of help, by name."""
    part = page(rule).partition(f"## {heading}\n")[2].partition("\n## ")[0]
    fences = list(_FENCE.finditer(part))
    return {fence["name"] or "policies.cedar": fence["text"] for fence in fences}


def permit(name: str, action: str, *conditions: str, resource: str = "resource", effect: str = "permit") -> str:
    """Return a policy for the group ``agents``, or a forbid for everybody."""
    principal = 'principal in Sandbox::AgentGroup::"agents"' if effect == "permit" else "principal"
    advice = '@advice("do otherwise") ' if effect == "forbid" else ""
    scope = f'{principal}, action == Sandbox::Action::"{action}", {resource}'
    return f'@id("{name}") @reason("a reason") {advice}{effect} ({scope}) {" ".join(conditions)};\n'
