"""Sentences about what agents do, and the Cedar expressions that they mean.

.. code-block:: text

    WHO VERB [VALUE] {[FILLER] [not] KEY VALUE {, VALUE} [or VALUE]}

* WHO: ``anyone``, or ``agent`` with any of ``"name"``, ``in GROUP``, ``not in GROUP``, ``with trust internal``,
  ``of tenant "name"``. A group is ``AgentGroup::"name"``, ``group name`` or a name.
* VERB: that of an action, such as ``connects``, ``mounts writable``, ``calls``, or the name of an action.
* KEY: what can be said of the action, such as ``host``, ``port``, ``ipClass``, ``under``; a value right behind the verb
  is its host, its path, its tool and so on.
* FILLER: ``to``, ``on``, ``with``, ``a`` and their like, which mean nothing.

For example: ``agent in AgentGroup::"untrusted" connects to ipClass private``, ``anyone writes /etc``, ``agent "ci"
calls tool exec_command without approval``, ``anyone connects to not domain corp.example on port 22, 80 or 8000-8999``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cedarbox.errors import CanonicalizationError, ConfigurationError
from cedarbox.review.properties.vocabulary import BARE, FLAGS, KEYS, VERBS
from cedarbox.review.written import quoted

__all__ = ["Meaning", "meaning"]

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<entity>(?:Sandbox::)?(?P<kind>[A-Za-z]+)::"(?P<id>(?:[^"\\]|\\.)*)")|"(?P<text>(?:[^"\\]|\\.)*)"'
    r'|(?P<comma>,)|(?P<word>[^\s,"]+))'
)
_FILLERS: Final = frozenset(
    {"a", "an", "the", "to", "on", "at", "with", "as", "from", "via", "for", "of", "and", "by", "in", "file", "files"}
)
_MAX_SENTENCE: Final = 1000
_WHO_HINT: Final = 'begin with anyone, or such as: agent in AgentGroup::"name"'


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a sentence means.

    Attributes:
        conditions: For each action that it is about, a Cedar expression that is true of the requests meant.
        approved_too: A call that waits for an approval counts as well.
    """

    conditions: Mapping[str, str]
    approved_too: bool = True


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    kind: str
    """``word``, ``text`` (in quotes), ``comma``, or ``entity``, of which ``type`` is the type."""
    type: str = ""


def meaning(sentence: str, *, who: bool = True) -> Meaning:
    """Read a sentence.

    Args:
        sentence: The sentence.
        who: It begins with who does it; without, anyone does.

    Raises:
        ConfigurationError: It is none; the message says what was expected.
    """
    return _Sentence(sentence).read(who=who)


