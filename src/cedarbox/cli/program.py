"""The command line: its commands, each imported when it is asked for, and how it ends."""

from __future__ import annotations

import os
import sys
from io import RawIOBase, TextIOWrapper
from typing import Any, Final

import typer
from rich.console import Console

from cedarbox.cli.on_demand import Command, group_of
from cedarbox.errors import CedarboxError

__all__ = ["COMMANDS", "app", "run"]

COMMANDS: Final = {
    "demo": "Let an agent work in a microVM under policy, and show what was decided.",
    "init": "Write a policy bundle with its tests, and a cedarbox.toml that uses it.",
    "approve": "List, grant and reject the calls that wait for an approval.",
    "audit": "Check the ledger, show it, prove its records and hand them out.",
    "collector": "Receive spans, records and metrics by OTLP, and show them.",
    "egress": "Show what leaves the sandboxes of this host.",
    "image": "Import, list and pin the images that sandboxes boot.",
    "policy": "Format, check, test, compare, prove, explain and sign policies.",
    "snapshot": "List, check and remove the native snapshots of a BoxLite home.",
}
"""The commands and groups, with what the help says of each."""

# What is one command is called as its module is.
_SINGLE: Final = frozenset({"demo", "init"})
_GROUP: Final = {
    name: Command(about, f"cedarbox.cli.{name}", name if name in _SINGLE else "app") for name, about in COMMANDS.items()
}


app = typer.Typer(
    name="cedarbox",
    cls=group_of(_GROUP),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Hardened microVM sandboxes for the OpenAI Agents SDK."""


def run() -> Any:
    """Run the command line, and return its exit code; an error of ours, or of the output, is one line on stderr."""
    code: Any = 0
    _open_closed()
    if isinstance(sys.stdout, TextIOWrapper) and isinstance(sys.stdout.buffer, RawIOBase):
        # PYTHONUNBUFFERED, as containers set it: write(2) may take a part only, and nobody would write the rest.
        sys.stdout = open(sys.stdout.fileno(), "w", 1, encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A character that the locale does not have is written out, as one that would drive the terminal is.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as end:
        code = end.code
    except CedarboxError as error:
        code = _failed(str(error))
    except KeyboardInterrupt:
        code = 130
    except RuntimeError as error:
        # Before Python 3.12 what comes up while a class is made is wrapped, and commands are imported when called.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = 130
    except OSError as error:
        code = _unwritten(error)
        _mute()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        code = code if isinstance(error, BrokenPipeError) else _unwritten(error)
        _mute()
    return code


def _open_closed() -> None:
    """Give the standard streams that are closed a place that takes everything: the next file would be in theirs."""
    opened = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened.append(os.open(os.devnull, os.O_RDWR))  # The lowest that is free, which is this one.
    if 0 in opened:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lasts
    if 1 in opened:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if 2 in opened:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _mute() -> None:
    # What is left of the output would fail again at the very end, with a message of Python's.
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


def _unwritten(error: OSError) -> int:
    """Tell of an error that a command did not put in words of its own: most of all of an output on a full disk."""
    if isinstance(error, BrokenPipeError):
        return 1
    what = "the output" if error.filename is None else str(error.filename)
    return _failed(str(CedarboxError(f"{what}: {error.strerror or error}", hint="what was written is not whole")))


def _failed(message: str) -> int:
    # GitHub's runner obeys it in any line of the output, and a message may quote a file of others.
    message = message.replace("##[", "#\\x23[")
    try:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"cedarbox: {message}")
    except OSError:
        # Nobody is told, and the exit code still tells. What is left in the buffer would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stderr.fileno())
    return 2
