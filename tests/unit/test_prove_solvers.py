"""Solver processes that hang, die or eat memory, and answers that are wrong: none of it takes the program down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.proving import PLAIN, WIDENS, kinds, plain_side

import cedarbox.review.prove.solvers as solving
from cedarbox.review.prove import Prover, available
from cedarbox.review.prove.models import read_values
from cedarbox.review.prove.solvers import Solvers
from cedarbox.review.prove.symcc import implies

# The product of two primes: solvers search for long.
HARD = """
(declare-const a (_ BitVec 128))
(declare-const b (_ BitVec 128))
(assert (= (bvmul a b) (_ bv1000000016000000063 128)))
(assert (bvult a (_ bv18446744073709551616 128)))
(assert (bvult b (_ bv18446744073709551616 128)))
(assert (bvugt a (_ bv1 128)))
(assert (bvugt b (_ bv1 128)))
(assert (not (= a (_ bv1000000007 128))))
(assert (not (= b (_ bv1000000007 128))))
"""
EASY = "(declare-const x Int)\n(assert (= x (- 3)))"


@pytest.fixture(params=["cvc5", "z3"])
def solver(request: pytest.FixtureRequest) -> solving.Solver:
    name: solving.Solver = request.param
    return name


def test_values_are_read(solver: solving.Solver) -> None:
    text = """
    (declare-fun s () String)
    (declare-fun v () (_ BitVec 128))
    (declare-fun t () Bool)
    (assert (= s "a\\u{22}\\u{5c}\\u{e9}\\u{1F600}"))
    (assert (= v (_ bv5 128)))
    (assert t)
    """
    with Solvers(1) as solvers:
        solved = solvers.solve(solver, text, ["s", "v", "t"], 10)
        assert (solved.result, read_values(solved.values)) == ("sat", ['a"\\é\U0001f600', 5, True])
        assert read_values(solvers.solve(solver, EASY, ["x"], 10).values) == [-3]
        assert solvers.solve(solver, f"{EASY}(assert (= x 1))", [], 10).result == "unsat"


def test_a_solver_that_takes_too_long_gives_up_and_is_used_again(solver: solving.Solver) -> None:
    with Solvers(1) as solvers:
        solved = solvers.solve(solver, HARD, [], 0.3)
        assert solved.result == "unknown"
        assert solved.why
        assert solvers.solve(solver, EASY, ["x"], 10).result == "sat"


def test_a_solver_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "hangs.py"
    program.write_text("import sys, time\nfor line in sys.stdin:\n    time.sleep(600)\n")
    monkeypatch.setattr(solving, "_PROGRAM", program)
    monkeypatch.setattr(solving, "_GRACE_S", 0.2)
    with Solvers(1) as solvers:
        solved = solvers.solve("cvc5", EASY, [], 0.2)
        assert solved.result == "unknown"
        assert "was ended after 0.2 s" in solved.why


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os\nos.abort()\n", "died"),
        ("import sys\nfor line in sys.stdin:\n    print('nonsense', flush=True)\n", "could not be read"),
        ('import sys\nfor line in sys.stdin:\n    print(\'{"result": "unsure"}\', flush=True)\n', "no answer"),
    ],
)
def test_a_solver_that_dies_or_talks_nonsense_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, why: str
) -> None:
    path = tmp_path / "odd.py"
    path.write_text(program)
    monkeypatch.setattr(solving, "_PROGRAM", path)
    with Solvers(1) as solvers:
        for _ in range(2):
            solved = solvers.solve("z3", EASY, [], 5)
            assert solved.result == "unknown"
            assert why in solved.why


def test_a_solver_may_take_no_more_memory_than_it_is_given(solver: solving.Solver) -> None:
    with Solvers(1, megabytes=48) as solvers:
        solved = solvers.solve(solver, EASY, [], 10)
    assert solved.result == "unknown"
    assert solved.why


def test_an_error_of_a_solver_is_no_proof(solver: solving.Solver) -> None:
    with Solvers(1) as solvers:
        solved = solvers.solve(solver, "(assert (= nothing 1))(assert false)", [], 10)
    assert solved.result == "unknown"


def test_a_found_request_that_cedar_decides_otherwise_is_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A solver that says `sat` with values of its own invention: its request is replayed, and refused."""
    path = tmp_path / "lies.py"
    path.write_text(
        "import json, re, sys\n"
        "for line in sys.stdin:\n"
        "    names = json.loads(line)['values']\n"
        "    values = ' '.join(f'({name} 0)' for name in names)\n"
        "    print(json.dumps({'result': 'sat', 'values': f'({values})'}), flush=True)\n"
    )
    monkeypatch.setattr(solving, "_PROGRAM", path)
    sides = {
        "old": plain_side(""),
        "new": plain_side("permit (principal, action, resource) when { context.n > 5 };"),
    }
    with Prover(PLAIN, solvers=("cvc5",)) as prover:
        answer = prover.search(WIDENS, kinds(PLAIN, "view")[0], sides)
    assert answer.verdict == "undecided"
    assert answer.witness is None
    assert "decides otherwise" in answer.why


def test_a_missing_solver_is_said_and_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "installed", lambda: ())
    assert "pip install 'cedarbox[prove]'" in available()
    sides = {"old": plain_side(""), "new": plain_side("permit (principal, action, resource);")}
    with Prover(PLAIN) as prover:
        answer = prover.search(WIDENS, kinds(PLAIN, "view")[0], sides)
    assert answer.verdict == "undecided"
    assert "cedarbox[prove]" in answer.why


