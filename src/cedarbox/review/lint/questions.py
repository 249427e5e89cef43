"""What the rules ask the prover: what neither regions nor requests that were tried have decided already.

Each question is about one policy and one kind of request at a time. What is left out here is left out for a reason
that holds for every request: a condition that plainly asks for the opposite, scopes that cannot meet, a decision that
was seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

import cedarpy

from cedarbox.policy.canonical import ancestors
from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.arguments import arguments_of
from cedarbox.review.lint.agents import OUTSIDER
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.options import ISOLATIONS
from cedarbox.review.lint.rules.connect import NEVER
from cedarbox.review.lint.rules.intelligence import LOCAL_KINDS, local_only
from cedarbox.review.lint.rules.logic import binding, can_fail
from cedarbox.review.lint.rules.storage import SENSITIVE, asks_for_no_link, why_sensitive
from cedarbox.review.lint.scopes import Scope
from cedarbox.review.lint.wording import listed
from cedarbox.review.prove import Allows, And, Environment, Fails, Goal, Holds, Matches, Not, PrincipalIs, Query, Side
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["Question", "questions"]

_SIDE: Final = "policies"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        rule: Id of the rule that asks.
        policy: The policy that it is about.
        queries: The searches.
        tells: It is a finding when some search finds a request, or when each is proved to find none.
        message: What the finding says then; the request is added.
        unknown: What is not known when it is not decided: ``whether …``.
        hint: What to do.
        key: As of a hit.
        drops: It does not make a finding, it takes away the one that the rule has: when it ends as ``tells`` says.
    """

    rule: str
    policy: ReviewedPolicy
    queries: tuple[Query, ...]
    tells: Literal["found", "none"]
    message: str
    unknown: str
    hint: str = ""
    key: str = ""
    drops: bool = False


