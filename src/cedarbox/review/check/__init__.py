"""Tells everything that is wrong with policies and what belongs to them, with the place of each."""

from __future__ import annotations

from cedarbox.review.check.rules import RULES
from cedarbox.review.check.whole import check

__all__ = ["RULES", "check"]