def test_no_solver_is_loaded_to_make_a_prover() -> None:
    program = (
        "import sys; from cedarbox.review.prove import Prover, available; available();"
        f"Prover({PLAIN!r}).close();"
        "sys.exit(bool({'cvc5', 'z3', 'agents'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


def test_a_worker_ends_with_the_one_that_started_it() -> None:
    program = (
        "from cedarbox.review.prove.solvers import Solvers\n"
        "solvers = Solvers(1)\n"
        f"solvers.solve('z3', {EASY!r}, [], 10)\n"
        "print(solvers._all[0]._running._process.pid, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    until = time.monotonic() + 20
    while time.monotonic() < until and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def test_a_prover_that_nobody_closes_does_not_break_the_end_of_the_program() -> None:
    program = (
        "from cedarbox.review.prove.solvers import Solvers\n"
        "def kept():\n"
        "    with Solvers(1) as solvers:\n"
        f"        assert solvers.solve('z3', {EASY!r}, [], 10).result == 'sat'\n"
        "        print(solvers._all[0]._running._process.pid)\n"
        "        yield\n"
        "import sys\n"
        "sys.kept = kept()\n"
        "next(sys.kept)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not _runs(int(done.stdout))


def test_an_interruption_ends_the_searches_and_their_solvers() -> None:
    # Whole factors of a number are searched for: no solver is done soon, and there are more searches than processes.
    policy = (
        "permit (principal, action, resource) when { context.n * context.m == 1000000016000000063 "
        "&& context.n > 1 && context.m > 1 && context.n != 1000000007 && context.m != 1000000007 };"
    )
    program = (
        "import signal, threading, time\n"
        "from tests.unit.proving import PLAIN, WIDENS, kinds, plain_side\n"
        "from cedarbox.review.prove import Prover, Query\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sides = {{'old': plain_side(''), 'new': plain_side({policy!r})}}\n"
        "queries = [Query(WIDENS, kinds(PLAIN, 'view')[0], sides)] * 6\n"
        "prover = Prover(PLAIN, time_limit_s=600)\n"
        "workers = prover._solvers._all\n"
        "def tell():\n"
        "    while not all(each._running for each in workers): time.sleep(0.02)\n"
        "    print(*(each._running._process.pid for each in workers), flush=True)\n"
        "threading.Thread(target=tell).start()\n"
        "try:\n"
        "    prover.search_all(queries)\n"
        "except KeyboardInterrupt:\n"
        "    assert all(each._running is None for each in workers)\n"
        "    easy = {'old': plain_side(''), 'new': plain_side('permit (principal, action, resource);')}\n"
        "    print(prover.search(WIDENS, queries[0].environment, easy).verdict)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-P", "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        pids = [int(each) for each in process.stdout.readline().split()]
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        # Far less than the time limit of one search; one that still went on would take all of it.
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    # It can be used again, and nothing of what was asked before is taken for an answer.
    assert (process.returncode, rest.split()) == (0, ["found"])
    assert len(pids) == 2
    assert not any(_runs(pid) for pid in pids)


def test_an_interrupted_question_is_not_the_answer_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with Solvers(1) as solvers:
        assert solvers.solve("z3", EASY, [], 10).result == "sat"
        running = solvers._all[0]._running
        assert running is not None
        with monkeypatch.context() as patch:
            patch.setattr(running._answers, "get", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                solvers.solve("z3", EASY, [], 10)
        # The first process would still say `sat` first.
        assert solvers.solve("z3", "(assert false)", [], 10).result == "unsat"


def _interrupted(*_: object, **__: object) -> bytes:
    raise KeyboardInterrupt


def test_a_solver_that_does_not_read_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "deaf.py"
    program.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(solving, "_PROGRAM", program)
    monkeypatch.setattr(solving, "_GRACE_S", 0.2)
    with Solvers(1) as solvers:
        solved = solvers.solve("cvc5", "; more than a pipe holds\n" * 20_000, [], 0.2)
    assert "was ended after 0.2 s" in solved.why


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that nobody waits for has ended all the same.
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize(
    ("said", "status", "verdict"),
    [
        ("✓ Policy set 1 implies policy set 2: VERIFIED", 0, "verified"),
        ("✗ Policy set 1 implies policy set 2: DOES NOT HOLD\n  Counterexample found:", 0, "refuted"),
        ("", 1, "unknown"),
        ("✓ Policy set 1 implies policy set 2: VERIFIED", 1, "unknown"),
        ("something else: VERIFIED", 0, "unknown"),
    ],
)
def test_the_text_of_the_symbolic_compiler_decides(tmp_path: Path, said: str, status: int, verdict: str) -> None:
    """The text is that of the program's source; the program itself is not here, so a script prints it."""
    program = tmp_path / "cedar"
    given = tmp_path / "given.json"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(given)!r}, 'w').write(json.dumps([sys.argv[1:], open(sys.argv[-3]).read()]))\n"
        f"print({said!r}); sys.exit({status})\n"
    )
    program.chmod(0o755)
    sides = plain_side("permit (principal, action, resource);"), plain_side("")
    env = kinds(PLAIN, "view")[0]
    assert implies(program, PLAIN, env, sides).verdict == verdict
    arguments, second = json.loads(given.read_text())
    assert arguments[:7] == [
        "symcc",
        "--principal-type",
        "User",
        "--action",
        'Action::"view"',
        "--resource-type",
        "Doc",
    ]
    assert arguments[11] == "implies"
    assert json.loads(second) == {"staticPolicies": {}, "templates": {}, "templateLinks": []}
    assert implies(tmp_path / "nothing", PLAIN, env, sides).verdict == "unknown"
