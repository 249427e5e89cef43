"""Expressions of Cedar in plain English: what a condition says, in a phrase.

For what has no words, the phrase is the Cedar text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.pieces import Piece, Words, listed
from cedarbox.review.vocabulary import ENUM_WORDS, KINDS, SUBJECTS, TRUTHS
from cedarbox.review.written import Node, cedar_text

__all__ = [
    "attribute_had",
    "condition_words",
    "subject_of",
    "uid_words",
    "uids_of",
    "value_words",
]


def condition_words(node: Node, *, want: bool = True) -> Words:
    """Return an expression in words, as something that holds.

    Args:
        node: A Boolean expression in Cedar's JSON form.
        want: False to say that it does not hold.
    """
    told = _told(node, want=want)
    if told is not None:
        return told
    text = cedar_text(node)
    return Words.of(Words((Piece(text if want else f"!({text})", "cedar"),)), " holds")


def subject_of(node: Node) -> str | None:
    """Return the path of an attribute, such as ``context.http.method``; None for any other expression."""
    (operator, given), *_ = node.items()
    if operator == "Var":
        return str(given)
    if operator == ".":
        left = subject_of(given["left"])
        return None if left is None else f"{left}.{given['attr']}"
    return None


def uid_words(uid: Mapping[str, str], *, below: bool = False, joined: str = " and every") -> Words:
    """Return an entity in words.

    Args:
        uid: Its ``type`` and ``id``.
        below: It and all that is in it.
        joined: Between it and what is in it: ``and every`` of what may be done, ``or any`` of what may not.
    """
    name = uid["type"].removeprefix(f"{NAMESPACE}::")
    if (name, uid["id"]) in ENUM_WORDS:
        return Words.value(ENUM_WORDS[name, uid["id"]])
    if name == "Domain" and uid["id"] == "." and not below:
        return Words.of("any name at all")
    kind = KINDS.get(name)
    if kind is None:
        return _text_words(uid["id"])
    before, _, after = (kind.below if below and kind.below else kind.one).partition("{}")
    under = f"{joined}{kind.under}" if below and kind.under else ""
    return Words.of(before, _text_words(uid["id"]), f"{after}{under}")


def _text_words(text: str) -> Words:
    """Return a text as a value: in quotes when its end, or a word of it, could be taken for ours."""
    alone = text and not any(char.isspace() for char in text) and text[0] != '"'
    return Words.value(text if alone else json.dumps(text, ensure_ascii=False))


def value_words(node: Node) -> Words | None:
    """Return a literal in words; None for an expression that is none."""
    (operator, given), *_ = node.items()
    if operator == "Value":
        if isinstance(given, Mapping) and "__entity" in given:
            return uid_words(given["__entity"])
        if isinstance(given, bool):
            return Words.value("true" if given else "false")
        return _text_words(given) if isinstance(given, str) else Words.value(json.dumps(given))
    if operator in _LITERALS and len(given) == 1 and isinstance(given[0].get("Value"), str):
        return Words.value(given[0]["Value"])
    if operator == "neg" and isinstance(given["arg"].get("Value"), int):
        return Words.value(f"-{given['arg']['Value']}")
    return None


_LITERALS: Final = frozenset({"ip", "decimal", "datetime", "duration"})


_COMPARED: Final[Mapping[str, tuple[str, str]]] = {
    "<": ("less than", "at least"),
    "<=": ("at most", "more than"),
    ">": ("more than", "at most"),
    ">=": ("at least", "less than"),
    "lessThan": ("less than", "at least"),
    "lessThanOrEqual": ("at most", "more than"),
    "greaterThan": ("more than", "at most"),
    "greaterThanOrEqual": ("at least", "less than"),
}


_MOMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "<": ("before", "at or after"),
    "<=": ("at or before", "after"),
    ">": ("after", "at or before"),
    ">=": ("at or after", "before"),
}
"""Of the time of a request, and of its time of day."""


_IP_KINDS: Final = {
    "isLoopback": "a loopback address",
    "isMulticast": "a multicast address",
    "isIpv4": "an IPv4 address",
    "isIpv6": "an IPv6 address",
}


_TURNED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _told(node: Node, *, want: bool) -> Words | None:  # noqa: PLR0911, PLR0912  # one return for each operator
    (operator, given), *_ = node.items()
    match operator:
        case "&&" | "||":
            left, right = _told(given["left"], want=want), _told(given["right"], want=want)
            if left is None or right is None:
                return None
            both = (operator == "&&") is want
            sides = [
                Words.of("(", told, ")") if _joins(side) else told
                for told, side in ((left, given["left"]), (right, given["right"]))
            ]
            return Words.of(sides[0], " and " if both else " or ", sides[1])
        case "!":
            return _told(given["arg"], want=not want)
        case "Value" if isinstance(given, bool):
            return Words.of("always" if given is want else "never")
        case "Var" | ".":
            truth = TRUTHS.get(subject_of(node) or "")
            return None if truth is None else Words.of(truth[0] if want else truth[1])
        case "==" | "!=":
            return _equal(given, want=want is (operator == "=="))
        case "<" | "<=" | ">" | ">=":
            return _compare(operator, given["left"], given["right"], want=want)
        case "lessThan" | "lessThanOrEqual" | "greaterThan" | "greaterThanOrEqual":
            return _compare(operator, given[0], given[1], want=want)
        case "in":
            return _inside(given, want=want)
        case "contains":
            return _member(given, want=want)
        case "has":
            subject = attribute_had(node) or ""
            if subject in _ASKED:
                yes, no = _ASKED[subject]
                return Words.of(yes if want else no)
            return (
                None if subject not in SUBJECTS else Words.of(f"{SUBJECTS[subject]} is {'' if want else 'not '}known")
            )
        case "like":
            return _like(given, want=want)
        case "is" if (about := _about(given["left"])) is not None and "in" not in given:
            kind = Words.value(str(given["entity_type"]).removeprefix(f"{NAMESPACE}::"))
            return Words.of(f"{about} is {'' if want else 'not '}of the type ", kind)
        case "isInRange":
            network, subject = value_words(given[1]), subject_of(given[0]) or ""
            if network is None or subject not in SUBJECTS:
                return None
            return Words.of(f"{SUBJECTS[subject]} is {'' if want else 'not '}in ", network)
        case _ if operator in _IP_KINDS and (about := _about(given[0])) is not None:
            return Words.of(f"{about} is {'' if want else 'not '}{_IP_KINDS[operator]}")
        case "hasTag" if value_words(given["right"]) is not None and subject_of(given["left"]) == "principal":
            tag = value_words(given["right"]) or Words(())
            return Words.of(f"the agent has {'the' if want else 'no'} tag ", tag)
    return None


_ASKED: Final = {
    "context.base.tool": ("it is the call of a tool", "it is not the call of a tool"),
    "context.base.agent": ("it is the call of an SDK agent", "it is not the call of an SDK agent"),
    "context.http": ("a request in plain HTTP is asked about", "no request in plain HTTP is asked about"),
    "context.http.upgrade": (
        "the request asks the connection to become another protocol",
        "the request leaves the connection what it is",
    ),
}


def attribute_had(node: Node) -> str | None:
    """Return the path of the attribute that ``has`` asks for; None for any other expression."""
    (operator, given), *_ = node.items()
    if operator != "has":
        return None
    left = subject_of(given["left"])
    return None if left is None else f"{left}.{given['attr']}"


def _joins(node: Node) -> bool:
    return next(iter(node)) in {"&&", "||"} or (next(iter(node)) == "!" and _joins(node["!"]["arg"]))


def _about(node: Node) -> str | None:
    """Return what an expression is about, in words."""
    subject = subject_of(node)
    if subject is not None:
        return SUBJECTS.get(subject)
    (operator, given), *_ = node.items()
    if (
        operator == "getTag"
        and subject_of(given["left"]) == "principal"
        and isinstance(given["right"].get("Value"), str)
    ):
        return f"the tag {_text_words(given['right']['Value'])} of the agent"
    if operator == "toTime" and subject_of(given[0]) == _TIME:
        return "the time of day in UTC"
    return None


_TIME: Final = "context.base.at"


def _equal(given: Node, *, want: bool) -> Words | None:
    for side, other in (("left", "right"), ("right", "left")):
        value = given[other].get("Value")
        if isinstance(value, bool):
            return _told(given[side], want=want is value)
    for side, other in (("left", "right"), ("right", "left")):
        about, value = _about(given[side]), value_words(given[other])
        if about is not None and value is not None:
            return Words.of(f"{about} is {'' if want else 'not '}", value)
    left, right = _about(given["left"]), _about(given["right"])
    if left is not None and right is not None:
        return Words.of(f"{left} is {'' if want else 'not '}the same as {right}")
    return None


def _compare(operator: str, left: Node, right: Node, *, want: bool) -> Words | None:
    if _about(left) is None and _about(right) is not None:
        if operator not in _TURNED:
            return None
        left, right, operator = right, left, _TURNED[operator]
    about, value = _about(left), value_words(right)
    if about is None or value is None:
        return None
    if operator in _MOMENTS and about.startswith("the time of "):
        moment = "datetime" in right and "T" not in str(value)
        return Words.of(f"{about} is {_MOMENTS[operator][0 if want else 1]} ", value, " UTC" if moment else "")
    return Words.of(f"{about} is {_COMPARED[operator][0 if want else 1]} ", value)


def uids_of(node: Node) -> list[Mapping[str, str]]:
    """Return the entities that an expression names, itself one or a set of them; empty when it is neither."""
    members = node.get("Set", [node])
    found = [member.get("Value") for member in members]
    uids = [value["__entity"] for value in found if isinstance(value, Mapping) and "__entity" in value]
    return uids if len(uids) == len(members) else []


def _inside(given: Node, *, want: bool) -> Words | None:
    about, uids = _about(given["left"]), uids_of(given["right"])
    if about is None or not uids:
        return None
    joined = " or any" if want else " nor any"
    below = [
        Words.of("in ", uid_words(uid)) if _many(uid) else uid_words(uid, below=True, joined=joined) for uid in uids
    ]
    two = len(below) > 1 or any(_under(uid) for uid in uids)
    if want or not two:
        return Words.of(f"{about} is {'' if want else 'not '}", listed(below, "or"))
    return Words.of(f"{about} is neither ", listed(below, "nor"))


def _under(uid: Mapping[str, str]) -> bool:
    kind = KINDS.get(uid["type"].removeprefix(f"{NAMESPACE}::"))
    return kind is not None and bool(kind.under)


def _many(uid: Mapping[str, str]) -> bool:
    return uid["type"].removeprefix(f"{NAMESPACE}::") in {"AgentGroup", "ImageRepo", "Toolset"}


def _member(given: Node, *, want: bool) -> Words | None:
    left, right = given["left"], given["right"]
    about = _about(right)
    if "Set" not in left or about is None or not left["Set"]:
        return None
    members = [value_words(member) for member in left["Set"]]
    told = [member for member in members if member is not None]
    if len(told) != len(members):
        return None
    if len(told) == 1 or want:
        return Words.of(f"{about} is {'' if want else 'not '}", listed(told, "or"))
    return Words.of(f"{about} is neither ", listed(told, "nor"))


def _like(given: Node, *, want: bool) -> Words | None:  # noqa: PLR0911  # one return for each form
    about = _about(given["left"])
    if about is None:
        return None
    runs: list[str | None] = []
    for part in given["pattern"]:
        if part == "Wildcard":
            runs.append(None)
        elif runs and runs[-1] is not None:
            runs[-1] += part["Literal"]
        else:
            runs.append(part["Literal"])
    match runs:
        case [None]:
            return None
        case [str() as text, None]:
            return Words.of(f"{about} {'begins' if want else 'does not begin'} with ", _text_words(text))
        case [None, str() as text]:
            return Words.of(f"{about} {'ends' if want else 'does not end'} with ", _text_words(text))
        case [None, str() as text, None]:
            return Words.of(f"{about} {'has' if want else 'does not have'} ", _text_words(text), " in it")
        case [str() as text]:
            return Words.of(f"{about} is {'' if want else 'not '}", _text_words(text))
    return None


def _closes_at_end(text: str) -> bool:
    depth, quoted, escaped = 0, False, False
    for at, char in enumerate(text):
        if quoted:
            quoted, escaped = char != '"' or escaped, char == "\\" and not escaped
            continue
        quoted = char == '"'
        depth += (char == "(") - (char == ")")
        if depth == 0 and at < len(text) - 1:
            return False
    return True