class _Sentence:
    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > _MAX_SENTENCE:
            raise self._wrong(f"it is longer than {_MAX_SENTENCE} characters", "write one thing in a sentence")
        self._tokens = self._split()
        self._at = 0

    def read(self, *, who: bool) -> Meaning:
        agents = self._who() if who else []
        actions = self._verb()
        conditions: dict[str, list[str]] = {action: list(agents) for action in actions}
        free = False
        bare = True
        while self._at < len(self._tokens):
            if self._is("without", "approval"):
                if actions != ("invokeTool",):
                    raise self._wrong("only a call of a tool can wait for an approval", "leave: without approval")
                free = True
                self._at += 2
                continue
            word = self._peek()
            if word is not None and word.kind == "word" and word.text.lower() in _FILLERS and not self._last():
                self._at += 1
                continue
            self._qualifier(actions, conditions, bare=bare)
            bare = False
        told = {action: " && ".join(parts) or "true" for action, parts in conditions.items()}
        return Meaning(told, approved_too=not free)

    def _who(self) -> list[str]:
        if self._take("anyone", "anybody") or (self._is("any", "agent") and self._skip(2)):
            return []
        if not self._take("agent", "agents"):
            raise self._wrong(f"it begins with {self._shown()}", _WHO_HINT)
        found: list[str] = []
        while (token := self._peek()) is not None:
            negated = self._is("not", "in")
            if token.kind == "text" or (token.kind == "entity" and token.type == "Agent"):
                if any(each.startswith("principal == ") for each in found):
                    raise self._wrong("nobody is two agents", "write a property for each")
                self._at += 1
                found.append(f"principal == Sandbox::Agent::{quoted(token.text)}")
            elif negated or self._is("in"):
                self._at += 2 if negated else 1
                told = f"principal in Sandbox::AgentGroup::{quoted(self._group())}"
                found.append(f"!({told})" if negated else told)
            elif self._is("with", "trust"):
                self._at += 2
                found.append(self._trust())
            elif self._is("of", "tenant"):
                self._at += 2
                found.append(f"principal.tenant == Sandbox::Tenant::{quoted(self._value('the name of a tenant'))}")
            else:
                break
            self._take("and")
        return found

    def _group(self) -> str:
        token = self._peek()
        if token is not None and token.kind == "entity" and token.type != "AgentGroup":
            raise self._wrong(f"{token.type} is no group of agents", 'write AgentGroup::"name"')
        self._take("group")
        return self._value("the name of a group")

    def _trust(self) -> str:
        name = self._value("untrusted, internal or trusted")
        if name not in {"untrusted", "internal", "trusted"}:
            raise self._wrong(f"{name!r} is no trust", "untrusted, internal or trusted")
        return f"principal.trust == Sandbox::Trust::{quoted(name)}"

    def _verb(self) -> tuple[str, ...]:
        words = [token.text for token in self._tokens[self._at :] if token.kind == "word"][:4]
        for length in range(len(words), 0, -1):
            tried = tuple(words[:length])
            # "creates a sandbox"
            short = tried[1:] if len(tried) < 3 or tried[1] not in {"a", "an", "the"} else tried[2:]
            for first in _stems(tried[0]):
                if (found := VERBS.get((first, *short))) is not None:
                    self._at += length
                    return found
        known = ", ".join(sorted({" ".join(verb) for verb in VERBS}))
        raise self._wrong(f"{self._shown()} is no verb", f"known: {known}")

    def _qualifier(self, actions: Sequence[str], conditions: dict[str, list[str]], *, bare: bool) -> None:
        negated = self._take("not")
        self._fillers()
        token = self._peek()
        if token is None:
            raise self._wrong("it ends too early", "say what comes behind: not")
        name = token.text if token.kind == "word" else ""
        if self._is("ip", "class"):
            name, self._at = "ipClass", self._at + 1
        if name and all(name in FLAGS.get(action, {}) for action in actions):
            self._at += 1
            self._add(conditions, actions, lambda action: FLAGS[action][name], negated=negated)
            return
        known = [action for action in actions if name in KEYS[action]]
        if name and known:
            if len(known) < len(actions):
                lacking = next(action for action in actions if action not in known)
                raise self._wrong(
                    f"{lacking} has no {name}", f"name the action instead of the verb, such as {known[0]}"
                )
            self._at += 1
        elif bare and token.kind in {"word", "text"} and all(action in BARE for action in actions):
            name = ""
            self._refuse_two_meanings(token, actions)
        else:
            told = sorted({key for action in actions for key in (*KEYS[action], *FLAGS.get(action, ()))})
            raise self._wrong(f"{self._shown()} cannot be said of {', '.join(actions)}", f"known: {', '.join(told)}")
        negated = self._take("not") or negated
        values = self._values(name or "value")

        def told_of(action: str) -> str:
            chosen = name or BARE[action]
            # Outside of a directory is whatever is not in it: what is above it, too.
            key = KEYS[action]["under" if negated and chosen == "reaching" and not name else chosen]
            made = []
            for value in values:
                try:
                    made.append(key.make(value))
                except CanonicalizationError as error:
                    hint = error.hint or f"expected {key.expects}"
                    raise self._wrong(f"{name or BARE[action]}: {error.message}", hint) from None
            return made[0] if len(made) == 1 else f"({' || '.join(made)})"

        self._add(conditions, actions, told_of, negated=negated)

    def _refuse_two_meanings(self, token: _Token, actions: Sequence[str]) -> None:
        """Refuse `connects to metadata`, which would be about a host of that name, and so about nothing."""
        for action in actions if token.kind == "word" else ():
            for name, key in KEYS[action].items():
                if token.text in key.members and name != BARE[action]:
                    hint = f"write {name} {token.text}, or {BARE[action]} {token.text}"
                    raise self._wrong(f"{token.text!r} could be the {BARE[action]} or the {name}", hint)

    def _add(self, conditions: dict[str, list[str]], actions: Sequence[str], make: object, *, negated: bool) -> None:
        assert callable(make)  # noqa: S101 - for the type checker
        for action in actions:
            told = make(action)
            conditions[action].append(f"!({told})" if negated else told)

    def _values(self, name: str) -> list[str]:
        found = [self._value(f"what the {name} is")]
        while True:
            at = self._at
            comma = self._peek()
            more = comma is not None and comma.kind == "comma"
            self._at += more
            more = self._take("or") or more
            if not more:
                self._at = at
                return found
            found.append(self._value(f"another {name}"))

    def _value(self, expected: str) -> str:
        token = self._peek()
        if token is None or token.kind == "comma":
            raise self._wrong(f"{self._shown()} stands where {expected} should", f"expected {expected}")
        self._at += 1
        return token.text

    def _fillers(self) -> None:
        while (token := self._peek()) is not None and token.kind == "word" and token.text.lower() in _FILLERS:
            self._at += 1

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _last(self) -> bool:
        return self._at == len(self._tokens) - 1

    def _is(self, *words: str) -> bool:
        found = self._tokens[self._at : self._at + len(words)]
        return [token.text for token in found if token.kind == "word"] == list(words)

    def _take(self, *words: str) -> bool:
        return any(self._is(word) and self._skip(1) for word in words)

    def _skip(self, number: int) -> bool:
        self._at += number
        return True

    def _shown(self) -> str:
        token = self._peek()
        return "the end" if token is None else repr(token.text[:60])

    def _split(self) -> list[_Token]:
        found = []
        at, text = 0, self._text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._wrong("a quotation mark without its other half", 'write "…"')
            at = match.end()
            kind = next(name for name in ("entity", "text", "comma", "word") if match[name] is not None)
            content = match["id"] if kind == "entity" else match[kind]
            if kind in {"entity", "text"}:
                content = re.sub(r"\\(.)", r"\1", content)
            found.append(_Token(content, kind, match["kind"] or ""))
        return found

    def _wrong(self, message: str, hint: str) -> ConfigurationError:
        return ConfigurationError(f"{self._text[:200]!r} is no sentence about policies: {message}", hint=hint)


def _stems(word: str) -> tuple[str, ...]:
    # As it is, and without the ending of the third person: connects, publishes, does.
    return (word, word.removesuffix("s"), word.removesuffix("es"))
