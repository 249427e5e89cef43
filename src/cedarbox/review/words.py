"""Policies in plain English, for people who do not read Cedar.

A sentence is made of a policy's scope and its conditions. Nothing of a policy is left out: a condition for which there
are no words is told as its Cedar text. So what is told is never wider than the policy, and never narrower.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.phrases import (
    attribute_had,
    condition_words,
    subject_of,
    uid_words,
    uids_of,
    value_words,
)
from cedarbox.review.pieces import Piece, Words, listed
from cedarbox.review.vocabulary import ACTIONS, GROUPS, SUBJECTS
from cedarbox.review.written import Node

__all__ = ["Sentence", "sentence_of"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One policy in words.

    Attributes:
        lead: Who may, or may not, do what.
        conditions: What must hold besides, all of it; empty when that is all.
    """

    lead: Words
    conditions: tuple[Words, ...]

    @property
    def words(self) -> Words:
        """All of it in one sentence."""
        if not self.conditions:
            return Words.of(self.lead, ".")
        # A condition may hold a comma, an "and" or an "or" of its own.
        own = any(word in str(told) for told in self.conditions for word in (" and ", " or ", " nor "))
        plain = len(self.conditions) < 3 and not own
        between, last = (", ", "and") if plain else ("; ", "; and")
        return Words.of(self.lead, " when ", listed(self.conditions, last, between=between), ".")

    def __str__(self) -> str:
        return str(self.words)


def sentence_of(est: Node) -> Sentence:
    """Return a policy in words.

    Args:
        est: The policy in Cedar's JSON form, checked against the schema that cedarbox enforces.
    """
    parts = [part for condition in est.get("conditions", ()) for part in _conjuncts(condition)]
    forbids = est["effect"] == "forbid"
    about, parts = _resource_named(est["resource"], parts, forbids=forbids)
    how, parts = _adverbs(parts)
    modal = " may not " if forbids and est["principal"]["op"] == "==" else " may "
    lead = Words.of(_who(est["principal"], forbids=forbids), modal, _acts(est["action"], about, forbids=forbids), how)
    return Sentence(lead, tuple(_merged(parts)))


def _conjuncts(condition: Node) -> list[tuple[Node, bool]]:
    """Take a condition apart into what must hold, all of it.

    Args:
        condition: One of ``conditions`` of a policy, ``when`` or ``unless``.

    Returns:
        Expressions in the order in which Cedar evaluates them, each with what it must be: true or false.
    """
    return _apart(condition["body"], want=condition["kind"] == "when")


def _apart(node: Node, *, want: bool) -> list[tuple[Node, bool]]:
    (operator, given), *_ = node.items()
    if operator == ("&&" if want else "||"):
        return [*_apart(given["left"], want=want), *_apart(given["right"], want=want)]
    if operator == "!":
        return _apart(given["arg"], want=not want)
    return [(node, want)]


def _who(scope: Node, *, forbids: bool) -> Words:
    match scope["op"]:
        case "All":
            return Words.of("Nobody" if forbids else "Every declared agent")
        case "==":
            return _capital(uid_words(scope["entity"]))
        case "in":
            told = uid_words(scope["entity"], below=True)
            return Words.of("No ", told) if forbids else _capital(told)
        case "is":
            inside = scope.get("in")
            told = Words.of("declared agents") if inside is None else uid_words(inside["entity"], below=True)
            return Words.of("No ", told) if forbids else _capital(told)
        case _:
            return Words((Piece(json.dumps(scope, ensure_ascii=False), "cedar"),))


def _capital(told: Words) -> Words:
    first, *rest = told.pieces
    if first.kind != "words" or not first.text:
        return told
    return Words((Piece(first.text[0].upper() + first.text[1:]), *rest))


def _acts(scope: Node, about: Words | None, *, forbids: bool) -> Words:
    uids: Sequence[Mapping[str, str]] = scope.get("entities") or ([scope["entity"]] if "entity" in scope else [])
    named = [uid["id"] for uid in uids]
    if scope["op"] == "All":
        return Words.of("do anything that there is an action for, with ", about or "any resource")
    last = "or" if forbids else "and"
    said: list[Words] = []
    plain = [name for name in named if name in ACTION_GROUPS]
    # Verbs with one kind of resource share it: read or write any path.
    while plain:
        act = ACTIONS[plain[0]]
        alike = [plain[0]]
        if not act.tail:
            alike = [name for name in plain if replace(ACTIONS[name], verb="") == replace(act, verb="")]
        plain = [name for name in plain if name not in alike]
        verbs = listed([Words.of(ACTIONS[name].verb) for name in alike], last)
        link, tail = (f" {part}" if part else "" for part in (act.link, act.tail))
        said.append(Words.of(verbs, f"{link} ", about or act.anything, tail))
    for group in (name for name in named if name not in ACTION_GROUPS):
        members = ", ".join(name for name, of in ACTION_GROUPS.items() if of == group)
        title = GROUPS[group][0].lower() if group in GROUPS else group
        told = f"do anything of the group {group} ({title}: {members})"
        said.append(Words.of(told, *(() if about is None else (" with ", about))))
    return listed(said, f"; {last}" if len(said) > 2 else last, between="; " if len(said) > 2 else ", ")


