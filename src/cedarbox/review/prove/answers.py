"""What the prover says: found, none, or not decided, and the request that it found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cedarbox.text import printable

__all__ = ["Answer", "Replay", "Verdict", "Witness"]

Verdict = Literal["found", "none", "undecided"]


@dataclass(frozen=True, slots=True)
class Replay:
    """What Cedar itself said of a request on one side.

    Attributes:
        allowed: The request goes through: for a bundle only if Cedar says Allow and reports no error.
        decision: Cedar's own word, ``Allow`` or ``Deny``; ``Undeclared`` when the bundle does not have the principal.
        policies: Ids of the policies that determined it, sorted.
        errors: What could not be evaluated.
    """

    allowed: bool
    decision: str
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Witness:
    """A request for which the goal is so, replayed through Cedar.

    Attributes:
        principal: Its ``type`` and ``id``.
        action: Its ``type`` and ``id``.
        resource: Its ``type`` and ``id``.
        context: In Cedar's JSON form.
        entities: In Cedar's JSON form. For a bundle: what the request brings along; the principals are the bundle's.
        sides: What Cedar said of it, by side.
    """

    principal: Mapping[str, str]
    action: Mapping[str, str]
    resource: Mapping[str, str]
    context: Mapping[str, Any]
    entities: Sequence[Mapping[str, Any]]
    sides: Mapping[str, Replay] = field(default_factory=dict)

    def told(self) -> str:
        """Return it in one line: who, what, on what, with which context."""
        # Time and backend are in every request, and seldom what it is about.
        said = sorted(_flat(self.context), key=lambda pair: pair[0].startswith("base."))
        context = " ".join(f"{name}={value}" for name, value in said)
        who, what, on = (_name(uid) for uid in (self.principal, self.action, self.resource))
        extra = [f"principal{told}" for told in self._held(self.principal)]
        if self.resource != self.principal:
            extra += [f"resource{told}" for told in self._held(self.resource)]
        return printable(" ".join(part for part in (f"{who} {what} {on}", *extra, context) if part))

    def _held(self, uid: Mapping[str, str]) -> Iterator[str]:
        """Yield what the request says of an entity, but for what merely repeats its id."""
        held = next((each for each in self.entities if each["uid"] == uid), {})
        own = {name: value for name, value in held.get("attrs", {}).items() if value != uid["id"]}
        yield from (f".{name}={value}" for name, value in _flat(own))
        yield from (f".tags[{json.dumps(name)}]={_value(value)}" for name, value in held.get("tags", {}).items())
        # The domains that a host is in, and the directories of a path, are in its name.
        above = [each for each in held.get("parents", ()) if not _repeats(uid["id"], each["id"])]
        yield from (f" in {_name(each)}" for each in above)

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "principal": dict(self.principal),
            "action": dict(self.action),
            "resource": dict(self.resource),
            "context": dict(self.context),
            "entities": list(self.entities),
            "sides": {
                name: {
                    "allowed": replay.allowed,
                    "decision": replay.decision,
                    "policies": list(replay.policies),
                    "errors": list(replay.errors),
                }
                for name, replay in self.sides.items()
            },
        }


@dataclass(frozen=True)
class Answer:
    """The answer to one query.

    Attributes:
        verdict: ``found``: there is such a request, see ``witness``. ``none``: proved that there is none.
            ``undecided``: neither.
        witness: The request; None unless found.
        why: Why it is undecided, or what a ``none`` rests on besides; one line, may be empty.
        solver: Who decided: ``cvc5``, ``z3``, ``cvc5+z3``; ``simplification`` when no solver was needed.
        seconds: How long it took, encoding and replay included.
        solver_seconds: How much of that solvers took.
    """

    verdict: Verdict
    witness: Witness | None = None
    why: str = ""
    solver: str = ""
    seconds: float = 0.0
    solver_seconds: float = 0.0


def _repeats(name: str, part: str) -> bool:
    return name.startswith(part) or name.endswith(part)


def _name(uid: Mapping[str, str]) -> str:
    kind = uid["type"].rsplit("::", 1)[-1]
    return uid["id"] if kind == "Action" else f"{kind}::{json.dumps(uid['id'], ensure_ascii=False)}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, each in value.items():
        if isinstance(each, Mapping) and not ({"__extn", "__entity"} & each.keys()):
            found += _flat(each, f"{prefix}{name}.")
        else:
            found.append((prefix + name, _value(each)))
    return found


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and "__entity" in value:
        return str(value["__entity"]["id"])
    if isinstance(value, Mapping) and "__extn" in value:
        inner = value["__extn"]
        return str(inner["arg"]) if "arg" in inner else f"{inner['fn']}({', '.join(map(_value, inner['args']))})"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
