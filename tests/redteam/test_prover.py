"""Attacks on the proof that a change of policies never widens them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.proving import bundle_side, kinds

import cedarbox.review.prove.solvers as solving
from cedarbox.policy.schema import schema_text
from cedarbox.review.prove import Allows, And, Not, Prover

WIDENS = And(Allows("new"), Not(Allows("old")))
OLD = 'permit (principal, action == Sandbox::Action::"fork", resource) when { context.copies < 4 };'


def _verdict(new: str, old: str = OLD) -> str:
    with Prover(schema_text(), time_limit_s=20) as prover:
        answer = prover.search(
            WIDENS, kinds(schema_text(), "fork")[0], {"old": bundle_side(old), "new": bundle_side(new)}
        )
    return answer.verdict


def test_a_widening_is_hidden_behind_what_is_not_encoded() -> None:
    """A change puts a permit for everything beside a condition that the encoder does not know.

    The unknown condition is taken for one that may hold, so no proof comes of it: the change is found or not decided.
    """
    odd = '"\U00030000" == context.base.backend'
    assert _verdict(OLD.replace("context.copies < 4", odd)) == "undecided"
    assert _verdict(OLD.replace("context.copies < 4", f"context.copies < 5 || {odd}")) == "found"
    assert _verdict(OLD.replace("context.copies < 4", f"context.copies < 4 && {odd}")) == "none"


def test_a_widening_is_hidden_in_a_text_that_solvers_read_as_an_escape() -> None:
    """Texts with quotes, backslashes and what looks like an escape of SMT-LIB are told apart as Cedar does.

    A bundle that permitted the backend `A` must not pass for one that permits the six characters of an escape of it.
    """
    letter = OLD.replace("context.copies < 4", 'context.base.backend == "A"')
    escape = OLD.replace("context.copies < 4", 'context.base.backend == "\\\\u{41}"')
    quote = OLD.replace("context.copies < 4", 'context.base.backend == "\\"\\"" || context.base.backend == "\\""')
    assert _verdict(escape, letter) == "found"
    assert _verdict(letter, escape) == "found"
    assert _verdict(quote, escape) == "found"
    assert _verdict(quote, quote.replace("||", "|| 1 == 2 ||")) == "none"


def test_a_widening_is_hidden_from_a_solver_by_making_it_run_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The solver is made to die on the question of the change, time and again.

    Each time it is told as not decided, with the reason, and the next question is answered by a new process.
    """
    program = tmp_path / "dies.py"
    program.write_text("import os, sys\nsys.stdin.readline()\nos.kill(os.getpid(), 9)\n")
    with monkeypatch.context() as patched:
        patched.setattr(solving, "_PROGRAM", program)
        assert _verdict(OLD.replace("< 4", "< 5")) == "undecided"
    assert _verdict(OLD.replace("< 4", "< 5")) == "found"


def test_a_forbid_is_made_to_fail() -> None:
    """A forbid gets a condition that cannot be evaluated for some requests, so that Cedar would skip it there.

    In a bundle an error denies, so this widens nothing; dropping the forbid does, and is found.
    """
    allow = 'permit (principal, action == Sandbox::Action::"fork", resource);'
    forbid = 'forbid (principal, action == Sandbox::Action::"fork", resource) when { context.copies > 8 };'
    failing = forbid.replace("context.copies > 8", "context.copies > 8 && context.copies * 9223372036854775807 != 1")
    assert _verdict(f"{allow}\n{failing}", f"{allow}\n{forbid}") == "none"
    assert _verdict(allow, f"{allow}\n{forbid}") == "found"


@pytest.mark.parametrize(
    ("action", "kind", "named", "other", "chooses"),
    [
        ("connect", "Address", "9.9.9.9", "1.1.1.1", "context.port == 1"),
        ("exposePort", "Port", "443", "22", "context.public"),
        ("connect", "Host", "EXAMPLE", "a.example", "context.port == 1"),
        ("mountRead", "HostPath", "/a/", "/b", "context.isSymlink"),
    ],
)
def test_a_widening_is_hidden_behind_a_choice_of_names(
    action: str, kind: str, named: str, other: str, chooses: str
) -> None:
    """What was asked of the resource is asked of a name that the policy itself chooses: then it is so of any resource.

    Cedarbox knows how ids and addresses hang together for what a request names, and for that only; the change is found.
    """
    scope = f'permit (principal, action == Sandbox::Action::"{action}", resource is Sandbox::{kind})'
    names = [f'Sandbox::{kind}::"{name}"' for name in (named, other)]
    old = f"{scope} when {{ resource == {names[0]} }};"
    new = f"{scope} when {{ (if {chooses} then {names[0]} else {names[1]}) == {names[0]} }};"
    environment = next(each for each in kinds(schema_text(), action) if each.resource_type == f"Sandbox::{kind}")
    sides = {"old": bundle_side(old), "new": bundle_side(new)}
    with Prover(schema_text(), time_limit_s=20) as prover:
        assert prover.search(WIDENS, environment, sides).verdict == "found"
