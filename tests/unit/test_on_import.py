"""The tracing of the SDK is sealed whenever it is imported, and what does not need the SDK does not import it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from tests.unit.forked import fresh
from typer.testing import CliRunner

from cedarbox.cli import COMMANDS, app, policy

_SEALED = "from agents.tracing import setup; print(type(setup.GLOBAL_TRACE_PROVIDER).__name__)"


def said(program: str) -> str:
    """What a process prints that has imported neither the SDK nor cedarbox."""
    done = fresh(program)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "order",
    [
        "import cedarbox; import agents",
        "import agents; import cedarbox",
        "import cedarbox.telemetry.tracing",
        "import cedarbox.telemetry.bridge",
        "import cedarbox.telemetry.describe",
        "import cedarbox, threading as t; a = t.Thread(target=__import__, args=('agents',)); a.start(); import agents",
    ],
)
def test_whoever_imports_the_sdk_gets_it_sealed(order: str) -> None:
    assert said(f"{order}; {_SEALED}") == "SealedTraceProvider"


def test_a_new_interpreter_is_no_exception() -> None:
    program = f"import cedarbox; import agents; {_SEALED}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("SealedTraceProvider\n", "")


def test_without_cedarbox_it_is_not() -> None:
    assert said(f"import agents; {_SEALED}") != "SealedTraceProvider"


@pytest.mark.parametrize("module", ["cedarbox", "cedarbox.cli.audit", "cedarbox.cli.collector", "cedarbox.cli.policy"])
def test_what_needs_no_sdk_does_not_load_it(module: str) -> None:
    assert said(f"import {module}, sys; print({{'agents', 'boxlite'}} & set(sys.modules))") == "set()"


def test_the_package_of_the_sdk_still_gives_its_files() -> None:
    program = "import cedarbox, agents, importlib.resources as r; print(r.files('agents').joinpath('run.py').is_file())"
    assert said(program) == "True"


def test_the_sdk_is_missing_as_it_would_be_without_us() -> None:
    program = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "from cedarbox import on_import\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
        "on_import.watch()\n"
        "try: import agents\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    assert said(program) == "agents"


def test_the_help_says_of_each_command_what_the_command_says() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    for name, text in COMMANDS.items():
        module = import_module(f"cedarbox.cli.{name}")
        assert name in shown.output
        if hasattr(module, "app"):
            assert module.app.info.help == text
        else:
            assert callable(getattr(module, name))


def test_the_help_of_policy_says_of_each_command_what_the_command_says() -> None:
    shown = CliRunner().invoke(app, ["policy", "--help"], env={"COLUMNS": "200"})
    for name, command in policy.COMMANDS.items():
        assert f"{name} " in shown.output
        told = getattr(import_module(command.module), command.name).__doc__
        assert told.startswith(command.about.removesuffix(".")), name


def test_every_public_name_is_there() -> None:
    names = said(
        "import cedarbox; print([n for n in cedarbox.__all__ if getattr(cedarbox, n) is None] + dir(cedarbox))"
    )
    assert "harden" in names


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    assert said("import cedarbox; print(hasattr(cedarbox, 'nothing'))") == "False"
