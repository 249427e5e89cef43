"""The request that is explained, from wherever it is known: arguments, a test case, Cedar's JSON."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cedarbox.errors import CanonicalizationError, ConfigurationError
from cedarbox.policy.actions import ACTION_GROUPS, Action
from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.arguments import Value, arguments_of, build
from cedarbox.review.cases import Case
from cedarbox.review.explain.backward import Given, Missing, arguments_from
from cedarbox.review.nearest import nearest

__all__ = [
    "UID",
    "Request",
    "made_request",
    "of_arguments",
    "of_case",
    "of_document",
    "read_arguments",
    "unescaped",
]

_WHERE: Final = re.compile(r"(.+?):([0-9]{1,9})(?::(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """A request to explain.

    Attributes:
        principal: Id of the agent that asks.
        action: The Cedar action.
        values: Its arguments; empty when there are none to show, because it has no canonical form.
        made: The request; None when it has no canonical form, and then it is denied.
        refusal: Why it has none.
        notes: What a reader must know of where it comes from, such as what a record lacks.
    """

    principal: str
    action: str
    values: Mapping[str, Value]
    made: Action | None
    refusal: str = ""
    notes: tuple[str, ...] = ()


def of_arguments(action: str, given: Sequence[str], *, default_principal: str | None) -> Request:
    """Return the request that arguments make.

    Args:
        action: The action.
        given: ``name=value`` each, as in the test tables; ``principal=`` names the agent.
        default_principal: The agent when none is given; None when it must be.

    Raises:
        ConfigurationError: An argument is unknown, missing or of the wrong type.
    """
    _check_action(action)
    values, principal = read_arguments(action, given)
    principal = principal or default_principal
    if principal is None:
        raise ConfigurationError("which agent asks?", hint="give principal=NAME")
    missing = [known for known in arguments_of(action).values() if known.required and known.name not in values]
    if missing:
        told = f"{missing[0].name}=…, {missing[0].expected}"
        raise ConfigurationError(f"{action} needs {missing[0].name}", hint=f"give {told}")
    return made_request(principal, action, values, ())


def read_arguments(action: str, given: Sequence[str]) -> tuple[dict[str, Value], str | None]:
    """Read ``name=value`` arguments of an action, and the principal if it is among them.

    Raises:
        ConfigurationError: An argument is unknown or of the wrong type, or given twice.
    """
    known = arguments_of(action)
    values: dict[str, Value] = {}
    principal = None
    texts: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigurationError(f"{item[:80]!r} is not name=value", hint="write it like port=443")
        if name in texts:
            raise ConfigurationError(f"{name} is given twice", hint="give it once")
        texts[name] = text
    for name, text in texts.items():
        if name == "principal":
            principal = text
        elif name not in known:
            hint = nearest(name, ["principal", *known])
            raise ConfigurationError(f"{action} has no argument {name[:80]!r}", hint=hint)
    shell = texts.get("shell", "true") != "false"
    for name, text in texts.items():
        if name != "principal":
            values[name] = _value(action, name, text, shell=shell)
    return values, principal


def _value(action: str, name: str, text: str, *, shell: bool) -> Value:
    known = arguments_of(action)[name]
    wrong = ConfigurationError(f"{name} is {text[:80]!r}", hint=f"expected {known.expected}")
    if text == "null" and known.nullable:
        return None
    if known.kind == "number":
        if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
            raise wrong
        return int(text)
    if known.kind == "truth":
        if text not in {"true", "false"}:
            raise wrong
        return text == "true"
    if known.kind == "words":
        try:
            return (text,) if shell else tuple(shlex.split(text))
        except ValueError:
            raise wrong from None
    if known.members and text not in known.members:
        raise wrong
    return text


def of_case(cases: Sequence[Case], where: str) -> Request:
    """Return the request of a test case.

    Args:
        cases: The cases of the bundle.
        where: ``FILE:LINE``, or ``FILE:LINE:TITLE`` where several cases begin; the file may be named by the end of its
            path.

    Raises:
        ConfigurationError: There is no such case, or several.
    """
    given = _WHERE.fullmatch(where)
    if given is None:
        raise ConfigurationError(f"--case {where[:80]!r} is not FILE:LINE", hint="such as network.yaml:12")
    file, line, title = given.groups()
    named = [case for case in cases if _ends_with(case.file, file)]
    if not named:
        files = sorted({case.file.name for case in cases})
        raise ConfigurationError(f"no file of test cases is called {file[:80]!r}", hint=f"there are {', '.join(files)}")
    found = [case for case in named if case.line == int(line)]
    if not found:
        above = sorted({case.line for case in named if case.line <= int(line)})
        begins = f"the case before it begins at line {above[-1]}" if above else "its cases begin later"
        raise ConfigurationError(f"no case begins at {where[:80]}", hint=begins)
    titled = [case for case in found if case.title == title]
    if title is not None and not titled:
        raise ConfigurationError(
            f"no case at {file[:80]}:{line} is called {title[:80]!r}", hint=f"such as {found[0].title}"
        )
    case = (titled or found)[0]
    said = f"the case at {where} expects {'allow' if case.allowed else 'deny'}"
    notes = [f"{said}: {case.title}" if case.title else said]
    if len(found) > 1 and title is None:
        notes.append(f"it is {len(found)} cases, one for each value of a list; this is the first: {case.title}")
    if case.request is None:
        return Request(case.principal, case.action, {}, None, case.refusal, tuple(notes))
    values, _ = arguments_from(_given(case.request))
    return Request(case.principal, case.action, values, case.request, "", tuple(notes))


def _ends_with(path: Path, file: str) -> bool:
    parts = Path(file).parts
    return path.parts[-len(parts) :] == parts if parts else False


def _given(made: Action) -> Given:
    entities = {(entity.type, entity.id): entity.to_json() for entity in (made.resource, *made.others)}
    return Given(made.name, made.resource.id, made.resource.type, made.context, entities)


UID: Final = re.compile(r'([A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)::"((?:[^"\\]|\\.)*)"', re.DOTALL)
"""An entity as Cedar writes it: its type, its id with escapes."""


def of_document(path: Path, text: str) -> Request:
    """Return the request of a file in Cedar's JSON form.

    Args:
        path: The file, for messages.
        text: Its content: ``principal``, ``action``, ``resource``, each ``{"type", "id"}`` or as Cedar writes it,
            ``context``, and ``entities`` for what the resource is.

    Raises:
        ConfigurationError: It is no such request, or none that cedarbox makes.
    """
    hint = "give principal, action, resource, context, and entities for what the resource is"
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path}:{error.lineno}: not JSON: {error.msg}", hint=hint) from None
    except (RecursionError, ValueError):
        raise ConfigurationError(f"{path}: not JSON that can be read", hint=hint) from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: expected one object", hint=hint)
    unknown = sorted(document.keys() - {"principal", "action", "resource", "context", "entities", "correlation_id"})
    if unknown:
        raise ConfigurationError(f"{path}: unknown key {unknown[0][:80]!r}", hint=hint)
    uids = {name: _uid(path, name, document.get(name), hint) for name in ("principal", "action", "resource")}
    kind, action = uids["action"]
    if kind != "Action":
        raise ConfigurationError(f"{path}: the action is a {kind}", hint=hint)
    if uids["principal"][0] != "Agent":
        raise ConfigurationError(f"{path}: the principal is a {uids['principal'][0]}", hint="only an Agent asks")
    _check_action(action)
    context, listed = document.get("context", {}), document.get("entities", [])
    if not isinstance(context, dict) or not isinstance(listed, list):
        raise ConfigurationError(f"{path}: context must be an object, entities a list", hint=hint)
    entities = {_uid(path, "uid", item.get("uid") if isinstance(item, dict) else None, hint): item for item in listed}
    given = Given(action, uids["resource"][1], uids["resource"][0], context, entities)
    try:
        values, made = arguments_from(given)
    except Missing as error:
        raise ConfigurationError(f"{path}: it does not say {error}", hint=hint) from None
    except CanonicalizationError as error:
        return Request(uids["principal"][1], action, {}, None, str(error))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"{path}: cedarbox makes no such request: {' '.join(str(error).split())[:200]}"
        raise ConfigurationError(told, hint="explain it by its arguments") from None
    return Request(uids["principal"][1], action, values, made)


def _uid(path: Path, name: str, value: Any, hint: str) -> tuple[str, str]:
    if isinstance(value, dict):
        value = value.get("__entity", value)
        if isinstance(value.get("type"), str) and isinstance(value.get("id"), str):
            return value["type"].removeprefix(f"{NAMESPACE}::"), value["id"]
    if isinstance(value, str) and (found := UID.fullmatch(value)):
        return found[1].removeprefix(f"{NAMESPACE}::"), unescaped(found[2])
    raise ConfigurationError(f"{path}: {name} names no entity", hint=hint)


def unescaped(text: str) -> str:
    """Return the id that Cedar writes in an entity."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _check_action(action: str) -> None:
    if action not in ACTION_GROUPS:
        raise ConfigurationError(f"unknown action {action[:80]!r}", hint=nearest(action, list(ACTION_GROUPS)))


def made_request(principal: str, action: str, values: Mapping[str, Value], notes: tuple[str, ...]) -> Request:
    """Return the request of arguments that are all there.

    Raises:
        ConfigurationError: There is no such request.
    """
    for name, value in values.items():
        known = arguments_of(action)[name]
        if known.members and value is not None and value not in known.members:
            raise ConfigurationError(f"{name} is {str(value)[:80]!r}", hint=f"expected {known.expected}")
    try:
        return Request(principal, action, values, build(action, values), "", notes)
    except CanonicalizationError as error:
        return Request(principal, action, values, None, str(error), notes)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"no such request: {error}", hint=f"see the arguments of {action}") from None
