"""Lint: what a reviewer of sandbox policies would ask about, found before they have to."""

from cedarbox.review.lint.options import LintConfig, read_config
from cedarbox.review.lint.rulebook import RULES
from cedarbox.review.lint.run import Chosen, Linted, lint, report_of

__all__ = ["RULES", "Chosen", "LintConfig", "Linted", "lint", "read_config", "report_of"]
