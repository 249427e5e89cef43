"""Pages about bundles whose text tries to be more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED, agents, write_bundle

from cedarbox.review.rendering import html, markdown, page_of
from cedarbox.review.subject import Subject

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</code></pre></details><iframe src=//evil.example>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- --><style>*{display:none}</style>",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "]]><svg/onload=alert(1)>",
]
BIDI = "safe\u202eelpmaxe.live\u202c\u2066x\u2069\u200b"


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else data


def evil_bundle(directory: Path, text: str) -> Subject:
    quoted = json.dumps(text, ensure_ascii=True)
    cedar = re.sub(r"\\u([0-9a-f]{4})", r"\\u{\1}", quoted)
    policies = f"""
        // {text}
        @id({cedar}) @reason({cedar}) @advice({cedar})
        permit (principal, action == Sandbox::Action::"exec", resource == Sandbox::Executable::{cedar})
        when {{ context.base.backend == {cedar} || context.base.backend like {cedar} && {cedar} == {cedar} }};
        @id("second") forbid (principal in Sandbox::AgentGroup::{cedar}, action == Sandbox::Action::"exec", resource);
    """
    metadata = f'name = "evil"\nschema = 1\ndescription = {quoted}\n'
    path = write_bundle(directory, policies, entities=agents(text), metadata=metadata)
    return Subject.load(path)


ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "p",
        "h1",
        "bdi",
        "dl",
        "dt",
        "dd",
        "div",
        "b",
        "code",
    ),
    *("nav", "ul", "li", "a", "main", "section", "h2", "h3", "article", "span", "details", "summary", "pre", "table"),
    *("thead", "tbody", "tr", "th", "td", "footer", "i"),
}


@pytest.mark.parametrize("text", EVIL)
def test_markup_in_a_bundle(tmp_path: Path, text: str) -> None:
    """Ids, reasons, advice, comments, names of agents, values and the description hold markup.

    The page has the elements of its template only: no handler, no script, no link elsewhere. The text is shown.
    """
    shown = html(page_of(evil_bundle(tmp_path, text), signed=text))
    seen = Seen(shown)
    assert {tag for tag, _ in seen.tags} <= ALLOWED
    for tag, attrs in seen.tags:
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#"), (tag, attrs)
        assert "src" not in attrs
    assert seen.text.count(text) >= 6


@pytest.mark.parametrize("text", EVIL)
def test_markup_in_a_bundle_as_markdown(tmp_path: Path, text: str) -> None:
    """The same as Markdown.

    Every angle bracket of the bundle is escaped, so no element of it is left but those of the page itself.
    """
    shown = markdown(page_of(evil_bundle(tmp_path, text), signed=text))
    assert {tag for tag, _ in Seen(shown).tags} <= {"details", "summary", "pre", "code", "ul", "li"}


def test_text_that_turns_the_direction_of_writing(tmp_path: Path) -> None:
    """A name has characters that turn the direction of writing, or that nobody sees.

    They are written out on the page in both forms, so that no name looks like another.
    """
    page = page_of(evil_bundle(tmp_path, BIDI), signed="none")
    for shown in (html(page), markdown(page)):
        assert not set(BIDI) - set("safelpmaxe.livex") & set(shown)
        assert "u202e" in shown


def test_page_may_load_and_run_nothing() -> None:
    """Whatever should still get into the page is to have no effect.

    Its policy allows the one style in it, by its digest, and nothing else; there is no script and no link elsewhere.
    """
    shown = html(page_of(Subject.load(SHIPPED / "internal-mirror"), signed="none"))
    seen = Seen(shown)
    policy = next(attrs["content"] for tag, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", shown, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"url\(|@import|//", style[1].replace("</style>", ""))
    assert not any(value for _, attrs in seen.tags for value in attrs.values() if value and "//" in value)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in seen.tags}


def test_policy_that_would_hide_behind_another(tmp_path: Path) -> None:
    """Two ids are the same once what no link can hold is taken out of them.

    Each has an anchor of its own, so that a link leads to the policy that it names.
    """
    policies = '@id("a b") permit (principal, action, resource); @id("a-b") forbid (principal, action, resource);'
    subject = Subject.load(write_bundle(tmp_path, policies))
    anchors = [attrs["id"] for tag, attrs in Seen(html(page_of(subject, signed="none"))).tags if tag == "article"]
    assert anchors == ["policy-a-b", "policy-a-b-2"]
