"""What the page is given besides the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PageOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """What the page is given besides the store.

    Attributes:
        ledger: Directory of the ledger that can be verified from the page; None for none.
        public_key: The key that is trusted; None for the one beside the ledger.
        policies: Directories of bundles whose texts are shown.
    """

    ledger: Path | None = None
    public_key: Path | None = None
    policies: Sequence[Path] = ()
