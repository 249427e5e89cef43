"""``--dump-smt`` and ``--cedar``: questions that others can answer, and Cedar's own compiler beside the prover.

What stands for the ``cedar`` program prints what that of version 4.12 does. Name the real one, built with its feature
``analyze``, in CEDARBOX_CEDAR (and a cvc5 program for it in CVC5), and it is asked too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.bundles import write_bundle
from tests.unit.differing import AGENTS, cli, entities, permit, shared_prover
from tests.unit.proving import PLAIN, WIDENS, kinds, plain_side

from cedarbox.errors import ConfigurationError
from cedarbox.policy.schema import schema_text
from cedarbox.review.prove import Prover, Query
from cedarbox.review.prove.crosscheck import CrossChecked
from cedarbox.review.prove.solvers import Solvers
from cedarbox.review.prove.symcc import implies

REAL = os.environ.get("CEDARBOX_CEDAR", "")
SHIPPED = sorted((Path(__file__).parents[2] / "policies").iterdir())
real = pytest.mark.skipif(not REAL, reason="CEDARBOX_CEDAR names no program")

PORT = "context.port == 443"
VERIFIED = "\u2713 Policy set 1 implies policy set 2: VERIFIED"
REFUTED = "\u2717 Policy set 1 implies policy set 2: DOES NOT HOLD\n  Counterexample found:\nan environment"


@pytest.fixture(autouse=True, scope="module")
def _prover() -> Iterator[None]:
    yield from shared_prover()


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, Path]:
    agents = entities(AGENTS)
    old = write_bundle(tmp_path / "old", permit("web", "connect", PORT), entities=agents)
    return old, write_bundle(tmp_path / "new", permit("web", "connect", "context.port <= 443"), entities=agents)


def _cedar(path: Path, said: str, *, status: int = 0, err: str = "") -> Path:
    """A program that says one thing for a first set that has less, and the other thing otherwise."""
    path.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "given = dict(zip(sys.argv, sys.argv[1:]))\n"
        "assert 'symcc' in given and 'implies' in given, given\n"
        "first, second = (open(given[name]).read() for name in ('--policies1', '--policies2'))\n"
        f"refuted, verified = {REFUTED!r}, {VERIFIED!r}\n"
        f"print({said})\n"
        f"print({err!r}, file=sys.stderr)\nsys.exit({status})\n"
    )
    path.chmod(0o755)
    return path


RIGHT = "refuted if '<=' in first and '<=' not in second else verified"


def test_each_question_is_a_file_that_a_solver_answers_alike(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    out = tmp_path / "a" / "smt"
    result = cli("diff", *map(str, versions), "--dump-smt", out, "--json")
    assert result.exit_code == 1, result.output
    files = sorted(out.iterdir())
    assert files
    assert {file.suffix for file in files} == {".smt2"}
    for file in files:
        head = [line for line in file.read_text().splitlines() if line.startswith(";")]
        assert head[0] == "; Is there a request for which this is so?"
        assert any('Sandbox::Action::"connect"' in line for line in head)
        assert any(line.startswith("; new: 1 policies, sha256") for line in head)
    widened = [file for file in files if "  new allows it and not (old allows it)" in file.read_text()]
    narrowed = [file for file in files if "  old allows it and not (new allows it)" in file.read_text()]
    assert widened
    assert narrowed
    with Solvers(1) as solvers:
        asked = {file: file.read_text().replace("(check-sat)", "").replace("(set-logic ALL)", "") for file in files}
        assert {solvers.solve("z3", asked[file], [], 20).result for file in widened} == {"sat"}
        assert {solvers.solve("z3", asked[file], [], 20).result for file in narrowed} == {"unsat"}
    before = {file: file.read_bytes() for file in files}
    assert cli("diff", *map(str, versions), "--dump-smt", out, "--json").exit_code == 1
    assert {file: file.read_bytes() for file in sorted(out.iterdir())} == before


def test_a_question_cannot_be_ended_by_a_name(tmp_path: Path) -> None:
    agents = entities(AGENTS)
    old = write_bundle(tmp_path / "old", permit("web", "connect", PORT), entities=agents)
    evil = "web\\n(assert false)"
    new = write_bundle(tmp_path / "new", permit(evil, "connect", "context.port <= 443"), entities=agents)
    cli("diff", str(old), str(new), "--dump-smt", tmp_path / "smt", "--json")
    texts = [file.read_text() for file in (tmp_path / "smt").iterdir()]
    assert texts
    assert not any(
        line.startswith("(assert false)") and "no solver" not in text for text in texts for line in text.splitlines()
    )


def test_a_directory_that_cannot_be_written(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    (tmp_path / "file").write_text("")
    result = cli("diff", *map(str, versions), "--dump-smt", tmp_path / "file" / "smt")
    assert isinstance(result.exception, ConfigurationError)  # which the program ends with 2 for
    assert "cannot be written" in str(result.exception)


def test_cedar_is_told_beside(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    result = cli("diff", *map(str, versions), "--cedar", _cedar(tmp_path / "cedar", RIGHT), "--json")
    assert result.exit_code == 1, result.output
    notes = json.loads(result.stdout)["notes"]
    assert any("cedar symcc refuted, cedarbox found" in note for note in notes)
    assert any("cedar symcc verified, cedarbox none" in note for note in notes)


@pytest.mark.parametrize("said", ["verified", "refuted"])
def test_a_contradiction_is_not_decided(tmp_path: Path, versions: tuple[Path, Path], said: str) -> None:
    result = cli("diff", *map(str, versions), "--cedar", _cedar(tmp_path / "cedar", said), "--json")
    assert result.exit_code == 3, result.output
    assert "the encoders contradict each other" in result.stdout


def test_a_property_whose_encoding_is_contradicted_is_not_proved(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    _, new = versions
    asked = ("prove", new, "--implies", str(versions[0]), "--json")
    assert cli("prove", new, "--never", "anyone connects on port 8443", "--json").exit_code == 0
    assert cli(*asked, "--cedar", _cedar(tmp_path / "right", RIGHT)).exit_code == 1
    lies = _cedar(tmp_path / "lies", "verified")
    result = cli("prove", new, "--never", "anyone connects on port 8443", "--json", "--cedar", lies)
    assert result.exit_code == 3, result.output
    assert "the encoders contradict each other" in result.stdout


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [(1, "''", "Analysis failed"), (0, "'something else'", "something else"), (1, "verified", "Analysis failed")],
)
def test_a_program_that_fails_is_one_line(
    tmp_path: Path, versions: tuple[Path, Path], status: int, said: str, told: str
) -> None:
    err = "Analysis failed\n  CVC5 solver not found" if status else ""
    program = _cedar(tmp_path / "cedar", said, status=status, err=err)
    result = cli("diff", *map(str, versions), "--cedar", program)
    assert isinstance(result.exception, ConfigurationError)
    assert told in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_program_that_is_not_there(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    (tmp_path / "plain").write_text("no program")
    for name in ("nothing", "plain"):
        result = cli("diff", *map(str, versions), "--cedar", tmp_path / name)
        assert isinstance(result.exception, ConfigurationError)
        assert "no such program" in str(result.exception)


NEWER, NEWER_STILL = (
    plain_side(f"permit (principal, action, resource) when {{ principal.age > {age} }};") for age in (3, 4)
)


def test_a_program_that_takes_too_long_is_ended_with_its_solver_and_nothing_is_decided(tmp_path: Path) -> None:
    program, solver = tmp_path / "cedar", tmp_path / "solver"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {solver}\nwait\n")
    program.chmod(0o755)
    (kind,) = kinds(PLAIN, "view")
    # On a busy machine a shell may need longer than that to start what is to be ended with it.
    for limit_s in (0.5, 5, 30):
        with Prover(PLAIN) as prover:
            beside = CrossChecked(prover, PLAIN, program, limit_s=limit_s)
            (answer,) = beside.search_all([Query(WIDENS, kind, {"old": NEWER, "new": NEWER_STILL}, "a question")])
        assert (answer.verdict, answer.witness) == ("undecided", None)
        assert answer.why == f"cedar symcc said nothing: it was ended after {limit_s:g} s"
        if solver.exists() and solver.read_text().strip():
            break
    left = Path("/proc") / solver.read_text().strip()
    for _ in range(600):
        if not left.exists() or " Z " in (left / "stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail("its solver goes on")


def test_a_question_that_is_too_hard_for_it_is_not_decided(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    err = "\u00d7 Analysis failed\n\u251c\u2500\u25b6 Verification failed\n\u2570\u2500\u25b6 solver returned `unknown`"
    program = _cedar(tmp_path / "cedar", "''", status=1, err=err)
    result = cli("diff", *reversed(list(map(str, versions))), "--cedar", program, "--json")
    assert result.exit_code == 3, result.output
    assert "cedar symcc said nothing: its solver found no answer" in result.stdout
    # The other way round there is a request that Cedar decided otherwise: that stands.
    result = cli("diff", *map(str, versions), "--cedar", program, "--json")
    assert result.exit_code == 1, result.output


@real
def test_the_real_compiler_says_of_changes_what_the_prover_says() -> None:
    (kind,) = kinds(PLAIN, "view")
    at_least = plain_side("permit (principal, action, resource) when { principal.age >= 3 };")
    assert implies(Path(REAL), PLAIN, kind, (NEWER, at_least)).verdict == "verified"
    assert implies(Path(REAL), PLAIN, kind, (at_least, NEWER)).verdict == "refuted"


@real
@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda path: path.name)
def test_the_real_programs_agree_about_the_bundles_that_ship(tmp_path: Path, bundle: Path) -> None:
    result = cli("prove", bundle, "--cedar", REAL, "--json")
    assert result.exit_code == 0, result.output
    notes = [note for note in json.loads(result.stdout)["notes"] if note.startswith("plain Cedar")]
    assert notes
    assert all("verified, cedarbox none" in note or "refuted, cedarbox found" in note for note in notes)
    # What is exported is what `cedar run-tests` takes, and it comes to the same.
    policies, tests, schema = (tmp_path / name for name in ("all.cedar", "tests.json", "site.cedarschema"))
    policies.write_text("\n".join(path.read_text() for path in sorted(bundle.glob("*.cedar"))))
    schema.write_text(schema_text())
    assert cli("test", bundle, "--no-mutate", "--export", tests).exit_code == 0
    files = ("--policies", str(policies), "--tests", str(tests), "--schema", str(schema))
    done = subprocess.run([REAL, "run-tests", *files], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert " 0 failed" in done.stdout
