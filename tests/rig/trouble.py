"""The one error of the rig, and how its programs end with it.

The rig does not use `cedarbox.errors`: it must start on a machine that has no third-party package yet, and it must
tell what is wrong with a checkout whose package cannot be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["RigError", "run_program", "say"]


class RigError(Exception):
    """Something the rig needs is missing, failed, or does not match its digest.

    Args:
        message: What is wrong, in one line without a final full stop.
        hint: What the reader can do about it.
        detail: Lines of output to show before the message, such as the end of a log.
        code: Exit code of the program that meets this error.
    """

    def __init__(self, message: str, *, hint: str = "", detail: str = "", code: int = 2) -> None:
        self.detail, self.code = detail, code
        super().__init__(f"{message}; {hint}" if hint else message)


def say(line: str) -> None:
    """Writes one line of progress to standard error."""
    print(f"rig: {line}", file=sys.stderr, flush=True)


def run_program(main: Callable[[], int]) -> NoReturn:
    """Runs a program's main function and exits with its code; a `RigError` becomes one line and its code."""
    try:
        code = main()
    except RigError as error:
        if error.detail:
            print(error.detail.rstrip(), file=sys.stderr)
        say(str(error))
        code = error.code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
