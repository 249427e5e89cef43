"""Whether a list opens nothing that the policies do not permit, and what it leaves closed that they do.

Three ways, and none is believed against another: the arithmetic of regions, which is exact where it says yes; Cedar,
asked about single connections from the corners of what an entry opens; and, where a solver is installed, a proof for
every connection. What none of them shows is *not proved*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Final, Literal

from cedarbox.policy import PolicyEngine
from cedarbox.policy.endpoints import Endpoint, Endpoints
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.regions import Box, TooLargeError, difference
from cedarbox.policy.schema import schema_text
from cedarbox.review.allowlist.cedar import policy_of
from cedarbox.review.allowlist.forms import Entry
from cedarbox.review.allowlist.points import SPELT, connections, told
from cedarbox.review.prove import Allows, And, Environment, Not, PrincipalIs, Prover, Query, Side, available

__all__ = ["Left", "Verdict", "judge", "left_closed"]

_POINTS: Final = 60
"""Connections of one entry that Cedar is asked about."""
_WITNESSES: Final = 100
"""Connections that are tried to show one that is wrong, or one that stays closed."""

_FEW: Final = 25
"""Of one box, where there are many."""

Said = Literal["within", "wider", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one entry.

    Attributes:
        entry: The entry.
        said: All that it opens is permitted, something is not, or that could not be decided.
        how: How that is known, or why not.
        witness: A connection that it opens and the policies deny; empty when there is none.
        reason: Why they deny it.
    """

    entry: Entry
    said: Said
    how: str
    witness: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """What the policies permit and the list leaves closed.

    Attributes:
        policy: Id of the policy.
        witness: Such a connection, which Cedar permits; empty when none was found.
    """

    policy: str
    witness: str


def judge(
    engine: PolicyEngine, agent: str, found: Endpoints, entries: Sequence[Entry], *, time_limit_s: float
) -> tuple[tuple[Verdict, ...], str]:
    """Hold the entries of a list against the policies.

    Args:
        engine: The policies.
        agent: Id of the agent.
        found: What they permit it, as regions.
        entries: The entries.
        time_limit_s: For the solver, in seconds for each search.

    Returns:
        A verdict for each entry, and what the solver said of the whole list.
    """
    verdicts = [_by_points(engine, agent, entry) or _by_regions(engine, agent, found, entry) for entry in entries]
    if not entries:
        return (), "an empty list opens nothing"
    missing = available()
    if missing:
        return tuple(verdicts), f"no solver: {missing}"
    return _by_solver(engine, agent, verdicts, time_limit_s)


def _by_points(engine: PolicyEngine, agent: str, entry: Entry) -> Verdict | None:
    for box in entry.opens:
        for values, made in islice(connections(box), _POINTS):
            decision = engine.decide(agent, made)
            if not decision.allowed:
                return Verdict(entry, "wider", "Cedar denies a connection that it opens", told(values), decision.reason)
    return None


def _by_regions(engine: PolicyEngine, agent: str, found: Endpoints, entry: Entry) -> Verdict:
    if all(found.permits(box) for box in entry.opens):
        return Verdict(entry, "within", "by regions")
    for box in entry.opens:
        for values, made in islice(_outside(box, found), _WITNESSES):
            decision = engine.decide(agent, made)
            if not decision.allowed:
                return Verdict(entry, "wider", "Cedar denies a connection that it opens", told(values), decision.reason)
    return Verdict(entry, "unknown", "regions cannot tell, and Cedar denies none of the connections that were tried")


def _outside(box: Box, found: Endpoints) -> Iterator[tuple[Mapping[str, Any], Any]]:
    exact = tuple(entry.box for entry in found.entries if entry.exact)
    try:
        rest = difference((box,), exact)
    except TooLargeError:
        rest = (box,)
    for part in rest:
        yield from connections(part)


def _by_solver(
    engine: PolicyEngine, agent: str, verdicts: Sequence[Verdict], time_limit_s: float
) -> tuple[tuple[Verdict, ...], str]:
    bundle = engine.bundle
    opened = {
        f"{number}.{part}": policy_of(box, agent)
        for number, verdict in enumerate(verdicts)
        for part, box in enumerate(verdict.entry.opens)
    }
    sides = {"list": Side(opened, bundle.entities, deny_on_error=True), "policies": Side.of_bundle(bundle)}
    goal = And(PrincipalIs(agent), Allows("list"), Not(Allows("policies")))
    with Prover(schema_text(), time_limit_s=time_limit_s) as prover:
        answers = prover.search_all([Query(goal, environment, sides) for environment in _CONNECT])
    said = list(verdicts)
    for answer in answers:
        if answer.verdict != "found" or answer.witness is None:
            continue
        replayed = answer.witness.sides["list"].policies
        blamed = {int(name.partition(".")[0]) for name in replayed}
        for number in blamed:
            if said[number].said != "wider":
                reason = "; ".join(answer.witness.sides["policies"].policies) or "no policy permits it"
                said[number] = Verdict(
                    said[number].entry,
                    "wider",
                    f"a solver found a connection ({answer.solver})",
                    answer.witness.told(),
                    reason,
                )
    if any(answer.verdict == "found" for answer in answers):
        return tuple(said), "the solver found a connection that the list opens and the policies deny"
    if all(answer.verdict == "none" for answer in answers):
        solver = " and ".join(sorted({answer.solver for answer in answers}))
        # A proof about all connections holds for those of each entry.
        proved = [
            Verdict(each.entry, "within", f"{each.how} and proved" if each.said == "within" else "proved")
            if each.said != "wider"
            else each
            for each in said
        ]
        return tuple(proved), f"proved by {solver}: no connection is opened by the list and denied by the policies"
    return tuple(
        said
    ), f"the solver did not decide: {next(answer.why for answer in answers if answer.verdict == 'undecided')}"


_CONNECT: Final = tuple(
    Environment(f"{NAMESPACE}::Agent", f'{NAMESPACE}::Action::"connect"', f"{NAMESPACE}::{kind}")
    for kind in ("Host", "Address")
)


def left_closed(engine: PolicyEngine, agent: str, found: Endpoints, entries: Sequence[Entry]) -> tuple[Left, ...]:
    """Return what the policies permit and a list leaves closed, one for each policy.

    Args:
        engine: The policies.
        agent: Id of the agent.
        found: What they permit it.
        entries: The list.
    """
    opened = tuple(box for entry in entries for box in entry.opens)
    left: dict[str, Left] = {}
    for endpoint in found.entries:
        known = left.get(endpoint.policy)
        if known is not None and known.witness:
            continue
        rest = _rest(endpoint, opened)
        if rest:
            left[endpoint.policy] = Left(endpoint.policy, _permitted(engine, agent, rest))
    return tuple(left.values())


def _rest(endpoint: Endpoint, opened: tuple[Box, ...]) -> tuple[Box, ...]:
    try:
        rest = difference((endpoint.box,), opened)
    except TooLargeError:
        rest = (endpoint.box,)
    # No request has an address that only spells another.
    real = (replace(box, ips=box.ips - SPELT) for box in rest)
    return tuple(box for box in real if box)


def _permitted(engine: PolicyEngine, agent: str, rest: Sequence[Box]) -> str:
    some = (islice(connections(box), _FEW) for box in rest)
    for values, made in islice(chain.from_iterable(some), _WITNESSES):
        if engine.decide(agent, made).allowed:
            return told(values)
    return ""
