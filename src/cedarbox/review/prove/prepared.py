"""From a question to what a solver is asked: one formula for each class of principals, as small as it can be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cedarbox.review.prove.agents import Principals, classes_of, named_in
from cedarbox.review.prove.bundled import BundleWorld
from cedarbox.review.prove.facts import say_facts
from cedarbox.review.prove.goals import Environment, Goal, Side
from cedarbox.review.prove.problem import Problem
from cedarbox.review.prove.simplify import simplified
from cedarbox.review.prove.smt import Script, grounded, script
from cedarbox.review.prove.terms import Term, Terms, reachable
from cedarbox.review.prove.types import SchemaTypes
from cedarbox.review.prove.values import Values
from cedarbox.review.prove.worlds import World

__all__ = ["Prepared", "prepared", "Problems"]


@dataclass(frozen=True)
class Prepared:
    """One formula.

    Attributes:
        script: What a solver is asked.
        leaves: What it is to give the values of, in the order of the script.
        principal: The principal; None for any.
        skipped: What is not encoded and matters, in one line; empty when all is.
    """

    script: Script
    leaves: tuple[Term, ...]
    principal: str | None
    skipped: str


@dataclass(frozen=True)
class Problems:
    """The sides of a question, for each class of principals.

    Attributes:
        values: Made the values.
        each: One for each class.
    """

    values: Values
    each: tuple[Problem, ...]

    @classmethod
    def of(
        cls, types: SchemaTypes, environment: Environment, sides: Mapping[str, Side], goal: Goal, *, bundles: bool
    ) -> Problems:
        """Make them.

        Args:
            types: The schema.
            environment: The kind of request.
            sides: The policies, by name.
            goal: What principals it names.
            bundles: The sides are bundles of cedarbox.
        """
        values = Values(Terms(), types)
        if not bundles:
            world = World(values)
            return cls(values, (Problem(values, environment, sides, dict.fromkeys(sides, world), tuple(sides)),))
        say_facts(values, environment)
        known: list[tuple[Sequence[Mapping[str, object]], Principals]] = []
        declared: dict[str, Principals] = {}
        for name, side in sides.items():
            same = next((each for entities, each in known if entities == side.entities), None)
            declared[name] = same or Principals(side.entities)
            if same is None:
                known.append((side.entities, declared[name]))
        named = named_in(sides.values(), goal)
        made = []
        for agent in classes_of([each for _, each in known], named):
            worlds = {id(each): BundleWorld(values, environment, each, agent) for _, each in known}
            by_side = {name: worlds[id(declared[name])] for name in sides}
            with_agent = tuple(name for name in sides if agent in declared[name].agents)
            made.append(Problem(values, environment, sides, by_side, with_agent, principal=agent))
        return cls(values, tuple(made))


def prepared(problems: Problems, goal: Goal, *, simplify: bool = True) -> list[Prepared]:
    """Return what solvers are to be asked; nothing when it is plain that there is no such request.

    Args:
        problems: The sides.
        goal: The goal.
        simplify: Make them small first; without it, what is not false by itself is left to the solvers.

    Raises:
        KeyError: It names a side or a policy that there is not.
        UnsupportedError: Something cannot be told to a solver.
    """
    terms = problems.values.terms
    found: dict[Term, Prepared] = {}
    for problem in problems.each:
        if simplify and problem.outline(goal) is terms.false:
            continue
        term = problem.term(goal)
        if term is terms.false or term in found:
            continue
        small = simplified(terms, term) if simplify else term
        if small is terms.false or small in found:
            continue
        written = script(grounded(problems.values, small))
        found[small] = Prepared(written, tuple(written.leaves), problem.principal, _skipped(problem, small))
    return list(found.values())


def _skipped(problem: Problem, term: Term) -> str:
    known = problem.skipped()
    found = dict.fromkeys(known[each.value] for each in reachable([term]) if each.op == "var" and each.value in known)
    return "; ".join(found)
