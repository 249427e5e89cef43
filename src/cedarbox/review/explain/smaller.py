"""Whether a smaller change than the one that was found turns a decision around, as a solver sees it.

The search tries some requests; the solver speaks of all that cedarbox can make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from math import comb
from typing import Any, Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.policy.schema import schema_text
from cedarbox.review.explain.backward import Given, Missing, arguments_from, plain
from cedarbox.review.explain.flips import Flip, changed
from cedarbox.review.prove import (
    Allows,
    And,
    Answer,
    Goal,
    Holds,
    Not,
    Or,
    PrincipalIs,
    Prover,
    Query,
    Side,
    Witness,
    available,
    environments,
)
from cedarbox.review.syntax import schema_json

__all__ = ["Smaller", "smaller"]

Est = Mapping[str, Any]

_MOST: Final = 150
"""Sets of things that may change together, in one question."""


@dataclass(frozen=True)
class Smaller:
    """What a solver says of changes of at most a size.

    Attributes:
        flip: Such a change; None when there is none, or it is not known.
        none: It is proved that there is none.
        words: That, in one sentence.
    """

    flip: Flip | None
    none: bool
    words: str


def smaller(
    engine: PolicyEngine,
    principal: str,
    made: Action,
    *,
    allowed: bool,
    most: int | None,
    time_limit_s: float,
) -> Smaller:
    """Ask a solver for a change that turns a decision around.

    Args:
        engine: The policies.
        principal: The agent that asks.
        made: The request.
        allowed: The decision as it is.
        most: How much may change at most, see :func:`cedarbox.review.explain.flips.changed`; None for all of it.
        time_limit_s: For each search.
    """
    if missing := available():
        return Smaller(None, none=False, words=f"No solver is installed to prove more: {missing}.")
    turned: Goal = Not(Allows("policies")) if allowed else Allows("policies")
    schema = schema_json(schema_text())
    if most is not None:
        near = _near(principal, made, _things(made.name, schema), most)
        if near is None:
            return Smaller(None, none=False, words="That is too much for the solver.")
        turned = And(turned, near)
    sides = {"policies": Side.of_bundle(engine.bundle)}
    asked = [Query(turned, each, sides) for each in environments(schema) if each.action_id == made.name]
    with Prover(schema_text(), time_limit_s=time_limit_s, schema=schema) as prover:
        answers = prover.search_all(asked)
    return _told(engine, principal, made, answers, allowed=allowed, most=most)


def _told(
    engine: PolicyEngine, principal: str, made: Action, answers: Sequence[Answer], *, allowed: bool, most: int | None
) -> Smaller:
    solver = " and ".join(sorted({answer.solver for answer in answers if answer.solver}))
    for answer in answers:
        flip = None if answer.witness is None else _flip(engine, principal, made, answer.witness, allowed=allowed)
        # What is told to the solver must never be the only measure of what counts as a change.
        if flip is not None and (most is None or len(flip.seen) <= most):
            return Smaller(flip, none=False, words=f"Found by {answer.solver}.")
    if all(answer.verdict == "none" for answer in answers):
        return Smaller(None, none=True, words=f"Proved by {solver}.")
    why = next((answer.why for answer in answers if answer.verdict == "undecided" and answer.why), "")
    return Smaller(None, none=False, words=f"The solver did not decide{f': {why}' if why else ''}.")


def _flip(engine: PolicyEngine, principal: str, made: Action, witness: Witness, *, allowed: bool) -> Flip | None:
    """Return what a solver found as a change; None when the builders do not make it or Cedar says otherwise."""
    entities = {}
    for item in witness.entities:
        uid = plain(item["uid"])
        entities[uid[0], uid[1]] = item
    kind, name = plain(dict(witness.resource))
    try:
        values, other = arguments_from(Given(made.name, name, kind, witness.context, entities))
    except (Missing, CanonicalizationError, ValueError, KeyError, TypeError, AttributeError):
        return None
    decision = engine.decide(witness.principal["id"], other)
    # To make a request fail is no way to have it denied.
    if decision.allowed is allowed or decision.errors:
        return None
    seen = changed(principal, made, witness.principal["id"], other)
    return Flip(witness.principal["id"], values, other, {}, seen, decision)


def _things(action: str, schema: Mapping[str, Any]) -> list[str]:
    """Return all that can change of a request with an action."""
    attributes = schema["Sandbox"]["actions"][action]["appliesTo"]["context"]["attributes"]
    names = {"context.ip" if name == "ipClass" else f"context.{name}" for name in attributes if name != "base"}
    return ["principal", "resource", *sorted(names), *(f"context.base.{name}" for name in _BASE)]


_BASE: Final = ("agent", "at", "backend", "tool")


def _near(principal: str, made: Action, things: Sequence[str], most: int) -> Goal | None:
    """Return that at most so many things are different."""
    if comb(len(things), min(most, len(things))) > _MOST:
        return None
    same = {name: _same(name, principal, made) for name in things}
    sets = combinations(things, min(most, len(things)))
    return Or(*(And(*(same[name] for name in things if name not in free)) for free in sets))


def _same(name: str, principal: str, made: Action) -> Goal:
    if name == "principal":
        return PrincipalIs(principal)
    if name == "resource":
        resource: Est = {"Var": "resource"}
        wanted: list[Est] = [_equal(resource, made.resource.ref)]
        if made.resource.type == "Image":
            # What the id of an image does not tell: the repository, and that there is no digest.
            wanted += [{"in": {"left": resource, "right": {"Value": each.ref}}} for each in made.resource.parents]
            wanted += _held(resource, "digest", (made.resource.attrs or {}).get("digest"))
        for attribute, value in sorted((made.resource.attrs or {}).items()):
            wanted += _held(resource, attribute, value)
        return Holds(_all(wanted))
    path = name.split(".")[1:]
    held: Any = made.context
    node: Est = {"Var": "context"}
    for step in path[:-1]:
        held, node = held[step], {".": {"left": node, "attr": step}}
    names = [path[-1], *(["ipClass"] if name == "context.ip" else [])]
    same = [part for each in names for part in _held(node, each, held.get(each))]
    for other in made.others if name == "context.endpoint" else ():
        for attribute, value in sorted((other.attrs or {}).items()):
            same += _held({".": {"left": node, "attr": path[-1]}}, attribute, value)
    return Holds(_all(same))


def _held(node: Est, name: str, value: Any) -> Iterator[Est]:
    """Yield that an attribute has a value, or is absent for None."""
    has: Est = {"has": {"left": node, "attr": name}}
    if value is None:
        yield {"!": {"arg": has}}
        return
    yield has
    inner: Est = {".": {"left": node, "attr": name}}
    if isinstance(value, Mapping) and not {"__entity", "__extn"} & value.keys():
        # The one record with attributes that may be absent.
        for part in ("method", "path", "upgrade"):
            yield from _held(inner, part, value.get(part))
    else:
        yield _equal(inner, value)


def _equal(node: Est, value: Any) -> Est:
    right: Est = {"Value": value}
    if isinstance(value, Mapping) and "__extn" in value:
        right = {value["__extn"]["fn"]: [{"Value": value["__extn"]["arg"]}]}
    return {"==": {"left": node, "right": right}}


def _all(parts: Sequence[Est]) -> Est:
    return reduce(lambda left, right: {"&&": {"left": left, "right": right}}, parts)
