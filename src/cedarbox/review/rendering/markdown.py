"""A page about a bundle as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Final

from cedarbox.review.pieces import Words
from cedarbox.review.rendering.page import Group, Page, Shown
from cedarbox.text import printable

__all__ = ["markdown"]

# What Markdown, or a site that shows it, takes for more than text.
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()#+!|~@$^:-])")


def markdown(page: Page) -> str:
    """Return a page as Markdown, with a foldable block for each policy as GitHub and GitLab show it."""
    return "\n".join(_lines(page)).rstrip() + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield from (f"# {_text(page.name)}", "", _text(page.description), "")
    yield from _table(("", ""), [(_text(label), _text(value)) for label, value in page.facts])
    yield "A request of an agent is allowed when a policy permits it and none forbids it."
    yield "**What nothing permits is denied.** What has no words here is quoted as Cedar."
    yield ""
    for group in page.groups:
        if group.permits or group.forbids or group.never:
            yield from _group(group)
    yield from ("## Endpoints", "", "What may be connected to, as a list for those who run the firewall.", "")
    for listed in page.endpoints:
        yield from (f"### {_text(', '.join(listed.agents))}", "")
        yield from (f"- {_text(note)}" for note in listed.notes)
        yield from [""] * bool(listed.notes)
        if not listed.rows:
            yield from ("Nothing." if listed.exact else "Nothing that could be listed.", "")
            continue
        rows = []
        for row in listed.rows:
            but = f", but not {', '.join(row.but)}" if row.but else ""
            address = " ".join((*row.classes, *(row.networks if row.networks != ("any",) else ())))
            only = [f"only when {' and '.join(_code(text) for text in row.when)}"] if row.when else []
            if row.forbidden_by:
                only.append(f"some of it is forbidden by {_text(', '.join(row.forbidden_by))}")
            if not only and not row.exact:
                only.append("unless a policy fails to evaluate; then everything is denied")
            note = f": {'; '.join(only)}" if only else ""
            cells = (row.host + but, row.ports, ", ".join(row.protocols), address)
            rows.append((*map(_text, cells), f"{_text(row.policy)}{note}"))
        yield from _table(("host", "port", "protocol", "address", "policy"), rows)
        if listed.exact:
            yield "This list is exact."
        elif not all(row.exact for row in listed.rows):
            yield "A row with a condition says more than the policies permit."
        yield ""
    yield from ("## Agents", "", "An agent that is not declared is denied everything.", "")
    agents = [(agent.id, ", ".join(agent.groups) or "none", agent.tenant, agent.trust) for agent in page.agents]
    yield from _table(("agent", "groups", "tenant", "trust"), [tuple(map(_text, cells)) for cells in agents])
    if page.approvers:
        yield f"Approvals can be given by: {_text(', '.join(page.approvers))}."


def _group(group: Group) -> Iterator[str]:
    yield from (f"## {_text(group.title)}", "", _text(group.about), "")
    for title, policies in (
        ("What may be done", group.permits),
        ("What may not, whatever permits it", group.forbids),
    ):
        if policies:
            yield from (f"### {title}", "")
        for shown in policies:
            yield from _policy(shown)
    if group.never:
        yield from ("**Nothing here permits to:**", "")
        yield from (f"- {_text(act)}" for act in group.never)
        yield ""


def _policy(shown: Shown) -> Iterator[str]:
    yield from (f"#### {_text(shown.id)} ({shown.effect})", "")
    if len(shown.sentence.conditions) > 1:
        yield from (f"{_words(shown.sentence.lead)}, when all of this holds:", "")
        yield from (f"- {_words(condition)}" for condition in shown.sentence.conditions)
    else:
        yield _words(shown.sentence.words)
    yield ""
    for label, text in (
        ("Reason", shown.reason),
        ("Instead", shown.advice),
        ("Needs an approval, signed by", shown.approvers),
    ):
        if text:
            yield from (f"{label}: {_text(text)}", "")
    for name, text in shown.annotations:
        yield from (f"{_text(f'@{name}')}: {_text(text)}", "")
    for paragraph in shown.comment:
        yield from (_text(paragraph), "")
    source = "\n".join(printable(line) for line in shown.source.replace("\t", "    ").split("\n"))
    place = f"{_text(shown.file)}:{shown.line}"
    # A blank line would end the block of HTML, and Markdown begin again in it.
    blank = escape(source).replace("\n\n", "\n&#8203;\n")
    yield f"<details><summary>The policy in Cedar, {place}</summary><pre><code>{blank}</code></pre></details>"
    yield ""
    if shown.tests:
        told = [f"{test.answer}: {test.title} ({test.place}){'' if test.passed else ' FAILED'}" for test in shown.tests]
        items = "".join(f"<li>{escape(printable(text))}</li>" for text in told)
        many = f"{len(told)} test{'s' if len(told) != 1 else ''} in which it decides"
        yield f"<details><summary>{many}</summary><ul>{items}</ul></details>"
    else:
        yield "No test shows it at work."
    yield ""


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _words(told: Words) -> str:
    marks = {"words": "{}", "value": "**{}**", "cedar": "{}"}
    said = []
    for piece in told.pieces:
        inner = _code(piece.text) if piece.kind == "cedar" else _text(piece.text, plain=piece.kind == "words")
        said.append(marks[piece.kind].replace("{}", inner) if inner.strip() else inner)
    return "".join(said)


def _code(text: str) -> str:
    # Not between backquotes: what is in them is not escaped, and a backquote or a bar would end it.
    return f"<code>{_text(text)}</code>"


def _text(text: str, *, plain: bool = False) -> str:
    """Return text of others as Markdown that says just that; ``plain`` for words of ours, which need their spaces."""
    one = printable(text if plain else " ".join(text.split()))
    return _SPECIAL.sub(r"\\\1", escape(one, quote=False))
