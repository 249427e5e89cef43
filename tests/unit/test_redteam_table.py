"""The table of attacks that ships is the one that the tests give."""

from __future__ import annotations

from pathlib import Path

from tests.redteam.table import rendered


def test_the_table_of_attacks_is_up_to_date() -> None:
    table = Path(__file__).parents[2] / "compliance" / "RED-TEAM.md"
    assert table.read_text("utf-8") == rendered(), "run: python -m tests.redteam.table > compliance/RED-TEAM.md"
