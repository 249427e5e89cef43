"""What a page about a bundle says, before it has a form."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyEngine
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.endpoint_rows import Row, agents_alike
from cedarbox.policy.schema import SCHEMA_VERSION
from cedarbox.review.cases import Suite
from cedarbox.review.declared import AGENT, Declared
from cedarbox.review.run import run_suite
from cedarbox.review.subject import ReviewedPolicy, Subject
from cedarbox.review.vocabulary import ACTIONS, GROUPS
from cedarbox.review.words import Sentence, sentence_of

__all__ = ["Agent", "Endpoints", "Group", "Page", "Shown", "Tested", "page_of"]

_MANY: Final = "several"
_OF_THEIR_OWN: Final = frozenset({"id", "reason", "advice", "requires_approval"})
"""Annotations that have a place of their own on the page."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A test case that a policy determines.

    Attributes:
        answer: ``allow`` or ``deny``.
        title: What it is about.
        place: File and line.
        passed: It passed when the page was made.
    """

    answer: str
    title: str
    place: str
    passed: bool


@dataclass(frozen=True)
class Shown:
    """A policy.

    Attributes:
        id: Its id.
        anchor: Its name in links.
        effect: ``permit`` or ``forbid``.
        sentence: It in words.
        reason: Its ``@reason``.
        advice: Its ``@advice``.
        approvers: Who must approve, from ``@requires_approval``.
        annotations: All its other annotations, such as ``@owner``: name and text.
        comment: The comment above it, in paragraphs.
        file: Its file in the bundle.
        line: Where it begins there.
        source: Its text.
        tests: The cases that it determines.
    """

    id: str
    anchor: str
    effect: str
    sentence: Sentence
    reason: str
    advice: str
    approvers: str
    annotations: tuple[tuple[str, str], ...]
    comment: tuple[str, ...]
    file: str
    line: int
    source: str
    tests: tuple[Tested, ...]


@dataclass(frozen=True)
class Group:
    """Policies about one group of actions.

    Attributes:
        name: Its name in links.
        title: Its heading.
        about: What it is about.
        permits: What may be done.
        forbids: What may not, whatever permits it.
        never: Actions that nothing permits, in words.
    """

    name: str
    title: str
    about: str
    permits: tuple[Shown, ...]
    forbids: tuple[Shown, ...]
    never: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Agent:
    """A declared agent.

    Attributes:
        id: Its id.
        groups: The groups that it is in, those above them too.
        tenant: Its tenant.
        trust: How far it is trusted.
    """

    id: str
    groups: tuple[str, ...]
    tenant: str
    trust: str


@dataclass(frozen=True)
class Endpoints:
    """What some agents may connect to.

    Attributes:
        agents: Their ids.
        rows: The list.
        notes: What the list does not tell.
        exact: It says exactly what the policies do.
    """

    agents: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    exact: bool


@dataclass(frozen=True)
class Page:
    """A page about a bundle.

    Attributes:
        name: Of the bundle.
        description: Of the bundle.
        facts: What identifies it: label and value.
        agents: The declared agents.
        groups: What the policies say, by group of actions.
        endpoints: What may be connected to, by agents that may the same.
        approvers: Names of those who can approve.
        tests: How many cases there are and how many of them passed, in words.
        anchors: The name of each policy in links, by its id.
    """

    name: str
    description: str
    facts: tuple[tuple[str, str], ...]
    agents: tuple[Agent, ...]
    groups: tuple[Group, ...]
    endpoints: tuple[Endpoints, ...]
    approvers: tuple[str, ...]
    tests: str
    anchors: Mapping[str, str]


def page_of(subject: Subject, *, signed: str) -> Page:
    """Return what a page about a bundle says.

    Args:
        subject: The bundle.
        signed: Who signed it, in words.

    Raises:
        BundleError: Its test cases cannot be read.
        ValueError: The subject is no bundle.
    """
    bundle = subject.bundle
    if bundle is None:
        raise ValueError("only a cedarbox bundle is rendered")
    covered, tests = _tested(bundle)
    anchors = _anchors(policy.id for policy in subject.policies)
    shown = {
        policy.id: _shown(subject, policy, anchors[policy.id], covered.get(policy.id, ()))
        for policy in subject.policies
    }
    facts = (
        ("revision", str(bundle.revision)),
        ("digest", bundle.digest),
        ("signatures", signed),
        ("schema", f"version {SCHEMA_VERSION}"),
        ("policies", str(len(bundle.policies))),
        ("tests", tests),
    )
    alike = agents_alike(PolicyEngine(bundle))
    listed = [Endpoints(tuple(agents), rows, found.notes, found.exact) for agents, found, rows in alike]
    return Page(
        name=bundle.name,
        description=_description(subject),
        facts=facts,
        agents=_agents(bundle),
        groups=tuple(_groups(bundle, shown)),
        endpoints=tuple(listed),
        approvers=tuple(sorted(bundle.approvers)),
        tests=tests,
        anchors=anchors,
    )


def _groups(bundle: PolicyBundle, shown: Mapping[str, Shown]) -> Iterable[Group]:
    by_group: dict[str, list[Shown]] = {}
    permitted: set[str] = set()
    for policy in bundle.policies:
        groups = {ACTION_GROUPS[action] for action in policy.actions}
        by_group.setdefault(groups.pop() if len(groups) == 1 else _MANY, []).append(shown[policy.id])
        permitted |= policy.actions if policy.effect == "permit" else frozenset()
    if _MANY in by_group:
        yield _group(_MANY, "Several kinds of action", "What is about more than one of the groups below.", by_group, ())
    for name, (title, about) in GROUPS.items():
        never = [action for action, group in ACTION_GROUPS.items() if group == name and action not in permitted]
        yield _group(name, title, about, by_group, tuple(_act(action) for action in never))


def _group(name: str, title: str, about: str, by_group: Mapping[str, Sequence[Shown]], never: tuple[str, ...]) -> Group:
    here = by_group.get(name, ())
    permits = tuple(policy for policy in here if policy.effect == "permit")
    return Group(name, title, about, permits, tuple(policy for policy in here if policy.effect == "forbid"), never)


def _act(action: str) -> str:
    act = ACTIONS[action]
    return " ".join(part for part in (act.verb, act.link, act.anything, act.tail) if part)


def _shown(subject: Subject, policy: ReviewedPolicy, anchor: str, tests: Sequence[Tested]) -> Shown:
    return Shown(
        id=policy.id,
        anchor=anchor,
        effect=policy.effect,
        sentence=sentence_of(policy.est),
        reason=policy.annotations.get("reason", ""),
        advice=policy.annotations.get("advice", ""),
        approvers=policy.annotations.get("requires_approval", ""),
        annotations=tuple((name, text) for name, text in policy.annotations.items() if name not in _OF_THEIR_OWN),
        comment=_comment(subject.text(policy.file)[: policy.offset]),
        file=policy.file,
        line=policy.place.line,
        source=policy.text,
        tests=tuple(tests),
    )


def _comment(before: str) -> tuple[str, ...]:
    """Return the comment right above a policy: its paragraphs, without those that the file begins with."""
    lines = []
    for line in reversed(before.split("\n")[:-1]):
        if not line.strip().startswith("//"):
            break
        lines.append(line.strip().removeprefix("//").strip())
    paragraphs = "\n".join(reversed(lines)).split("\n\n")
    told = paragraphs if len(before.split("\n")) - 1 > len(lines) else paragraphs[-1:]
    return tuple(" ".join(paragraph.split()) for paragraph in told if paragraph.strip())


def _anchors(ids: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in ids:
        base = f"policy-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:80]}"
        anchor, number = base, 2
        while anchor in taken:
            anchor, number = f"{base}-{number}", number + 1
        taken.add(anchor)
        found[name] = anchor
    return found


def _tested(bundle: PolicyBundle) -> tuple[Mapping[str, Sequence[Tested]], str]:
    if not (bundle.path / "tests").is_dir():
        return {}, "none"
    suite = Suite.load(bundle)
    outcomes = run_suite(suite)
    found: dict[str, list[Tested]] = {}
    for outcome in outcomes:
        case = outcome.case
        place = f"{case.file.name}:{case.line}"
        told = Tested("allow" if case.allowed else "deny", case.title, place, outcome.passed)
        for policy in case.by:
            found.setdefault(policy, []).append(told)
    passed = sum(outcome.passed for outcome in outcomes)
    return found, f"{passed} of {len(outcomes)} cases pass"


def _agents(bundle: PolicyBundle) -> tuple[Agent, ...]:
    declared = Declared(bundle.entities)
    found = []
    for name in sorted(declared.agents):
        groups = sorted(group for _, group in declared.above((AGENT, name)))
        attrs = declared.entities[AGENT, name].get("attrs", {})
        found.append(Agent(name, tuple(groups), _id(attrs.get("tenant")), _id(attrs.get("trust"))))
    return tuple(found)


def _id(value: Any) -> str:
    return str(value.get("__entity", value).get("id", "")) if isinstance(value, Mapping) else ""


def _description(subject: Subject) -> str:
    try:
        told = tomllib.loads(subject.text("bundle.toml")).get("description", "")
    except (tomllib.TOMLDecodeError, BundleError):
        return ""
    return told if isinstance(told, str) else ""
