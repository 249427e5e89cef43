"""The tests of ``cedar run-tests``: read, run as that command runs them, and written.

The format is a JSON array of ``{"name"?, "request", "entities", "decision", "reason", "num_errors"}`` (cedar-policy-cli
4.6 and later). A request has ``principal``, ``action`` and ``resource`` in Cedar's syntax and a ``context``; each test
brings all its entities. A test passes when the decision is that of Cedar, every id of ``reason`` is among the policies
that determine it, and exactly ``num_errors`` policies could not be evaluated. Such a policy is skipped, as Cedar does,
also for the policies of a bundle, where cedarbox would deny. One thing is left to ``policy check --deny-warnings``:
with a schema, that command fails every test when the validator warns of any policy.

A policy is known by its ``@id``, or as ``policyN`` when it has none, where N counts all statements from 0 over the
files in the order of their names: the ids that ``cedar`` gives to the files put together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.policy.bundle import Policy
from cedarbox.review.kinds import RequestKinds
from cedarbox.review.limited import limited_text
from cedarbox.review.mutants import Mutant, mutants_of
from cedarbox.review.satisfied import Candidates, Query
from cedarbox.review.subject import ReviewedPolicy, Subject
from cedarbox.review.syntax import schema_json
from cedarbox.review.syntax.tokens import line_and_column
from cedarbox.review.unnoticed import Asked, unnoticed
from cedarbox.text import printable

__all__ = ["CedarCase", "CedarOutcome", "CedarSuite"]

_MAX_FILE: Final = 64 * 1024 * 1024
_KEYS: Final = ("request", "entities", "decision", "reason", "num_errors")
_GROUP: Final = ""
"""The one group of policies: Cedar asks all of them about each request."""
_MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class CedarCase:
    """One test.

    Attributes:
        file: The file it stands in.
        line: 1-based line where it begins.
        title: Its ``name``, or ``test N`` when it has none; N counts from 1.
        action: The action of its request, in Cedar's syntax.
        request: Its request.
        entities: Its entities.
        allowed: The decision must be *allow*.
        reason: Ids of policies that must be among those that determine it.
        num_errors: How many policies must fail to evaluate.
        named: It has a name.
    """

    file: Path
    line: int
    title: str
    action: str
    request: Mapping[str, Any]
    entities: Sequence[Any]
    allowed: bool
    reason: tuple[str, ...]
    num_errors: int
    named: bool = True

    @property
    def name(self) -> str:
        """What it is called among those of its file."""
        return printable(self.title)[:_MAX_NAME]

    @property
    def id(self) -> str:
        """The file and the name."""
        return f"{self.file.name}::{self.name}"

    def to_json(self) -> dict[str, Any]:
        """Return the test as ``cedar run-tests`` reads it."""
        named = {"name": self.title} if self.named else {}
        return named | {
            "request": dict(self.request),
            "entities": list(self.entities),
            "decision": "allow" if self.allowed else "deny",
            "reason": list(self.reason),
            "num_errors": self.num_errors,
        }


@dataclass(frozen=True, slots=True)
class CedarOutcome:
    """What came of one test.

    Attributes:
        case: The test.
        determined: Ids of the policies that determined the decision; None when there was none.
        problem: What was otherwise than expected; empty for a test that passed.
        seconds: How long the decision took.
    """

    case: CedarCase
    determined: frozenset[str] | None
    problem: str
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """All was as expected."""
        return not self.problem


class CedarSuite:
    """Policies with tests in Cedar's format.

    Args:
        subject: The policies with their schema. Its entities are not used: each test brings its own.
        cases: The tests.
    """

    def __init__(self, subject: Subject, cases: Sequence[CedarCase]) -> None:
        self.subject, self.cases = subject, tuple(cases)
        self.policies = _policies(subject)
        self._schema = cedarpy.Schema.from_str(subject.schema)

    @classmethod
    def load(cls, subject: Subject, path: Path) -> CedarSuite:
        """Read a file of tests.

        Raises:
            BundleError: It cannot be read, or is not of the format.
        """
        return cls(subject, list(_read(path)))

    def run(self, cases: Sequence[CedarCase] | None = None, *, fail_fast: bool = False) -> tuple[CedarOutcome, ...]:
        """Run tests.

        Args:
            cases: Those to run; None for all.
            fail_fast: Stop after the first that does not pass.
        """
        candidates = Candidates(enumerate(self.policies))
        outcomes = []
        for case in self.cases if cases is None else cases:
            outcomes.append(self._outcome(candidates, case))
            if fail_fast and not outcomes[-1].passed:
                break
        return tuple(outcomes)

    def survivors(self) -> tuple[tuple[Mutant, ...], int]:
        """Return the changes of the policies that every test passes with, and how many were made. All tests pass."""
        kinds = RequestKinds.of(schema_json(self.subject.schema))
        mutants = list(mutants_of(self.policies, kinds, approvals=False))
        asked = [Asked(_GROUP, partial(self._query, case), _checker(case)) for case in self.cases]
        return tuple(unnoticed(self.policies, mutants, asked)), len(mutants)

    def _query(self, case: CedarCase) -> Query:
        entities = cedarpy.Entities.from_json_str(json.dumps(case.entities), self._schema)
        return Query(case.request, entities, self._schema, None)

    def _outcome(self, candidates: Candidates, case: CedarCase) -> CedarOutcome:
        started = time.perf_counter()
        try:
            query = self._query(case)
            answer = cedarpy.is_authorized(dict(case.request), candidates.whole, query.entities, self._schema)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            return CedarOutcome(case, None, f"the test cannot be run: {_line(error)}")
        seconds = time.perf_counter() - started
        if answer.decision is cedarpy.Decision.NoDecision:
            told = "; ".join(_line(error) for error in answer.diagnostics.errors) or "no decision"
            return CedarOutcome(case, None, f"the test cannot be run: {told}", seconds)
        ids = frozenset(self.policies[int(number)].id for number in answer.diagnostics.reasons)
        errors = [candidates.named(error) for error in answer.diagnostics.errors]
        problem = _unlike(case, answer.decision is cedarpy.Decision.Allow, ids, errors)
        return CedarOutcome(case, ids, problem, seconds)


def _checker(case: CedarCase) -> Callable[[Sequence[Policy], Sequence[str]], bool]:
    def passes(satisfied: Sequence[Policy], errors: Sequence[str]) -> bool:
        forbids = [policy for policy in satisfied if policy.effect == "forbid"]
        determining = frozenset(policy.id for policy in forbids or satisfied)
        return not _unlike(case, bool(satisfied) and not forbids, determining, errors)

    return passes


def _unlike(case: CedarCase, allowed: bool, ids: frozenset[str], errors: Sequence[str]) -> str:
    if allowed is not case.allowed:
        return f"expected {_word(case.allowed)}, got {_word(allowed)} by {' and '.join(sorted(ids)) or 'no policy'}"
    problems = []
    if missing := [wanted for wanted in case.reason if wanted not in ids]:
        got = " and ".join(sorted(ids)) or "no policy"
        problems.append(f"expected {' and '.join(missing)} among the reasons, got {got}")
    if len(errors) != case.num_errors:
        told = f": {'; '.join(errors)}" if errors else ""
        problems.append(f"expected {case.num_errors} errors, got {len(errors)}{told}")
    return "; ".join(problems)


def _word(allowed: bool) -> str:
    return "allow" if allowed else "deny"


def _line(error: object) -> str:
    return " ".join(str(error).split())[:500]


def _policies(subject: Subject) -> tuple[Policy, ...]:
    found: list[Policy] = []
    templates: dict[str, Policy] = {}
    for number, reviewed in enumerate(subject.policies):
        policy = _policy(reviewed, number)
        if reviewed.template:
            templates[policy.id] = templates[reviewed.id] = policy
        else:
            found.append(policy)
    for link in subject.links:
        template = templates.get(str(link.get("templateId")))
        if template is None:
            hint = "give it the @id of a template"
            raise BundleError(
                f"a link to {link.get('templateId')!r}, which is no template", path=subject.root, hint=hint
            )
        values = link.get("values", {})
        linked = {part: _linked(template.est[part], values) for part in ("principal", "resource")}
        found.append(replace(template, id=str(link["newId"]), est={**template.est, **linked}))
    return tuple(found)


def _policy(reviewed: ReviewedPolicy, number: int) -> Policy:
    effect: Literal["permit", "forbid"] = reviewed.effect
    return Policy(
        id=reviewed.annotations.get("id") or f"policy{number}",
        effect=effect,
        annotations=reviewed.annotations,
        actions=frozenset({_GROUP}),
        file=reviewed.file,
        line=reviewed.place.line,
        est=reviewed.est,
    )


def _linked(scope: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a scope with the entity of a link in the place of its slot."""
    if "in" in scope:
        return {**scope, "in": _linked(scope["in"], values)}
    if "slot" not in scope:
        return scope
    uid = values.get(scope["slot"])
    if not isinstance(uid, Mapping):
        raise BundleError(f"a link without a value for {scope['slot']}", path=Path("(links)"), hint="give an entity")
    return {**{name: each for name, each in scope.items() if name != "slot"}, "entity": uid.get("__entity", uid)}


