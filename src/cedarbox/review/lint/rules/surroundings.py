"""Rules about what stands around the policies: entities (S070), the backend (S071), tests (S080)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cedarbox.policy.endpoints import Endpoint, Endpoints
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.protocols import Kind, kinds_of_proto
from cedarbox.policy.regions import Box, Ranges, Targets
from cedarbox.review.coverage import measure
from cedarbox.review.finding import Place
from cedarbox.review.json_places import entity_places
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Hit, LintRule
from cedarbox.review.subject import shown

__all__ = ["RULES"]

_DECLARED: Final = frozenset({"Agent", "AgentGroup", "Tenant"})
# What BoxLite opens for a listed name, to public addresses only (measured on 0.10.8).
_CARD: Final = ((443, "tls"), (80, "http"))


def _entities(context: Context) -> Iterator[Hit]:
    if context.subject.bundle is None:
        yield from _plain_entities(context)
        return
    file = shown(context.subject.root / "entities.json")
    at = entity_places(file, context.subject.files.get("entities.json", b"[]").decode())
    declared = {
        (str(item["uid"]["type"]).removeprefix(f"{NAMESPACE}::"), str(item["uid"]["id"]))
        for item in context.subject.entities
    }
    named: set[tuple[str, str]] = set()
    for policy in context.policies:
        for literal in context.literals(policy):
            if literal.kind not in _DECLARED:
                continue
            named.add((literal.kind, literal.id))
            if (literal.kind, literal.id) not in declared:
                message = f'names {literal.kind}::"{literal.id}", which entities.json does not declare'
                yield Hit(message, policy, literal.path, key=f"{literal.kind} {literal.id}")
    used = set(named)
    for item in context.subject.entities:
        kind, name = str(item["uid"]["type"]), str(item["uid"]["id"])
        for parent in item.get("parents", ()):
            uid = parent.get("__entity", parent)
            above = (str(uid["type"]).removeprefix(f"{NAMESPACE}::"), str(uid["id"]))
            if above not in declared:
                message = f'{name!r} is in {above[0]}::"{above[1]}", which is not declared'
                yield Hit(message, place=at.get((kind, name), Place(file)), key=f"parent {name} {above}")
            # A group counts as used where a policy names one that it is in.
            if (above[0], above[1]) in named:
                used.add((kind.removeprefix(f"{NAMESPACE}::"), name))
    yield from (
        Hit(
            f'no policy names AgentGroup::"{name}"',
            place=at.get((f"{NAMESPACE}::{kind}", name), Place(file)),
            key=f"group {name}",
            severity="note",
        )
        for kind, name in sorted(declared - used)
        if kind == "AgentGroup"
    )


def _plain_entities(context: Context) -> Iterator[Hit]:
    declared = {(str(item["uid"]["type"]), str(item["uid"]["id"])) for item in context.subject.entities}
    if not declared:
        return
    kinds = {kind for kind, _ in declared}
    for policy in context.policies:
        for literal in context.literals(policy):
            if literal.type in kinds and (literal.type, literal.id) not in declared:
                message = f'names {literal.type}::"{literal.id}", which the entities do not declare'
                yield Hit(message, policy, literal.path, key=f"{literal.type} {literal.id}", severity="note")


def _backend(context: Context) -> Iterator[Hit]:
    card = context.options.egress == "nic"
    told: set[str] = set()
    for listed in context.endpoints.values():
        for entry in listed.entries:
            why = _beyond_card(listed, entry) if card else _beyond_broker(entry)
            if why and entry.policy not in told:
                told.add(entry.policy)
                yield Hit(f"cannot be enforced exactly: {why}", context.subject.by_id[entry.policy])


def _beyond_broker(entry: Endpoint) -> str:
    return "the broker carries no UDP" if entry.box.kinds == {Kind("udp")} else ""


def _beyond_card(listed: Endpoints, entry: Endpoint) -> str:
    targets = entry.box.targets
    if not entry.exact:
        return "it depends on more than a network card can be told"
    if targets.addresses:
        return "a network card opens every port of an address, and UDP"
    for name, (here, below) in targets.rules.items():
        if below:
            return "a network card is told host names, one by one"
        if not here:
            continue
        for port, proto in _CARD:
            box = Box(Targets.host(name), Ranges.of([(port, port)]), kinds_of_proto(proto), frozenset({"public"}))
            if not listed.permits(box):
                return f"a network card opens {proto} on port {port} of {name} to public addresses too"
    return ""


def _tests(context: Context) -> Iterator[Hit]:
    bundle = context.subject.bundle
    if bundle is None:
        return
    if not (bundle.path / "tests").is_dir():
        place = Place(shown(bundle.path / "bundle.toml"))
        yield Hit(
            "the bundle has no test cases", place=place, hint="write tests/*.yaml, see --explain S080", key="none"
        )
        return
    outcomes = context.outcomes
    if outcomes is None:
        error = context.unusable_tests
        place = Place(shown(error.path if error else bundle.path), (error and error.line) or 1)
        why = f": {error.message}" if error else ""
        hint = "see cedarbox policy test"
        yield Hit(f"the test cases cannot be used{why}", place=place, hint=hint, severity="error", key="unusable")
        return
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        first = failed[0].case
        yield Hit(
            f"{len(failed)} of {len(outcomes)} test cases fail, and say nothing about the policies",
            place=Place(shown(first.file), first.line),
            hint="run cedarbox policy test",
            key="failing",
        )
    for covered in measure(bundle.policies, outcomes):
        if covered.both_ways:
            continue
        policy = context.subject.by_id[covered.policy.id]
        which = "decided without it" if covered.decides else "determined by it"
        yield Hit(f"no test case is {which}", policy, key=which)


RULES: Final = (
    LintRule(
        "S070",
        "undeclared-entity",
        "warning",
        "An agent, group or tenant that is not declared, or a group that no policy names",
        "correct the name, or declare it in entities.json",
        "text",
        _entities,
        sandbox=False,
    ),
    LintRule(
        "S071",
        "not-enforceable",
        "error",
        "A permit of connections that the backend cannot enforce exactly",
        "narrow it to what the backend can enforce",
        "meaning",
        _backend,
    ),
    LintRule(
        "S080",
        "untested",
        "warning",
        "A policy that no test case shows at work, or none shows at rest",
        "write a case that it decides, and one that is decided without it",
        "tests",
        _tests,
    ),
)
"""The rules."""
