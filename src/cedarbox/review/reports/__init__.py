"""The forms in which a report is given out: for people, for programs, for the sites where code is reviewed.

Each module makes one form of a :class:`~cedarbox.review.finding.Report`, and knows how that form is kept well-formed
and inert whatever the text in it: ids, messages and names come from files that somebody else wrote.
"""

from __future__ import annotations

from typing import Final, Literal

from cedarbox.review.finding import Report

__all__ = ["FORMATS", "FormatName", "render"]

FormatName = Literal["text", "json", "junit", "tap", "sarif", "github", "gitlab", "markdown"]

FORMATS: Final[tuple[FormatName, ...]] = ("text", "json", "junit", "tap", "sarif", "github", "gitlab", "markdown")
"""The forms that :func:`render` makes."""


def render(report: Report, form: FormatName) -> str:
    """Return a report in one of :data:`FORMATS`. It ends with a line feed, and UTF-8 can hold it.

    Args:
        report: What to tell.
        form: How.

    Raises:
        ValueError: There is no such form.
    """
    match form:
        case "text":
            from cedarbox.review.reports.plain import text
        case "json":
            from cedarbox.review.reports.document import text
        case "junit":
            from cedarbox.review.reports.junit import text
        case "tap":
            from cedarbox.review.reports.tap import text
        case "sarif":
            from cedarbox.review.reports.sarif import text
        case "github":
            from cedarbox.review.reports.github import text
        case "gitlab":
            from cedarbox.review.reports.gitlab import text
        case "markdown":
            from cedarbox.review.reports.markdown import text
        case _:
            raise ValueError(f"no form {form!r}; there are {', '.join(FORMATS)}")
    return text(report)