def _read(path: Path) -> Iterator[CedarCase]:
    text = limited_text(path, _MAX_FILE, hint="split it")
    for number, (value, offset) in enumerate(_members(path, text), start=1):
        yield _case(path, value, number, text.count("\n", 0, offset) + 1)


def _members(path: Path, text: str) -> Iterator[tuple[Any, int]]:
    """Yield each member of a JSON array with its offset, which a parser of the whole would not tell."""

    def fail(offset: int, message: str) -> BundleError:
        line, column = line_and_column(text, offset)
        hint = "expected a JSON array of tests as cedar run-tests reads them"
        return BundleError(message, path=path, line=line, column=column, hint=hint)

    def blank(offset: int) -> int:
        while offset < len(text) and text[offset] in " \t\r\n":
            offset += 1
        return offset

    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
    at = blank(0)
    if not text.startswith("[", at):
        raise fail(at, "no array")
    at = blank(at + 1)
    while not text.startswith("]", at):
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise fail(error.pos, f"not JSON: {error.msg}") from None
        except RecursionError:
            raise fail(at, "nested too deeply") from None
        except ValueError as error:
            raise fail(at, f"not JSON: {error}") from None
        yield value, at
        at = blank(end)
        if text.startswith(",", at):
            at = blank(at + 1)
            if text.startswith("]", at):
                raise fail(at, "not JSON: a comma after the last test")
        elif not text.startswith("]", at):
            raise fail(at, "not JSON: expected , or ]")
    if (rest := blank(at + 1)) < len(text):
        raise fail(rest, "not JSON: more after the array")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _case(path: Path, value: Any, number: int, line: int) -> CedarCase:
    def fail(message: str, hint: str) -> BundleError:
        return BundleError(f"test {number}: {message}", path=path, line=line, hint=hint)

    if not isinstance(value, dict):
        raise fail("no object", f"a test has {', '.join(_KEYS)}")
    for key in _KEYS:
        if key not in value:
            raise fail(f"no {key}", f"a test has {', '.join(_KEYS)}")
    request, reason, errors = value["request"], value["reason"], value["num_errors"]
    if not isinstance(request, dict):
        raise fail("request is no object", "it has principal, action, resource and context")
    for key in ("principal", "action", "resource"):
        if not isinstance(request.get(key), str):
            raise fail(f"no {key} in the request", 'write it in Cedar\'s syntax, such as User::"alice"')
    if not isinstance(request.get("context"), dict):
        raise fail("no context in the request", "it is an object; write {} for an empty one")
    if not isinstance(value["entities"], list):
        raise fail("entities is no list", "write [] for none")
    if value["decision"] not in ("allow", "deny"):
        raise fail(f"decision is {printable(repr(value['decision']))[:80]}", "expected allow or deny")
    if not isinstance(reason, list) or not all(isinstance(each, str) for each in reason):
        raise fail("reason is no list of text", "list the ids of the policies; [] for none")
    if type(errors) is not int or errors < 0:
        raise fail("num_errors is no number", "expected how many policies cannot be evaluated")
    name = value.get("name")
    named = isinstance(name, str) and bool(name)
    return CedarCase(
        file=path,
        line=line,
        title=name if isinstance(name, str) and name else f"test {number}",
        action=request["action"],
        request={key: request[key] for key in ("principal", "action", "resource", "context")},
        entities=value["entities"],
        allowed=value["decision"] == "allow",
        reason=tuple(reason),
        num_errors=errors,
        named=named,
    )
