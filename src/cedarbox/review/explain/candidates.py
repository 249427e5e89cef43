"""What the arguments of a request could be instead: values from the policies, and those that people try first."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.arguments import Value, arguments_of
from cedarbox.review.phrases import subject_of

__all__ = ["Change", "Literals", "dials", "literals_of"]

Change = Mapping[str, Value]
"""New values for some arguments; ``principal`` is among the names."""

_PORTS: Final = (443, 80, 22, 53, 8080, 8443)
# One address of each class, and one of IPv6.
_ADDRESSES: Final = (
    "10.0.0.5",
    "1.1.1.1",
    "127.0.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "192.0.2.1",
    "fd12::5",
    "2606:4700::1",
)
_HOSTS: Final = ("host.example",)
_METHODS: Final = ("GET", "POST")
_PROTOCOLS: Final[Sequence[Change]] = (
    {"proto": "tls", "hello": None},
    {"proto": "tls", "hello": "named"},
    {"proto": "http", "hello": None},
    {"proto": "tcp", "hello": None},
    {"proto": "tcp", "hello": "unnamed"},
    {"proto": "tcp", "hello": "encrypted"},
    {"proto": "udp", "hello": None},
)
_PATHS: Final = ("/workspace/file", "/etc/passwd", "/tmp/file")  # noqa: S108  # paths of a guest, asked about only
_COMMANDS: Final = (("true",),)
_TEXTS: Final[Mapping[str, Sequence[Value]]] = {
    "user": (None, "root", "agent"),
    "host": (None, "localhost", "host.example"),
    "server": (None, "server"),
    "digest": (None, f"sha256:{'0' * 64}"),
    "agent": (None,),
    "tool": (None,),
    "upgrade": (None, "websocket"),
}
_NAME: Final = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)+")
_MOST: Final = 48
"""Values of one argument that are tried."""


class Literals:
    """The constants in policies.

    Attributes:
        numbers: Whole numbers, and those beside them, where limits end.
        exact: Whole numbers as they stand there.
        compared: Whole numbers by the attribute that they are compared to.
        texts: Strings, and what a pattern is with nothing in place of its wildcards.
        ids: Ids of entities by type.
        addresses: Of networks the first address that a machine can have.
        seconds: Of durations.
        times: Moments.
    """

    def __init__(self) -> None:
        self.numbers: dict[int, None] = {}
        self.exact: dict[int, None] = {}
        self.compared: dict[str, dict[int, None]] = {}
        self.texts: dict[str, None] = {}
        self.ids: dict[str, dict[str, None]] = {}
        self.addresses: dict[str, None] = {}
        self.seconds: dict[int, None] = {}
        self.times: dict[str, None] = {}

    def of(self, *types: str) -> Iterator[str]:
        """Yield the ids of entities of some types."""
        for name in types:
            yield from self.ids.get(name, {})


def literals_of(policies: Iterable[Mapping[str, Any]]) -> Literals:
    """Collect the constants of policies in Cedar's JSON form."""
    found = Literals()
    for est in policies:
        for scope in (est["principal"], est["resource"]):
            inside = scope.get("in", {})
            for uid in (scope.get("entity"), inside.get("entity") if isinstance(inside, Mapping) else None):
                if uid is not None:
                    _uid(found, uid)
        for condition in est.get("conditions", ()):
            _collect(found, condition["body"])
    return found


def _uid(found: Literals, uid: Mapping[str, str]) -> None:
    found.ids.setdefault(uid["type"].removeprefix(f"{NAMESPACE}::"), {})[uid["id"]] = None


