"""Ctrl-C while the command line is still being imported: exit code 130, and not a word of Python's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from tests.unit.bundles import SHIPPED

# The signal comes at the very moment when a module is looked for, however slow the machine is.
AT_IMPORT = """
import os, signal, sys
class Interrupting:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == WHERE:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
"""
# ... or while a class of a command's module is being made.
AT_CLASS = """
import functools, os, signal, sys
import cedarbox.cli.program
named = functools.cached_property.__set_name__
def interrupting(self, owner, name):
    if owner.__module__ == WHERE:
        os.kill(os.getpid(), signal.SIGINT)
    named(self, owner, name)
functools.cached_property.__set_name__ = interrupting
"""
WHERE = ["cedarbox.cli.program", "rich.console", "cedarbox.cli.policy", "cedarbox.cli.policy_lint", "cedarpy"]


def run(before: str, where: str, *, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if ignored else ""
    program = f"WHERE = {where!r}\n{before}{ignore}from cedarbox.cli import main\nmain()\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", program, "policy", "lint", "--no-prover", str(SHIPPED / "baseline")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("where", WHERE)
def test_an_interrupt_of_an_import_ends_the_command_without_a_word(where: str) -> None:
    done = run(AT_IMPORT, where)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_an_interrupt_that_python_wraps_is_one_all_the_same() -> None:
    done = run(AT_CLASS, "cedarbox.policy.bundle")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    done = run(AT_IMPORT, "rich.console", ignored=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no findings" in done.stdout


def test_what_is_imported_before_an_interrupt_is_understood_is_little() -> None:
    program = "import sys\nbefore = set(sys.modules)\nimport cedarbox.cli\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["__future__", "cedarbox", "cedarbox.cli", "cedarbox.on_import"]


def test_the_signal_is_as_it_was_when_the_command_ends(capsys: pytest.CaptureFixture[str]) -> None:
    from cedarbox.cli import main

    before = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cedarbox", "--help"])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 0
    assert capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
