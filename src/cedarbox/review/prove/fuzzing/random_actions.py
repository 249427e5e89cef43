"""Random requests of cedarbox, made by its own builders: what the facts told to the prover are held against."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.addresses import classes
from cedarbox.policy.canonical import IP, Address, Host
from cedarbox.policy.entities import NAMESPACE, Base
from cedarbox.review.prove.bundled import REPOSITORY, SERVER
from cedarbox.review.prove.fuzzing.tables import Table
from cedarbox.review.prove.types import SchemaTypes

__all__ = ["HOSTS", "PATHS", "RandomActions", "noted"]

HOSTS: Final = (
    "a.example",
    "example",
    "b.a.example",
    "xa.example",
    "localhost",
    "x.localhost",
    "in-process",
    "xn--bcher-kva.example",
    "a_b.c-d.example",
    "1a.2.x",
    "0.1-2",
)
PATHS: Final = ("/", "/a", "/a/b", "/ab", "/a/b c", "/etc/passwd", "/a/..b", "/a/.b", "/.../x", "/é")
_TEXTS: Final = ("", "a", "a/b", "boxlite", "x y", "é", "\U000e0001", "sha256:0", "local", "sh", "-")
_EDGES: Final = (
    # These are addresses to be classed, nothing is bound to them.
    "0.0.0.0",  # noqa: S104
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::ffff:7f00:1",
    "64:ff9b::a00:1",
    "2002::1",
    "fe80::5efe:a00:1",
)


class RandomActions:
    """Makes them.

    Args:
        types: The schema.
        chance: Where the randomness comes from.
    """

    def __init__(self, types: SchemaTypes, chance: random.Random) -> None:
        self._types, self._chance = types, chance

    def _of(self, short: str) -> str:
        return self._chance.choice(self._types.entities[f"{NAMESPACE}::{short}"].members or ("",))

    def _maybe(self, make: Callable[[], Any]) -> Any:
        return make() if self._chance.random() < 0.5 else None

    def _text(self) -> str:
        return self._chance.choice(_TEXTS)

    def _number(self) -> int:
        return self._chance.choice((0, 1, 2, 4, 8, 16, -1, 10**6, 2**63 - 1, -(2**63)))

    def _port(self) -> int:
        return self._chance.choice((1, 22, 80, 443, 8080, 65535))

    def _host(self) -> Host:
        return Host(self._chance.choice(HOSTS))

    def ip(self) -> IP:
        """Return an address: of any class, at its ends, or of a kind with a meaning of its own."""
        chance = self._chance
        if chance.random() < 0.2:
            return ipaddress.ip_address(chance.choice(_EDGES))
        network = chance.choice([each for _, networks in classes() for each in networks])
        first, last = int(network.network_address), int(network.broadcast_address)
        number = chance.choice((first, last, chance.randint(first, last), max(first - 1, 0), last + 1))
        number %= 2**network.max_prefixlen
        return ipaddress.IPv4Address(number) if network.version == 4 else ipaddress.IPv6Address(number)

    def _target(self) -> Host | Address:
        return self._host() if self._chance.random() < 0.6 else Address(self.ip())

    def _path(self) -> str:
        return self._chance.choice(PATHS)

    def _user(self) -> str | None:
        return self._chance.choice((None, "root", "0", "app", "a.b-c_1", "x$"))

    def _base(self) -> Base:
        chance = self._chance
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=chance.choice((0, 1, -1, 86_400_000 * 200)))
        moment = chance.choice(
            (moment, moment, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1000, 1, 1, tzinfo=UTC))
        )
        return Base(moment, self._text(), self._maybe(self._text), self._maybe(self._text))

    def action(self, name: str) -> Action | None:
        """Return a request of an action; None when the builders refuse what was to be put into it."""
        chance, base = self._chance, self._base()
        makers: Mapping[str, Callable[[], Action]] = {
            "create": lambda: self._create(base),
            "resume": lambda: actions.resume(self._create(base)),
            "snapshot": lambda: actions.snapshot(
                base, session=self._text(), kind=chance.choice(("tar", "native")), store=self._of("SnapshotStore")
            ),
            "restore": lambda: actions.restore(
                base, snapshot_id=self._text(), kind=chance.choice(("tar", "native")), store=self._of("SnapshotStore")
            ),
            "fork": lambda: actions.fork(base, snapshot_id=self._text(), copies=self._number()),
            "adopt": lambda: actions.adopt(
                base, snapshot_id=self._text(), made_under=self._text(), in_force=self._text()
            ),
            "export": lambda: actions.export(base, snapshot_id=self._text(), destination=self._path()),
            "resolve": lambda: actions.resolve(base, self._maybe(self._host)),
            "connect": lambda: self._connect(base),
            "connectAnywhere": lambda: actions.connect_anywhere(base),
            "exposePort": lambda: actions.expose_port(base, port=self._port(), public=chance.random() < 0.5),
            "mountRead": lambda: self._mount(base, writable=False),
            "mountWrite": lambda: self._mount(base, writable=True),
            "readFile": lambda: self._file(base, ("read", "list", "compare")),
            "writeFile": lambda: self._file(base, ("write", "create", "remove", "move", "make_directory")),
            "exec": lambda: self._execute(base, terminal=False),
            "openTerminal": lambda: self._execute(base, terminal=True),
            "writeTerminal": lambda: actions.write_terminal(base, session=self._text()),
            "setEnvironment": lambda: actions.set_environment(
                base, name=chance.choice(("A", "LD_PRELOAD", "a b", "é", "\U000e0001", "/"))
            ),
            "createAccount": lambda: actions.create_account(
                base, name=self._user() or "app", group=chance.random() < 0.5
            ),
            "useCapability": lambda: actions.use_capability(base, capability=self._of("Capability")),
            "useSecret": lambda: actions.use_secret(base, name=self._text(), host=self._host(), port=self._port()),
            "invokeTool": lambda: actions.invoke_tool(
                base, name=self._text(), kind=self._of("ToolKind"), server=self._maybe(self._text)
            ),
            "useModel": lambda: actions.use_model(base, model=self._text(), host=self._maybe(self._target)),
            "useServerState": lambda: actions.use_server_state(
                base, state=self._of("ServerState"), model=self._text(), host=self._maybe(self._target)
            ),
            "captureContent": lambda: actions.capture_content(base, content=self._of("Content")),
        }
        try:
            return makers[name]()
        except (CanonicalizationError, ValueError):
            return None

    def _create(self, base: Base) -> Action:
        chance = self._chance
        return actions.create(
            base,
            image=self._text(),
            digest=self._maybe(self._text),
            repository=self._text(),
            isolation=self._of("Isolation"),
            egress=chance.choice(("none", "listed", "unrestricted")),
            vcpus=self._maybe(self._number),
            memory_mib=self._maybe(self._number),
            disk_gb=self._maybe(self._number),
            lifetime_s=self._maybe(lambda: chance.choice((0, 1, 60, 86_400, 10**9, -5))),
            signed=chance.random() < 0.5,
        )

    def _connect(self, base: Base) -> Action:
        chance = self._chance
        proto = self._of("Proto")
        is_http = proto == "http" and chance.random() < 0.7
        return actions.connect(
            base,
            self._target(),
            port=self._port(),
            proto=proto,
            ip=self._maybe(lambda: Address(self.ip())),
            assumed_class=chance.choice(("unresolved", "unresolved", self._of("IpClass"))),
            hello=self._maybe(lambda: self._of("Hello")),
            method=chance.choice(("GET", "POST", "M-SEARCH")) if is_http else None,
            path=chance.choice((*PATHS, "/a/", "/a;b/c d")) if is_http else None,
            upgrade=self._maybe(lambda: chance.choice(("websocket", "h2c", "tls/1.2"))) if is_http else None,
        )

    def _mount(self, base: Base, *, writable: bool) -> Action:
        return actions.mount(
            base,
            host_path=self._path(),
            guest_path=self._path(),
            writable=writable,
            is_symlink=self._chance.random() < 0.5,
        )

    def _file(self, base: Base, operations: tuple[str, ...]) -> Action:
        operation = self._chance.choice(operations)
        return actions.touch_file(base, path=self._path(), operation=operation, user=self._user())

    def _execute(self, base: Base, *, terminal: bool) -> Action:
        chance = self._chance
        command = [self._text() for _ in range(chance.randrange(3))]
        return actions.execute(
            base,
            command=command,
            shell=chance.random() < 0.5,
            user=self._user(),
            summary="",
            terminal=terminal,
            chosen=chance.random() < 0.3,
        )


def noted(table: Table, action: Action) -> Table:
    """Note in a table what formulas call by names of their own: the repository of an image, the toolset of a tool.

    Args:
        table: The table of the request.
        action: The request.
    """
    own = action.resource
    for parent in own.parents:
        if own.type == "Image":
            table.apps[REPOSITORY, (own.id,)] = parent.id
        elif own.type == "Tool":
            table.apps[f"{SERVER}?", (own.id,)] = True
            table.apps[SERVER, (own.id,)] = parent.id
    return table