def _collect(found: Literals, node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _collect(found, item)
    elif isinstance(node, Mapping) and "Value" in node:
        _constant(found, node["Value"])
    elif isinstance(node, Mapping):
        for operator, given in node.items():
            if operator == "like":
                parts = "".join(part["Literal"] if isinstance(part, Mapping) else "*" for part in given["pattern"])
                found.texts |= dict.fromkeys((parts.replace("*", ""), parts.replace("*", "a")))
            _extension(found, operator, given)
            _compared(found, given)
            _collect(found, given)


def _compared(found: Literals, given: Any) -> None:
    if (
        isinstance(given, Mapping)
        and isinstance(given.get("left"), Mapping)
        and isinstance(given.get("right"), Mapping)
    ):
        for side, other in ((given["left"], given["right"]), (given["right"], given["left"])):
            value, subject = other.get("Value"), subject_of(side)
            if subject is not None and type(value) is int:
                found.compared.setdefault(subject.rpartition(".")[2], {})[value] = None


def _constant(found: Literals, value: Any) -> None:
    if isinstance(value, Mapping) and "__entity" in value:
        _uid(found, value["__entity"])
    elif isinstance(value, str):
        found.texts[value] = None
    elif isinstance(value, int) and not isinstance(value, bool):
        found.exact[value] = None
        found.numbers |= dict.fromkeys((value, value - 1, value + 1))


def _extension(found: Literals, operator: str, given: Any) -> None:
    text = given[0].get("Value") if isinstance(given, list) and given and isinstance(given[0], Mapping) else None
    if not isinstance(text, str):
        return
    if operator == "ip":
        found.addresses |= dict.fromkeys(_inside(text))
    elif operator == "duration":
        seconds = _seconds(text)
        found.seconds |= dict.fromkeys((seconds, seconds - 1, seconds + 1))
    elif operator == "datetime":
        found.times[text] = None


def _inside(text: str) -> Iterator[str]:
    try:
        network = ipaddress.ip_interface(text).network
    except ValueError:
        return
    at = network.network_address
    yield str(at + 1 if network.num_addresses > 2 else at)


_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def _seconds(text: str) -> int:
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([dhms])(?!s)", text))


def dials(
    action: str,
    values: Mapping[str, Value],
    principal: str,
    agents: Iterable[str],
    literals: Literals,
    *,
    near: bool = False,
) -> Mapping[str, tuple[Change, ...]]:
    """Return what can be changed of a request, each with the changes that are tried, the likeliest first.

    Args:
        action: The action.
        values: The arguments as they are.
        principal: The agent as it is.
        agents: The declared agents.
        literals: The constants of the policies of the action.
        near: Leave out what needs the fewest of them: the surroundings of limits, and times.
    """
    known = arguments_of(action)
    if near:
        literals.numbers = dict.fromkeys(literals.exact)
    found: dict[str, tuple[Change, ...]] = {}
    now = {name: values.get(name, argument.default) for name, argument in known.items()}
    for name in [name for name in known if name not in {"at", "backend", "agent", "tool"}]:
        if action == "connect" and name in _CONNECTION:
            continue
        found[name] = _changes(name, now[name], _values(action, name, literals))
    if action == "connect":
        found |= _connection(now, literals)
    found["principal"] = _changes("principal", principal, sorted(agents))
    found["tool"] = _changes("tool", now["tool"], (*_TEXTS["tool"], *literals.texts))
    found["agent"] = _changes("agent", now["agent"], (*_TEXTS["agent"], *literals.texts))
    found["backend"] = _changes("backend", now["backend"], (*literals.texts, *literals.of("Backend")))
    found["at"] = _changes("at", now["at"], _times(literals))
    return {name: changes for name, changes in found.items() if changes}


_CONNECTION: Final = frozenset({"proto", "hello", "method", "path", "upgrade", "ip", "assumed_class"})


def _connection(now: Mapping[str, Value], literals: Literals) -> dict[str, tuple[Change, ...]]:
    # A request in plain HTTP goes with the protocol: there is none in any other.
    none: Change = {"method": None, "path": None, "upgrade": None}
    protocols = [{**change, **({} if change["proto"] == "http" else none)} for change in _PROTOCOLS]
    methods = [text for text in literals.texts if re.fullmatch(r"[A-Z]{3,10}", text)]
    paths = [text for text in literals.texts if text.startswith("/")]
    upgrades = [text for text in literals.texts if re.fullmatch(r"[a-z][a-z0-9.-]{1,20}", text)]
    requests: list[Change] = [none]
    for method in dict.fromkeys((*([str(now["method"])] if now["method"] else []), *methods, *_METHODS)):
        for path in dict.fromkeys((*([str(now["path"])] if now["path"] else []), *paths, "/")):
            requests += [
                {"proto": "http", "hello": None, "method": method, "path": path, "upgrade": upgrade}
                for upgrade in dict.fromkeys((None, now["upgrade"], *upgrades, "websocket"))
            ]
    addresses: list[Change] = [{"ip": text} for text in (*literals.addresses, *_ADDRESSES)]
    addresses.append({"ip": None, "assumed_class": "unresolved"})
    return {
        "proto": _other(now, protocols),
        "http": _other(now, requests),
        "ip": _other(now, addresses),
    }


def _other(now: Mapping[str, Value], changes: Sequence[Change]) -> tuple[Change, ...]:
    kept = [{name: value for name, value in change.items() if now[name] != value} for change in changes]
    unique = {tuple(sorted(change.items(), key=lambda item: item[0])): change for change in kept if change}
    return tuple(unique.values())[:_MOST]


def _changes(name: str, now: Value, candidates: Iterable[Value]) -> tuple[Change, ...]:
    unique = list(dict.fromkeys(value for value in candidates if value != now or type(value) is not type(now)))
    return tuple({name: value} for value in unique[:_MOST])


def _values(action: str, name: str, literals: Literals) -> Iterator[Value]:
    known = arguments_of(action)[name]
    if known.members:
        yield from sorted(known.members)
    elif known.kind == "truth":
        yield from (True, False)
    elif known.kind == "number":
        attribute = re.sub(r"_(.)", lambda letter: letter[1].upper(), name)
        numbers: list[int] = [
            *literals.compared.get(attribute, {}),
            *literals.numbers,
            *(int(text) for text in literals.of("Port") if text.isdecimal()),
        ]
        if name == "lifetime_s":
            numbers = [*literals.seconds]
        ports = _PORTS if name == "port" else (1,)
        yield from (number for number in (*numbers, *ports) if number >= 0)
    elif known.kind == "words":
        yield from ((text,) for text in (*literals.of("Executable"), *literals.texts))
        yield from _COMMANDS
    elif name in {"target", "host"}:
        yield from literals.of("Host", "Domain", "Address", "ModelEndpoint")
        yield from (text.strip(".") for text in literals.texts if _NAME.fullmatch(text))
        yield from (f"a.{text}" for text in literals.of("Domain"))
        yield from literals.addresses
        yield from _HOSTS
    elif name in {"path", "host_path", "guest_path", "destination"}:
        for text in (*literals.of("GuestPath", "HostPath"), *(text for text in literals.texts if text.startswith("/"))):
            yield from (f"{text.rstrip('/')}/file", text)
        yield from _PATHS
    elif name == "name":
        kinds = {"invokeTool": "Tool", "setEnvironment": "EnvironmentVariable", "createAccount": "Account"}
        yield from (text for text in literals.of(kinds.get(action, "Secret")) if "/" not in text)
        yield from literals.texts
        yield "other"
    else:
        every = {"repository": "ImageRepo", "digest": "Image", "image": "Image", "session": "Instance"}
        every |= {"snapshot_id": "Snapshot", "server": "Toolset"}
        yield from literals.of(every.get(name, ""))
        texts = [text for text in literals.texts if name != "digest" or text.startswith("sha256:")]
        yield from texts
    if known.nullable or name in _TEXTS:
        yield from (value for value in _TEXTS.get(name, (None,)) if value is not None or known.nullable)


def _times(literals: Literals) -> Iterator[Value]:
    for text in literals.times:
        moment = text if "T" in text else f"{text}T00:00:00Z"
        yield moment
        year = int(moment[:4]) if moment[:4].isdecimal() else 0
        if 1000 < year < 9998:
            yield from (
                f"{year - 1}{moment[4:]}".replace("-02-29", "-02-28"),
                f"{year + 1}{moment[4:]}".replace("-02-29", "-02-28"),
            )
