"""What a client hands on is let go when the client is closed. On a real runtime, which boots nothing here."""

from __future__ import annotations

from pathlib import Path

import pytest

from cedarbox.boxlite.host import opened
from cedarbox.errors import HostError


async def test_a_home_is_free_again_although_somebody_holds_its_runtime(tmp_path: Path) -> None:
    first = opened(tmp_path / "home")
    assert await first.list_info() == []
    with pytest.raises(HostError, match="another process or client"):
        opened(tmp_path / "home")
    await first.shutdown()
    second = opened(tmp_path / "home")
    assert await second.get("nothing") is None
    with pytest.raises(HostError, match="was closed"):
        first.list_info()
    with pytest.raises(HostError, match="was closed"):
        await first.create(object())
    await second.shutdown()
