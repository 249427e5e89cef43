"""Shows the tables of the suites at the end, and undoes what guarded clients put in force."""

from __future__ import annotations

import pytest
from tests.conformance import shown
from tests.unit.conftest import _alone

__all__ = ["_alone"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the tables."""
    shown.write(config, terminalreporter)
