"""What ``make test`` runs: the checks of the source, the tests on this host, the tests that boot boxes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance.sdist import Unavailable, source_tree
from tests.rig.cache import CHECKOUT
from tests.rig.lanes import MICROVM, TEST_SECONDS, prepare, run_lanes
from tests.rig.trouble import RigError, run_program, say

__all__ = ["lint", "main", "tally"]

_TABLES = "CEDARBOX_TABLES"
# What lets more be run in the emulated machine than there is time for otherwise.
_PASSED_ON = ("CEDARBOX_LONG", "CEDARBOX_CONFORMANCE")
# The tests of a module share what is slow to make. They wait as much as they compute. The longest modules
# have few tests, and would come last by number.
_AT_ONCE = ("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder", f"--timeout={TEST_SECONDS}")

_CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


def lint() -> list[str]:
    """Runs every check of the source.

    Returns:
        The checks that found something, as they were called.
    """
    failed = []
    for check in _CHECKS:
        # The tests that run beside it come first.
        command = ["nice", "-n", "10", _tool(check[0]), *check[1:]]
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=_clean(),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # In one piece: the tests write at the same time.
        say(f"{' '.join(check)}\n{done.stdout.rstrip()}")
        if done.returncode:
            failed.append(" ".join(check))
    return failed


def tally(report: Path) -> Counter[str]:
    """Reads a JUnit report of pytest.

    Args:
        report: The file that pytest wrote with ``--junit-xml``.

    Returns:
        Numbers of tests: ``passed``, ``failed`` (errors too), ``skipped`` (expected failures too).

    Raises:
        RigError: The report is missing or cannot be read: that run did not finish.
    """
    try:
        suites = list(ET.parse(report).getroot().iter("testsuite"))
    except (OSError, ET.ParseError) as error:
        raise RigError(
            f"{report.parent.name}/{report.name}: no usable report ({error}); that run of pytest did not finish"
        ) from error
    total: Counter[str] = Counter()
    for suite in suites:
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total.update(passed=tests - failed - skipped, failed=failed, skipped=skipped)
    return total


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _sdk() -> dict[str, Path]:
    try:
        return {"CEDARBOX_SDK": source_tree()}
    except Unavailable as error:
        say(f"the tests of the SDK cannot be fetched, so what needs them is skipped: {error}")
        return {}


def _passed_on() -> dict[str, str]:
    return {_TABLES: "{output}"} | {name: value for name in _PASSED_ON if (value := os.environ.get(name))}


def _test() -> int:
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="cedarbox-test-") as directory, ThreadPoolExecutor(2) as pool:
        output = Path(directory)
        reports = [output / "host.xml"]
        failures: list[str] = []
        # The tests on this host leave time for both.
        prepared, checked = pool.submit(prepare), pool.submit(lint)
        say("pytest on this host")
        command = [sys.executable, "-m", "pytest", "tests", f"--ignore={MICROVM}", f"--junit-xml={reports[0]}"]
        around = _clean() | {_TABLES: str(output)}
        if subprocess.run([*command, *_AT_ONCE], cwd=CHECKOUT, env=around, check=False).returncode:
            failures.append("pytest on this host")
        failures += checked.result()
        # Whatever goes wrong with the machine, the result of the other tests is still told.
        try:
            place = prepared.result()
            say(f"pytest {MICROVM}")
            passed, written = run_lanes(place, output, env=_passed_on(), shares=_sdk())
            reports += written
            if not passed:
                failures.append(f"pytest {MICROVM}")
        except RigError as error:
            print(error.detail, file=sys.stderr)
            failures.append(f"pytest {MICROVM}: {error}")
        for report in reports:
            try:
                total.update(tally(report))
            except RigError as error:
                failures.append(str(error))
        for table in sorted(output.rglob("*.table")):
            print(table.read_text(), flush=True)
    for failure in failures:
        say(f"failed: {failure}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped", flush=True)
    return 1 if failures or total["failed"] or not total["passed"] else 0


def main() -> int:
    """Runs everything, or the checks of the source alone."""
    parser = argparse.ArgumentParser(prog="tests.rig.suite", description="Run the checks and tests of cedarbox.")
    parser.add_argument("what", choices=["lint", "test"])
    if parser.parse_args().what == "test":
        return _test()
    failures = lint()
    for failure in failures:
        say(f"failed: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    run_program(main)
