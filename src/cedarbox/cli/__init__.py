"""The command line: one thin module for each group of commands, imported when it is asked for.

Exit codes: 0 good; 1 findings, such as a broken chain; 2 usage, bad input, or a host that lacks something; 3 not
decided; 130 Ctrl-C.

This module imports next to nothing, so that Ctrl-C is understood from the first moments on. What comes before it, the
start of Python, is not ours: there Python prints what it was doing, or the signal ends it.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cedarbox.cli.program import COMMANDS, app

__all__ = ["COMMANDS", "app", "main"]


def main() -> None:
    """Run the command line; an error of ours, or of the output, is one line on stderr and exit code 2."""
    try:
        code = _imported().run()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _imported() -> "Any":
    """Import the command line; Ctrl-C meanwhile ends the process at once, as there is nothing to finish or to tell."""
    import signal

    # As an exception it could be lost in an import, or come out of it as another one.
    def end(number: int, frame: object) -> None:
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler
    try:
        if ours:
            signal.signal(signal.SIGINT, end)
    except ValueError:  # not in the main thread, which gets the signal
        ours = False
    try:
        from cedarbox.cli import program
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    return program


def __getattr__(name: str) -> "Any":
    if name not in {"COMMANDS", "app"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cedarbox.cli import program

    return getattr(program, name)