@dataclass
class _Asker:
    context: Context
    found: frozenset[tuple[str, str]]
    environments: Sequence[Environment]
    sides: dict[str, Side] = field(default_factory=dict)
    scopes: dict[int, Scope] = field(default_factory=dict)

    def questions(self) -> Iterator[Question]:
        yield from self._unlimited()
        yield from self._failing()
        yield from self._useless()
        if self.context.subject.bundle is not None:
            yield from self._sandbox()

    def _side(self, environment: Environment) -> Side:
        name = environment.action
        if name not in self.sides:
            subject = self.context.subject
            ours = subject.bundle is not None
            chosen = {
                policy.id: policy.est
                for policy in subject.policies
                if not policy.template and (not ours or environment.action_id in self.context.actions_of(policy))
            }
            entities = self.context.reviewed_entities if ours else subject.entities
            self.sides[name] = Side(chosen, entities, (), deny_on_error=ours)
        return self.sides[name]

    def _of(self, policy: ReviewedPolicy, *actions: str) -> list[Environment]:
        """Return the kinds of request that a policy can be about."""
        found = []
        for environment in self.environments:
            known = self.context.actions_of(policy) if self.context.subject.bundle is not None else None
            if known is not None and environment.action_id not in known:
                continue
            if known is None and not _names_action(policy.est["action"], environment):
                continue
            if actions and environment.action_id not in actions:
                continue
            if not all(
                _is_of(policy.est[part], kind)
                for part, kind in (("principal", environment.principal_type), ("resource", environment.resource_type))
            ):
                continue
            found.append(environment)
        return found

    def _ask(
        self, rule: str, policy: ReviewedPolicy, goal: Goal, texts: tuple[str, str], *actions: str, **more: Any
    ) -> Iterator[Question]:
        if (rule, policy.id) in self.found and not more.get("drops"):
            return
        tells: Literal["found", "none"] = more.pop("tells", "found")
        made = tuple(
            Query(_on(goal, side), environment, {_SIDE: side}, f"{rule} {policy.id}")
            for environment in self._of(policy, *actions)
            for side in (self._side(environment),)
        )
        if made:
            yield Question(rule, policy, made, tells, *texts, **more)

    def _unlimited(self) -> Iterator[Question]:
        for policy in self._static("permit"):
            if self.context.kinds.everything(policy.est):
                texts = ("permits every action on everything: its conditions are always met", "whether it permits all")
                yield from self._ask("S001", policy, Not(Matches(_SIDE, policy.id)), texts, tells="none")
            scope = policy.est["principal"]
            if self.context.subject.bundle is not None and scope["op"] in {"All", "is"} and "in" not in scope:
                goal = And(Matches(_SIDE, policy.id), PrincipalIs(OUTSIDER))
                texts = ("permits to agents that are in no group", "whether it is for agents in no group")
                yield from self._ask("S003", policy, goal, texts)

    def _beside(self, policy: ReviewedPolicy) -> list[ReviewedPolicy]:
        """Return the other policies of the same effect that can match what a policy matches.

        Nothing is covered by what another finding says to remove.
        """
        mine = self._scope(policy)
        return [
            other
            for other in self._static(policy.effect)
            if other is not policy
            and self.found.isdisjoint({("S060", other.id), ("S061", other.id)})
            and mine.may_meet(self._scope(other))
            and not binding(policy)
            and not binding(other)
        ]

    def _scope(self, policy: ReviewedPolicy) -> Scope:
        if id(policy) not in self.scopes:
            self.scopes[id(policy)] = Scope.of(policy)
        return self.scopes[id(policy)]

    def _static(self, *effects: str) -> Iterator[ReviewedPolicy]:
        for policy in self.context.policies:
            if policy.effect in effects and not policy.template:
                yield policy

    def _failing(self) -> Iterator[Question]:
        for policy in self._static("permit", "forbid"):
            if (("S063", policy.id) in self.found) and can_fail(self.context, policy):
                texts = ("", "whether it can fail to evaluate")
                yield from self._ask("S063", policy, Fails(_SIDE, policy.id), texts, tells="none", drops=True)

    def _useless(self) -> Iterator[Question]:
        seen = self.context.seen
        for policy in self._static("permit", "forbid"):
            matches = Matches(_SIDE, policy.id)
            if policy.id not in seen.matched and ("S011", policy.id) not in self.found:
                texts = ("matches no request: proved for every kind of request", "whether any request matches it")
                yield from self._ask("S060", policy, matches, texts, tells="none")
            if ("S060", policy.id) in self.found:
                continue
            others = () if policy.id in seen.alone else self._beside(policy)
            if others:
                goal = And(matches, *(Not(Matches(_SIDE, other.id)) for other in others))
                names = listed([repr(other.id) for other in others]) if len(others) <= 3 else "others"
                word = "permits" if policy.effect == "permit" else "forbids"
                texts = (f"{word} nothing that {names} do not: proved", "whether it does anything that others do not")
                yield from self._ask(
                    "S061", policy, goal, texts, tells="none", hint="remove it, or what covers it", key="proved"
                )
            ours = self.context.subject.bundle is not None
            mine = self._scope(policy)
            forbids = any(mine.may_meet(self._scope(other)) for other in self._static("forbid"))
            if policy.effect == "permit" and ours and forbids and policy.id not in seen.allowing:
                texts = ("permits nothing: forbids deny all of it, proved", "whether forbids override all of it")
                yield from self._ask("S062", policy, And(Allows(_SIDE), matches), texts, tells="none", key="proved")

    def _sandbox(self) -> Iterator[Question]:
        for policy in self.context.permits("connect"):
            for each in self.context.open:
                if each.policy is policy and each.rule in {"S013", "S015"}:
                    test = _classes() if each.rule == "S013" else _HIDDEN
                    texts = (_OPEN[each.rule], each.question)
                    yield from self._ask(each.rule, policy, self._let(policy, test), texts, "connect")
        yield from self._storage()
        kinds = sorted(arguments_of("invokeTool")["kind"].members - LOCAL_KINDS)
        hosted = f"[{', '.join(_entity('ToolKind', kind) for kind in kinds)}].contains(resource.kind)"
        for policy in self.context.permits("invokeTool"):
            if not local_only(policy.est):
                texts = ("permits a tool that runs where nobody here sees it", "whether it permits hosted tools")
                yield from self._ask("S030", policy, self._let(policy, hosted), texts, "invokeTool")
        capabilities = self.context.options.sensitive_capabilities
        if capabilities:
            members = ", ".join(_entity("Capability", name) for name in capabilities)
            test = f"principal.trust == {_entity('Trust', 'untrusted')} && resource in [{members}]"
            for policy in self.context.permits("useCapability"):
                texts = ("gives an untrusted agent a sensitive capability", "whether it gives a sensitive capability")
                yield from self._ask("S031", policy, self._let(policy, test), texts, "useCapability")
        for policy in self.context.permits("exposePort"):
            texts = ("publishes a port of the guest to other machines", "whether it publishes ports")
            yield from self._ask("S018", policy, self._let(policy, "context.public"), texts, "exposePort")
        yield from self._created()

    def _created(self) -> Iterator[Question]:
        weak = ISOLATIONS[: ISOLATIONS.index(self.context.options.isolation_floor)]
        tests = [("digest", "!(resource has digest)", "an image that no digest pins")]
        if weak:
            members = ", ".join(_entity("Isolation", name) for name in weak)
            tests.append(("isolation", f"[{members}].contains(context.isolation)", "a weaker isolation than the floor"))
        open_egress = f"context.egress == {_entity('Egress', 'unrestricted')}"
        tests.append(("egress", open_egress, "a backend that lets everything out"))
        if self.context.options.require_signed_images:
            tests.append(("signed", "!resource.signed", "an image whose signature nobody verified"))
        for policy in self.context.permits("create", "resume"):
            for key, test, what in tests:
                texts = (f"permits a sandbox with {what}", f"whether it permits {what}")
                goal = self._let(policy, test)
                yield from self._ask("S040", policy, goal, texts, "create", "resume", key=key)

    def _storage(self) -> Iterator[Question]:
        more = self.context.options.sensitive_paths
        trees = ", ".join(_entity("HostPath", path) for path in (*SENSITIVE, "/root", *more))
        tops = ", ".join(_entity("HostPath", path) for path in _tops((*SENSITIVE, *more)))
        sensitive = f"resource in [{trees}] || [{tops}].contains(resource)"
        for policy in self.context.permits("mountWrite"):
            if not _elsewhere(policy, more):
                texts = (
                    "lets a sandbox write a sensitive directory of the host",
                    "whether it holds sensitive paths",
                )
                yield from self._ask("S020", policy, self._let(policy, sensitive), texts, "mountWrite")
        for name in ("mountRead", "mountWrite"):
            for policy in self.context.permits(name):
                if not asks_for_no_link(policy):
                    texts = ("permits a mount whose path goes through a symbolic link", "whether links are permitted")
                    yield from self._ask("S021", policy, self._let(policy, "context.isSymlink"), texts, name)

    def _let(self, policy: ReviewedPolicy, test: str) -> Goal:
        return And(Allows(_SIDE), Matches(_SIDE, policy.id), Holds(_expression(test), _SIDE))


