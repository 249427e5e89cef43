"""Explains one decision: which policies, which of their conditions held, and what would have to change."""

from __future__ import annotations

__all__: list[str] = []
