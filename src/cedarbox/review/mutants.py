"""Small changes of a bundle that its tests must notice.

A test that passes with and without a policy says nothing about it. So each policy is changed, one small step at a time,
in Cedar's JSON form, and some test must fail for each step: a policy is deleted, its scope is widened, a condition or a
part of one is dropped or turned around, a member of a list is left out, a limit is moved by one, a number becomes a
lower limit, a network becomes twice or half as large, a pattern loses the dot or the slash beside its star. The
approval that a permit asks for is dropped, one of its approvers is left out, and so is how long a signature holds.

No test can notice that a type is not asked for where the schema knows no other, so that is not tried.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cedarbox.policy.approval import EXPIRES, REQUIRES, approval_of
from cedarbox.policy.bundle import Policy, PolicyBundle
from cedarbox.review.kinds import RequestKinds
from cedarbox.review.written import cedar_text

__all__ = ["Mutant", "mutants_of"]

_Json = Mapping[str, Any]
_JOINING: Final = frozenset({"&&", "||"})
# `a < b` and `a <= b` differ in one value, which is where limits are got wrong.
_MOVED: Final = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_STAR: Final = "Wildcard"
_SEPARATORS: Final = ({"Literal": "."}, {"Literal": "/"})
_ANY: Final = {"op": "All"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One policy, a little different.

    Attributes:
        policy: The policy that was changed.
        change: What was done to it, in a few words.
        mutated: What it became; None when it was deleted.
    """

    policy: Policy
    change: str
    mutated: Policy | None

    def within(self, bundle: PolicyBundle) -> PolicyBundle:
        """Return the bundle with the change.

        Args:
            bundle: A bundle that has the policy.
        """
        put = () if self.mutated is None else (self.mutated,)
        policies = [each for other in bundle.policies for each in (put if other is self.policy else (other,))]
        return replace(bundle, policies=tuple(policies))


def mutants_of(
    policies: Iterable[Policy], kinds: RequestKinds | None = None, *, approvals: bool = True
) -> Iterator[Mutant]:
    """Yield every mutant of some policies, policy by policy.

    Args:
        policies: The policies.
        kinds: The kinds of request that there are; None when they are not known.
        approvals: The annotations about approvals mean something, as they do in a bundle.
    """
    for policy in policies:
        yield Mutant(policy, "deleted", None)
        told: Counter[str] = Counter()
        for change, changed in _changes(policy, kinds):
            told[change] += 1
            # The same text may stand in a condition twice, and a finding is known by what it tells.
            again = f", place {told[change]}" if told[change] > 1 else ""
            yield Mutant(policy, change + again, changed)
        for change, changed in _approvals(policy) if approvals else ():
            yield Mutant(policy, change, changed)


def _approvals(policy: Policy) -> Iterator[tuple[str, Policy]]:
    approval = approval_of(policy.annotations)
    if approval is None:
        return
    others = {name: value for name, value in policy.annotations.items() if name not in {REQUIRES, EXPIRES}}
    yield "without its approval", replace(policy, annotations=others)
    for name in approval.approvers if len(approval.approvers) > 1 else ():
        rest = ",".join(other for other in approval.approvers if other != name)
        yield f"without the approver {name}", replace(policy, annotations={**policy.annotations, REQUIRES: rest})
    plain = replace(policy, annotations={name: each for name, each in policy.annotations.items() if name != EXPIRES})
    if approval_of(plain.annotations) != approval:
        yield f"without its @{EXPIRES}", plain


def _changes(policy: Policy, kinds: RequestKinds | None) -> Iterator[tuple[str, Policy]]:
    est = policy.est
    for part in ("principal", "resource"):
        if est[part]["op"] != "All" and not (kinds and kinds.imply(est, part)):
            yield f"any {part}", replace(policy, est={**est, part: _ANY})
    named: Sequence[Mapping[str, str]] = est["action"].get("entities", ())
    for uid in named if len(named) > 1 else ():
        action = {**est["action"], "entities": [other for other in named if other is not uid]}
        # The engine asks a policy only about its own actions, and evaluates the scope too, so the latter is enough.
        yield f"without the action {uid['id']}", replace(policy, est={**est, "action": action})
    conditions: Sequence[_Json] = est.get("conditions", ())
    for number, condition in enumerate(conditions):
        for change, put in _condition_changes(condition):
            changed = [*conditions[:number], *put, *conditions[number + 1 :]]
            where = f"condition {number + 1} " if len(conditions) > 1 else "its condition "
            yield where + change, replace(policy, est={**est, "conditions": changed})


