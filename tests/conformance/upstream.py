"""Runs the SDK's own tests in a process of their own, with our guarded client in place of the unix-local one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.unit.bundles import PERMIT_ALL, write_bundle

__all__ = ["Inapplicable", "Run", "run_upstream"]

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_LIMIT_SECONDS = 900


@dataclass(frozen=True)
class Inapplicable:
    """What ``inapplicable.toml`` says.

    Attributes:
        files: Test files that are not run, with the reason.
        tests: Tests that must fail behind the guard, with the reason.
    """

    files: Mapping[str, str]
    tests: Mapping[str, str]

    @classmethod
    def load(cls) -> Inapplicable:
        """Read the list beside this file."""
        document = tomllib.loads((_HERE / "inapplicable.toml").read_text())
        return cls(files=document["files"], tests=document["tests"])


@dataclass(frozen=True)
class Run:
    """What came of the SDK's tests.

    Attributes:
        outcomes: ``passed``, ``failed`` or ``skipped``, and the reason, by test.
        records: Records that the guard wrote in the meantime.
        clients: Clients that were made behind the guard.
        output: The end of pytest's output.
    """

    outcomes: Mapping[str, tuple[str, str]]
    records: int
    clients: int
    output: str

    @property
    def counts(self) -> Counter[str]:
        """How many tests ended how."""
        return Counter(outcome for outcome, _ in self.outcomes.values())


def run_upstream(tree: Path, directory: Path, *selection: str, ignore: Mapping[str, str]) -> Run:
    """Run tests of the SDK.

    Args:
        tree: The SDK's source tree.
        directory: Where bundle, ledgers and the outcomes are put.
        selection: What to run, relative to the tree.
        ignore: Files that are left out.

    Raises:
        AssertionError: That run of pytest did not finish.
    """
    output = directory / "output"
    output.mkdir(parents=True)
    # pytest's own tracebacks parse the source, at which CPython 3.11 sometimes gives up with a SystemError. What it
    # tells of the values in a failed assertion is not read here, and takes seconds to prepare.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "swap",
        "-p",
        "no:cacheprovider",
        "--tb=native",
        "-q",
        "--assert=plain",
        *selection,
    ]
    command += [f"--ignore={path}" for path in ignore]
    around = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    environment = {
        **around,
        "PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_HERE}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SWAP_BUNDLE": str(write_bundle(directory / "bundle", PERMIT_ALL)),
        "SWAP_OUTPUT": str(output),
    }
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False
    )
    found = output / "outcomes.json"
    assert found.is_file(), f"the SDK's tests did not finish:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    # pytest's own codes: 0, all passed; 1, some failed. Any other is a run that was cut short.
    assert done.returncode in (0, 1), f"the SDK's tests were cut short:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    document = json.loads(found.read_text())
    outcomes = {name: (str(outcome), str(reason)) for name, (outcome, reason) in document["tests"].items()}
    return Run(outcomes, document["records"], document["clients"], done.stdout[-3000:])
