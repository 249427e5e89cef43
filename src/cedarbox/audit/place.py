"""The place file of the shipper: which part of each stream was acknowledged."""

from __future__ import annotations

import threading
from pathlib import Path

import orjson

from cedarbox.files import write_file

__all__ = ["Place"]


class Place:
    """Acknowledged offsets in bytes by key, in a JSON file. Threads may share it.

    A missing or damaged file means that nothing was acknowledged: lines are then sent again, none is lost. Another
    process may use the same file; offsets only grow, so the greater one counts.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._offsets = self._load()

    def offset(self, key: str) -> int:
        """Give the acknowledged offset, 0 when nothing was."""
        with self._lock:
            return self._offsets.get(key, 0)

    def advance(self, key: str, offset: int) -> None:
        """Remember an acknowledgement durably.

        Args:
            key: The stream.
            offset: Bytes from its start.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            offsets = {**self._offsets, key: max(offset, self._offsets.get(key, 0))}
            for other, value in self._load().items():
                offsets[other] = max(value, offsets.get(other, 0))
            self._save(offsets)
            self._offsets = offsets

    def _load(self) -> dict[str, int]:
        try:
            content = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        acknowledged = content.get("acknowledged") if isinstance(content, dict) else None
        if not isinstance(acknowledged, dict):
            return {}
        return {key: value for key, value in acknowledged.items() if type(value) is int and value >= 0}

    def _save(self, offsets: dict[str, int]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._path, orjson.dumps({"acknowledged": offsets}, option=orjson.OPT_SORT_KEYS), 0o600)