_HIDDEN: Final = (
    f'context has hello && [{NAMESPACE}::Hello::"unnamed", {NAMESPACE}::Hello::"encrypted"].contains(context.hello)'
)
_OPEN: Final = {
    "S013": "lets a sandbox reach metadata, loopback or link-local addresses",
    "S015": "permits TLS that does not name its target",
}


def questions(
    context: Context, found: frozenset[tuple[str, str]], environments: Sequence[Environment]
) -> Iterator[Question]:
    """Yield what is to be asked.

    Args:
        context: What was looked at.
        found: Rule and policy of every finding so far.
        environments: Every kind of request of the schema.
    """
    yield from _Asker(context, found, environments).questions()


def _on(goal: Goal, side: Side) -> Goal:
    """Return a goal without what it says of policies that no request of this kind is about: they never match."""
    if not isinstance(goal, And):
        return goal
    kept = [
        each
        for each in goal.goals
        if not (isinstance(each, Not) and isinstance(each.goal, Matches) and each.goal.policy not in side.policies)
    ]
    return And(*kept)


def _entity(kind: str, name: str) -> str:
    return f"{NAMESPACE}::{kind}::{json.dumps(name, ensure_ascii=False)}"


def _classes() -> str:
    return f"[{', '.join(_entity('IpClass', name) for name in sorted(NEVER))}].contains(context.ipClass)"


@cache
def _expression(text: str) -> Mapping[str, Any]:
    document = json.loads(cedarpy.policies_to_json_str(f"permit(principal, action, resource) when {{ {text} }};"))
    body: Mapping[str, Any] = next(iter(document["staticPolicies"].values()))["conditions"][0]["body"]
    return body


def _tops(paths: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(above for path in paths for above in ancestors(path) if above != path))


def _elsewhere(policy: ReviewedPolicy, more: tuple[str, ...]) -> bool:
    """Whether its scope names a directory in which nothing sensitive is, and which is in nothing sensitive."""
    scope = policy.est["resource"]
    uid = scope.get("entity") or scope.get("in", {}).get("entity")
    if uid is None or uid["type"] != f"{NAMESPACE}::HostPath":
        return False
    return not why_sensitive(str(uid["id"]), more)


def _names_action(scope: Mapping[str, Any], environment: Environment) -> bool:
    if scope["op"] == "All" or scope["op"] == "in":
        return True
    uid = scope["entity"]
    return bool(uid == {"type": environment.action_type, "id": environment.action_id})


def _is_of(scope: Mapping[str, Any], kind: str) -> bool:
    if "entity_type" in scope:
        return bool(scope["entity_type"] == kind)
    return bool(scope["op"] != "==" or scope.get("entity", {"type": kind})["type"] == kind)