def _condition_changes(condition: _Json) -> Iterator[tuple[str, list[_Json]]]:
    body = condition["body"]
    yield "dropped", []
    turned = "unless" if condition["kind"] == "when" else "when"
    yield "turned around", [{**condition, "kind": turned}]
    for change, changed in _body_changes(body):
        yield change, [{**condition, "body": changed}]


def _body_changes(body: Any) -> Iterator[tuple[str, Any]]:
    """Yield an expression with one change, for each change that can be made anywhere in it."""
    if isinstance(body, list):
        for index, member in enumerate(body):
            for change, changed in _body_changes(member):
                yield change, [*body[:index], changed, *body[index + 1 :]]
    elif isinstance(body, Mapping) and "Value" not in body:
        for name, part in body.items():
            if name == "Record":  # Its keys are names, whatever they look like.
                for key, value in part.items():
                    for change, changed in _body_changes(value):
                        yield change, {"Record": {**part, key: changed}}
                continue
            yield from _here(name, part)
            for change, changed in _body_changes(part):
                yield change, {**body, name: changed}


def _here(operator: str, operands: Any) -> Iterator[tuple[str, Any]]:
    """Yield what can be put in the place of one operator with its operands."""
    if operator in _JOINING:
        for side, other in (("left", "right"), ("right", "left")):
            term = operands[side]
            yield f"without {cedar_text(term)}", operands[other]
            if not term.keys() & _JOINING:
                turned = {"!": {"arg": term}}
                yield f"with {cedar_text(turned)}", {operator: {**operands, side: turned}}
    if operator == "Set" and len(operands) > 1:
        for index, member in enumerate(operands):
            yield f"without {cedar_text(member)}", {"Set": [*operands[:index], *operands[index + 1 :]]}
    if operator in _MOVED:
        moved = {_MOVED[operator]: operands}
        yield f"with {cedar_text(moved)}", moved
    if operator in {"==", "isInRange"}:
        yield from ((f"with {cedar_text(wider)}", wider) for wider in _wider(operator, operands))
    if operator == "like":
        for pattern in _unseparated(operands["pattern"]):
            wider = {"like": {**operands, "pattern": pattern}}
            yield f"with {cedar_text(wider)}", wider


def _wider(operator: str, operands: Any) -> Iterator[_Json]:
    """Yield what can be put in the place of a comparison with a number, or of a test whether a network holds it."""
    if operator == "==":
        for side, limit in (("right", ">="), ("left", "<=")):
            # `443 <= port` and `port >= 443` are the same.
            if type(operands[side].get("Value")) is int:
                yield {limit: operands}
    if operator == "isInRange":
        for network in _resized(operands[1]):
            yield {"isInRange": [operands[0], {"ip": [{"Value": network}]}]}


def _resized(network: _Json) -> Iterator[str]:
    """Yield a network that is written out with a bit less and with a bit more."""
    literal = network["ip"][0].get("Value") if "ip" in network else None
    if not isinstance(literal, str):
        return
    try:
        here = ipaddress.ip_network(literal, strict=False)
    except ValueError:  # of what Cedar refuses too, but when the policy is evaluated
        return
    if here.prefixlen > 0:
        yield str(here.supernet())
    if here.prefixlen < here.max_prefixlen:
        yield str(next(iter(here.subnets())))


def _unseparated(parts: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield a pattern without a separator beside a star: without its dot ``*.a.example`` also meets ``ba.example``."""
    for index, part in enumerate(parts):
        beside = [*parts[max(index - 1, 0) : index], *parts[index + 1 : index + 2]]
        # Cedar has a literal for each character. Between two stars it is no border.
        if part in _SEPARATORS and beside.count(_STAR) == 1:
            yield [*parts[:index], *parts[index + 1 :]]
