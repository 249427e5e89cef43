"""Commands of cedarbox in this process, with all that a shell would see of them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from cedarbox.cli import main

__all__ = ["Run", "in_process"]

Run = Callable[..., tuple[int, str, str]]
"""Takes the arguments, as text or not; gives the exit code, the output and the errors."""


def in_process(patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], *first: str) -> Run:
    """Return what runs ``cedarbox`` with some arguments before those that it is given; no traceback may come out."""

    def run(*arguments: object) -> tuple[int, str, str]:
        patch.setattr(sys, "argv", ["cedarbox", *first, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capture.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return run
