"""Allow-lists of backends, compiled from the policies and held against them."""

from __future__ import annotations

__all__: list[str] = []
