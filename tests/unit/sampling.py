"""Requests at random, made by the real builders, near what some policies speak of.

A request far from every policy is denied by both versions of a bundle and tells nothing. So the texts, numbers, names,
patterns, ranges and times of the policies are collected, and requests are made of them and of what is next to them.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.actions import Action
from cedarbox.policy.engine import Decision
from cedarbox.review.arguments import Argument, Value, arguments_of, build

__all__ = ["Sampler", "wider"]

_ADDRESSES: Final = (
    "8.8.8.8", "10.0.0.5", "172.16.0.1", "192.168.1.5", "127.0.0.1", "169.254.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "0.0.0.1", "198.18.0.1", "192.0.2.1", "255.255.255.255", "::1", "fe80::1", "fd12::5", "fd00:ec2::254",
    "2606:4700::1111", "ff02::1", "2001:db8::1", "::ffff:10.0.0.5", "64:ff9b::808:808", "100::1",
)  # fmt: skip
_PORTS: Final = (1, 22, 25, 53, 80, 443, 444, 8080, 8443, 65535)
_WORDS: Final = ("", "a", "root", "exec_command", "x-y", "Ünïcode", "\U0001f512", "*", 'qu"ote', "back\\slash", "A")
_UNIT_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d:\d\d)(\.\d{3})?(Z|[+-]\d{4}))?")
_PATHS: Final = frozenset({"path", "host_path", "guest_path", "destination"})
_TYPES: Final = {
    "repository": "ImageRepo", "name": "Tool", "server": "Toolset", "session": "Instance", "snapshot_id": "Snapshot",
}  # fmt: skip


@dataclass
class Sampler:
    """Makes requests near the policies it was shown.

    Args:
        rng: Where chance comes from.
    """

    rng: random.Random
    texts: set[str] = field(default_factory=set)
    patterns: list[Sequence[Any]] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    ranges: set[str] = field(default_factory=set)
    times: set[str] = field(default_factory=set)
    lengths: set[int] = field(default_factory=set)
    ids: dict[str, set[str]] = field(default_factory=dict)

    def show(self, est: Any) -> None:
        """Collect what a policy speaks of, from its JSON form."""
        if isinstance(est, list):
            for part in est:
                self.show(part)
        elif isinstance(est, Mapping):
            if isinstance(est.get("type"), str) and isinstance(est.get("id"), str):
                self.ids.setdefault(est["type"].removeprefix("Sandbox::"), set()).add(est["id"])
            if isinstance(est.get("pattern"), list):
                self.patterns.append(est["pattern"])
            for name, part in est.items():
                if name == "Value" and isinstance(part, str):
                    self.texts.add(part)
                elif name == "Value" and isinstance(part, int) and not isinstance(part, bool):
                    self.numbers.add(part)
                elif name in {"ip", "datetime", "duration"} and isinstance(part, list) and part:
                    self._extension(name, part[0].get("Value"))
                elif name != "annotations":
                    self.show(part)

    def _extension(self, name: str, text: object) -> None:
        if not isinstance(text, str):
            return
        if name == "ip":
            self.ranges.add(text)
        elif name == "datetime":
            self.times.add(text)
        else:
            parts = re.findall(r"(\d+)(ms|d|h|m|s)", text)
            self.lengths.add(sum(int(number) * _UNIT_MS[unit] for number, unit in parts))

    def requests(self, action: str, count: int) -> Iterator[Action]:
        """Yield requests of an action; those without a canonical form are left out.

        Args:
            action: Its name.
            count: How many are tried.
        """
        known = arguments_of(action)
        for _ in range(count):
            values: dict[str, Value] = {}
            for name, argument in known.items():
                if not argument.required and self.rng.random() < 0.25:
                    continue
                values[name] = self._value(action, name, argument)
            self._agree(action, values)
            try:
                yield build(action, values)
            except (CanonicalizationError, ValueError, OverflowError):
                continue

    def _agree(self, action: str, values: dict[str, Value]) -> None:
        # Most draws would be facts that no connection has together, so the dependent ones follow.
        if action != "connect" or self.rng.random() < 0.1:
            return
        if values.get("proto") != "http" or values.get("method") is None or values.get("path") is None:
            values["method"] = values["path"] = values["upgrade"] = None
        if values.get("hello") is not None:
            values["proto"] = "tls" if values["hello"] == "named" else "tcp"
            values["method"] = values["path"] = values["upgrade"] = None

    def _value(self, action: str, name: str, argument: Argument) -> Value:
        if argument.nullable and self.rng.random() < 0.2:
            return None
        if argument.members:
            return self.rng.choice(sorted(argument.members))
        if argument.kind == "truth":
            return self.rng.random() < 0.5
        if argument.kind == "number":
            return self._number(name)
        if argument.kind == "words":
            return tuple(self._word() or "x" for _ in range(self.rng.randint(1, 2)))
        if name == "at":
            return self._moment()
        if name in {"target", "host"}:
            return self._host() if self.rng.random() < 0.7 or name == "host" else self._address()
        if name == "ip":
            return self._address()
        if name in _PATHS:
            return self._path()
        if name == "method":
            return self.rng.choice(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
        if name == "upgrade":
            return self.rng.choice(["websocket", "h2c"])
        kind = {"setEnvironment": "EnvironmentVariable", "createAccount": "Account", "useSecret": "Secret"}.get(action)
        return self._named(kind if kind and name == "name" else _TYPES.get(name, ""))

    def _named(self, kind: str) -> str:
        ids = sorted(self.ids.get(kind, ()))
        return self.rng.choice(ids) if ids and self.rng.random() < 0.7 else self._word()

    def _word(self) -> str:
        pool = [*sorted(self.texts), *_WORDS]
        if self.patterns and self.rng.random() < 0.4:
            return self._filled()
        return self.rng.choice(pool)

    def _filled(self) -> str:
        filling = ["", "a", "x.y", "/", "a/b", "-preview"]
        parts = self.rng.choice(self.patterns)
        text = "".join(part["Literal"] if isinstance(part, Mapping) else self.rng.choice(filling) for part in parts)
        return text if self.rng.random() < 0.8 else self.rng.choice(["x", "/"]) + text

    def _number(self, name: str) -> int:
        if name == "lifetime_s":
            pool = [length // 1000 + step for length in sorted(self.lengths) or [3600] for step in (-1, 0, 1)]
            return self.rng.choice([1, *pool])
        pool = [number + step for number in sorted(self.numbers) for step in (-1, 0, 1)]
        if name == "port":
            ports = [number for number in pool if 1 <= number <= 65535]
            return self.rng.choice([*ports, *_PORTS])
        return self.rng.choice([*pool, 0, 1, 2, 9, 2**63 - 1, -(2**63)])

    def _moment(self) -> str:
        moment = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(milliseconds=self.rng.randrange(86_400_000 * 400))
        times = sorted(self.times)
        if times and self.rng.random() < 0.5 and (found := _MOMENT.fullmatch(self.rng.choice(times))):
            day, hour, fraction, zone = found.groups()
            zone = "+0000" if zone in {None, "Z"} else zone
            moment = datetime.strptime(
                f"{day}T{hour or '00:00:00'}{fraction or '.000'}{zone}", "%Y-%m-%dT%H:%M:%S.%f%z"
            )
        elif self.lengths:
            moment = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(milliseconds=self.rng.choice(sorted(self.lengths)))
        return (moment + timedelta(milliseconds=self.rng.choice([-1, 0, 0, 1]))).isoformat()

    def _host(self) -> str:
        names = sorted(
            self.ids.get("Host", set()) | self.ids.get("Domain", set()) | self.ids.get("ModelEndpoint", set())
        )
        roll = self.rng.random()
        if roll < 0.2 and self.patterns:
            return self._filled()
        name = self.rng.choice([*names, "www.example.org", "localhost", "corp.example"])
        if roll < 0.5:
            return name
        if roll < 0.65:
            return "a." + name
        if roll < 0.75:
            return name.partition(".")[2] or name
        if roll < 0.85:
            return "evil" + name
        return self.rng.choice([name + ".evil.test", name.upper(), name + ".", "x_y." + name, "b.a." + name])

    def _address(self) -> str:
        if not self.ranges or self.rng.random() < 0.4:
            return self.rng.choice(_ADDRESSES)
        network = ipaddress.ip_network(self.rng.choice(sorted(self.ranges)), strict=False)
        offset = self.rng.choice(
            [0, -1, 1, network.num_addresses - 1, network.num_addresses, network.num_addresses // 2]
        )
        number = int(network.network_address) + offset
        kind = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
        return str(kind(max(0, min(number, 2**network.max_prefixlen - 1))))

    def _path(self) -> str:
        paths = sorted(self.ids.get("HostPath", set()) | self.ids.get("GuestPath", set()) | {"/", "/etc/passwd"})
        roll = self.rng.random()
        if roll < 0.2 and self.patterns:
            return "/" + self._filled().lstrip("/")
        path = self.rng.choice(paths)
        if roll < 0.4:
            return path
        if roll < 0.6 and self.patterns:
            return path.rstrip("/") + "/" + self._filled().strip("/")
        if roll < 0.8:
            return path.rstrip("/") + self.rng.choice(["/a", "/a/b", "/.git/config", "/.ssh", "/é", "/ ", "/*"])
        return self.rng.choice([path + "x", path.rpartition("/")[0] or "/", path.upper()])


def wider(before: Decision, after: Decision) -> bool:
    """Whether the second decision gives something that the first does not.

    A call that is allowed outright gives more than one that waits for a signature, and that gives more when somebody
    else may sign, or when a signature holds longer.
    """
    if not after.allowed:
        return False
    if not before.allowed:
        return True
    if before.approval is None:
        return False
    if after.approval is None:
        return True
    more = set(after.approval.approvers) - set(before.approval.approvers)
    return bool(more) or after.approval.expires_s > before.approval.expires_s
