"""The page about spans and metrics that ships is the one that the tables give."""

from __future__ import annotations

from pathlib import Path

from cedarbox.telemetry.page import rendered


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "compliance" / "TELEMETRY.md"
    assert page.read_text("utf-8") == rendered(), "run: python -m cedarbox.telemetry.page > compliance/TELEMETRY.md"
