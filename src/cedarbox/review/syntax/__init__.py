"""Parsers of Cedar that know where everything stands: cedarpy says what a policy means, but not where.

cedarpy has the last word on what is Cedar and what it means; the tests hold what is parsed here against it.
"""

from __future__ import annotations

from cedarbox.review.syntax.policies import Syntax, parse_policy, place_of, syntax_of
from cedarbox.review.syntax.schema import schema_json
from cedarbox.review.syntax.tokens import ParseError, Span

__all__ = ["ParseError", "Span", "Syntax", "parse_policy", "place_of", "schema_json", "syntax_of"]
