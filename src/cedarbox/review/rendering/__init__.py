"""A bundle as a page for people who do not read Cedar: HTML in one file, or Markdown."""

from __future__ import annotations

from cedarbox.review.rendering.html import html
from cedarbox.review.rendering.markdown import markdown
from cedarbox.review.rendering.page import Page, page_of

__all__ = ["Page", "html", "markdown", "page_of"]
