"""A page about a bundle as one HTML file: no scripts, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cedarbox.review.rendering.page import Page
from cedarbox.text import printable

__all__ = ["html"]


def html(page: Page) -> str:
    """Return a page as HTML.

    All text of the bundle is escaped, and characters that turn the direction of writing are written out. The file may
    load nothing and run nothing: its policy for that allows the one style that is in it, by its digest.
    """
    environment = _environment()
    source, _, _ = environment.loader.get_source(environment, "style.css")  # type: ignore[union-attr]  # it has one
    style = source.strip()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("bundle.html").render(page=page, style=Markup(style), style_digest=digest)  # noqa: S704  # our own file


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cedarbox.review.rendering"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=_safe,
    )


def _safe(value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(printable(line) for line in value.replace("\t", "    ").split("\n"))