def _resource_named(
    scope: Node, parts: list[tuple[Node, bool]], *, forbids: bool
) -> tuple[Words | None, list[tuple[Node, bool]]]:
    """Return what the policy names as its resource, in its scope or in the first condition that does."""
    joined = " or any" if forbids else " and every"
    told = _scope_resource(scope, joined)
    if told is not None:
        return told, parts
    for part in parts:
        node, want = part
        (operator, given), *_ = node.items()
        if not want or operator not in {"==", "in"} or subject_of(given["left"]) != "resource":
            continue
        uids = uids_of(given["right"])
        if uids:
            named = [uid_words(uid, below=operator == "in", joined=joined) for uid in uids]
            return _together(named), [other for other in parts if other is not part]
    return None, parts


def _together(named: Sequence[Words]) -> Words:
    """Join names; what is said of each in brackets, or before each, is said once."""
    heads, tails = {w.pieces[0] for w in named}, {w.pieces[-1] for w in named}
    exact = Piece(" (this name exactly)")
    if len(named) > 1 and tails == {exact}:
        return Words.of(listed([Words(w.pieces[:-1]) for w in named], "or"), " (these names exactly)")
    if len(named) > 1 and len(heads) == 1 and next(iter(heads)).kind == "words" and named[0].pieces[0].text:
        first, *rest = named
        return listed([first, *(Words(w.pieces[1:]) for w in rest)], "or")
    return listed(named, "or")


_TYPES: Final[Mapping[str, str]] = {"Host": "any host by its name", "Address": "any address by itself"}
"""Resources of one type, where there are words for them."""


def _scope_resource(scope: Node, joined: str) -> Words | None:
    match scope["op"]:
        case "All":
            return None
        case "==":
            return uid_words(scope["entity"])
        case "in":
            return uid_words(scope["entity"], below=True, joined=joined)
        case "is":
            name = str(scope["entity_type"]).removeprefix(f"{NAMESPACE}::")
            kind = (
                Words.of(_TYPES[name]) if name in _TYPES else Words.of("any resource of the type ", Words.value(name))
            )
            inside = scope.get("in")
            return kind if inside is None else Words.of(kind, " among ", uid_words(inside["entity"], below=True))
        case _:
            return Words((Piece(json.dumps(scope, ensure_ascii=False), "cedar"),))


def _adverbs(parts: list[tuple[Node, bool]]) -> tuple[Words, list[tuple[Node, bool]]]:
    """Return protocol and port as they are said of a connection: over TLS on port 443."""
    said: dict[str, Words] = {}
    left = []
    for node, want in parts:
        (operator, given), *_ = node.items()
        subject = subject_of(given["left"]) if operator == "==" else None
        value = value_words(given["right"]) if operator == "==" else None
        if want and subject in {"context.proto", "context.port"} and value is not None and subject not in said:
            said[subject] = Words.of(" over " if subject == "context.proto" else " on port ", value)
        else:
            left.append((node, want))
    return Words.of(*(said[name] for name in ("context.proto", "context.port") if name in said)), left


def _merged(parts: Sequence[tuple[Node, bool]]) -> Iterable[Words]:
    """Say *is known* and what it is in one phrase, where one follows the other."""
    waiting = list(parts)
    while waiting:
        node, want = waiting.pop(0)
        told = condition_words(node, want=want)
        subject = attribute_had(node) if want else None
        if subject is not None and waiting and subject in SUBJECTS:
            after = condition_words(waiting[0][0], want=waiting[0][1])
            begins = f"{SUBJECTS[subject]} is "
            if after.pieces[0].kind == "words" and after.pieces[0].text.startswith(begins):
                rest = Words((Piece(after.pieces[0].text.removeprefix(begins)), *after.pieces[1:]))
                limit = rest.pieces[0].text.startswith(("at ", "more ", "less "))
                told = Words.of(f"{SUBJECTS[subject]} is known{' and' if limit else ', and is'} ", rest)
                waiting.pop(0)
        yield told
