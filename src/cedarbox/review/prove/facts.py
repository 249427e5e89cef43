"""The facts of :mod:`cedarbox.review.prove.bundled` that are conditions on the values of a request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cedarbox.policy import actions
from cedarbox.policy.entities import NAMESPACE, Base
from cedarbox.review.prove import canonical
from cedarbox.review.prove.bundled import SERVER, is_name, locality_of
from cedarbox.review.prove.goals import Environment
from cedarbox.review.prove.patterns import Pattern
from cedarbox.review.prove.payloads import IpParts
from cedarbox.review.prove.terms import Term
from cedarbox.review.prove.types import IP
from cedarbox.review.prove.values import Values
from cedarbox.review.prove.worlds import attribute_name

__all__ = ["say_facts"]


def _named(short: str) -> str:
    return f"{NAMESPACE}::{short}"


_HOST, _ADDRESS, _PORT = map(_named, ("Host", "Address", "Port"))
_IMAGE, _TOOL = map(_named, ("Image", "Tool"))
_ENDPOINT = _named("ModelEndpoint")
_PATHS: Final = frozenset(map(_named, ("HostPath", "GuestPath")))


def say_facts(values: Values, environment: Environment) -> None:
    """Say what holds of the requests of one kind.

    Args:
        values: To whom.
        environment: The kind.
    """
    _Facts(values, environment).say()


class _Facts:
    def __init__(self, values: Values, environment: Environment) -> None:
        self._values, self._terms, self._environment = values, values.terms, environment

    def say(self) -> None:
        action, resource = self._environment.action_id, self._environment.resource_type
        self._values.identities[_HOST] = self._same_host
        self._values.identities[_ADDRESS] = self._same_address
        self._values.identities[_PORT] = self._same_port
        for kind in _PATHS:
            self._values.identities[kind] = self._same_path
        self._say_range("context.base.at", *_years())
        self._say_language("context.user", canonical.ACCOUNT)
        of_resource = {
            _HOST: canonical.HOST,
            _named("HostPath"): canonical.PATH,
            _named("GuestPath"): canonical.PATH,
            _named("Account"): canonical.ACCOUNT,
            _named("EnvironmentVariable"): canonical.VARIABLE,
        }
        if resource in of_resource:
            self._say_language("resource", of_resource[resource])
        own: Callable[[], None] | None = {
            "connect": self._connect,
            "useSecret": self._use_secret,
            "create": self._create,
            "resume": self._create,
            "exposePort": lambda: self._say_range_of(attribute_name(_PORT, "number"), 1, 65535),
            "mountRead": lambda: self._say_language("context.guestPath", canonical.PATH),
            "mountWrite": lambda: self._say_language("context.guestPath", canonical.PATH),
            "export": lambda: self._say_language("context.destination", canonical.PATH),
            "readFile": self._touch_file,
            "writeFile": self._touch_file,
            "exec": self._execute,
            "openTerminal": self._execute,
            "invokeTool": self._invoke_tool,
            "useModel": lambda: self._endpoint("resource"),
            "useServerState": lambda: self._endpoint("context.endpoint"),
        }.get(action)
        if own is not None:
            own()

    def _text(self, name: str) -> Term:
        return self._terms.var(name, "String")

    def _truth(self, name: str) -> Term:
        return self._terms.var(name, "Bool")

    def _say_language(self, name: str, pattern: Pattern) -> None:
        self._values.guard((name,), pattern.python, lambda _: self._terms.matches(self._text(name), pattern))
        if (absent := canonical.ABSENT.get(pattern)) is not None:
            self._values.absent[name] = absent

    def _say_range(self, name: str, low: int, high: int) -> None:
        self._say_range_of(name, low, high)

    def _say_range_of(self, name: str, low: int, high: int) -> None:
        terms = self._terms

        def guard(args: tuple[Term, ...]) -> Term:
            value = terms.app(name, args, "Int")
            return terms.and_(terms.at_most(terms.number(low), value), terms.at_most(value, terms.number(high)))

        self._values.guard((name,), "fact", guard)

    def _say(self, names: tuple[str, ...], make: Callable[[], Term]) -> None:
        """Say what holds between variables, once all of them are used."""
        self._values.relations[frozenset(names)] = make

    def _same_host(self, a: Term, b: Term) -> Term:
        # Two names in a policy are what they are; only what a request names is canonical.
        if a.constant is not b.constant and not canonical.is_host((a if a.constant else b).value):
            return self._terms.false
        return self._terms.eq(a, b)

    def _same_path(self, a: Term, b: Term) -> Term:
        # Two names in a policy are what they are; only what a request names is canonical.
        if a.constant is not b.constant and not canonical.is_path((a if a.constant else b).value):
            return self._terms.false
        return self._terms.eq(a, b)

    def _same_address(self, a: Term, b: Term) -> Term:
        terms = self._terms
        if a.constant:
            a, b = b, a
        if a.constant or not b.constant:
            return terms.eq(a, b)
        ip, known = self._ip(), canonical.address_of(b.value)
        if known is None:
            return terms.false
        return terms.and_(terms.eq(ip.v4, terms.truth(known.version == 4)), terms.eq(ip.address, terms.bv(int(known))))

    def _same_port(self, a: Term, b: Term) -> Term:
        terms = self._terms
        if a.constant:
            a, b = b, a
        if a.constant or not b.constant:
            return terms.eq(a, b)
        try:
            number = int(b.value) if b.value.isascii() else -1
        except ValueError:
            return terms.false
        if str(number) != b.value:
            return terms.false
        known = self._values.unknown(
            self._values.types.entities[_PORT].attributes["number"].type, attribute_name(_PORT, "number"), (a,)
        )
        return terms.eq(known, terms.number(number)) if isinstance(known, Term) else terms.false

    def _ip(self) -> IpParts:
        found = self._values.unknown(IP, "context.ip")
        if not isinstance(found, IpParts):
            raise TypeError(found)
        return found

    def _connect(self) -> None:
        terms, ip = self._terms, self._ip()
        is_address = self._environment.resource_type == _ADDRESS
        present = terms.true if is_address else self._truth("context.ip?")
        ip_class = self._text("context.ipClass")
        self._say(
            ("context.ip.v4", "context.ip.prefix"),
            lambda: terms.eq(ip.prefix, terms.ite(ip.v4, terms.bv(32), terms.bv(128))),
        )
        derived = ("context.ipClass", "context.ip.address")
        self._say(derived, lambda: terms.implies(present, terms.eq(ip_class, canonical.class_of(terms, ip))))
        known = terms.not_(terms.eq(ip_class, terms.string("unresolved")))
        self._say(
            ("context.ipClass",) if is_address else ("context.ipClass", "context.ip?"),
            lambda: terms.implies(present, known),
        )
        self._say_range("context.port", 1, 65535)
        proto, hello = self._text("context.proto"), self._text("context.hello")
        is_hello, is_http = self._truth("context.hello?"), self._truth("context.http?")

        def proto_is(name: str) -> Term:
            return terms.eq(proto, terms.string(name))

        named = terms.eq(hello, terms.string("named"))
        agrees = terms.ite(named, proto_is("tls"), proto_is("tcp"))
        self._say(
            ("context.hello?", "context.proto"),
            lambda: terms.implies(is_hello, terms.or_(proto_is("tls"), proto_is("tcp"))),
        )
        self._say(("context.hello?", "context.hello", "context.proto"), lambda: terms.implies(is_hello, agrees))
        self._say(("context.http?", "context.proto"), lambda: terms.implies(is_http, proto_is("http")))
        self._say(("context.http?", "context.hello?"), lambda: terms.not_(terms.and_(is_http, is_hello)))
        self._say_language("context.http.method", canonical.HTTP_METHOD)
        self._say_language("context.http.path", canonical.HTTP_PATH)
        self._say_language("context.http.upgrade", canonical.HTTP_UPGRADE)

    def _use_secret(self) -> None:
        self._say_language("context.host", canonical.HOST)
        self._say_range("context.port", 1, 65535)

    def _create(self) -> None:
        terms = self._terms
        names = tuple(attribute_name(_IMAGE, name) for name in ("digest", "digest?", "reference"))

        def identity(args: tuple[Term, ...]) -> Term:
            (image,) = args
            digest, reference = (terms.app(name, args, "String") for name in (names[0], names[2]))
            is_reference = terms.eq(image, reference)
            empty = terms.and_(terms.eq(digest, terms.string("")), is_reference)
            is_digest = terms.and_(terms.eq(image, digest), terms.not_(terms.eq(digest, terms.string(""))))
            return terms.ite(terms.app(names[1], args, "Bool"), terms.or_(is_digest, empty), is_reference)

        self._values.guard(names, "identity", identity)
        lifetime = terms.var("context.lifetime", "Int")
        self._values.guard(
            ("context.lifetime",),
            "seconds",
            lambda _: terms.eq(terms.mod(lifetime, terms.number(1000)), terms.number(0)),
        )

    def _touch_file(self) -> None:
        terms = self._terms
        base = Base(datetime(2026, 1, 1, tzinfo=UTC), "")
        operations = self._values.types.entities[_named("FileOperation")].members or ()
        fitting = [
            operation
            for operation in operations
            if actions.touch_file(base, path="/", operation=operation).name == self._environment.action_id
        ]
        operation = self._text("context.operation")
        self._values.guard(
            ("context.operation",),
            "fitting",
            lambda _: terms.or_(*(terms.eq(operation, terms.string(each)) for each in fitting)),
        )

    def _execute(self) -> None:
        terms = self._terms
        executable, line = self._text("resource"), self._text("context.commandLine")
        begins = terms.prefix(terms.concat(executable, terms.string(" ")), line)
        by_shell = terms.eq(executable, terms.string("sh"))
        guests = terms.and_(self._truth("context.shell"), by_shell)
        # A shell of the caller's choosing is the first word, as any other program is.
        self._say(("resource", "context.commandLine"), lambda: terms.or_(guests, terms.eq(line, executable), begins))

    def _invoke_tool(self) -> None:
        terms = self._terms
        names = (attribute_name(_TOOL, "name"), SERVER, f"{SERVER}?")

        def identity(args: tuple[Term, ...]) -> Term:
            (tool,) = args
            name, server = (terms.app(each, args, "String") for each in names[:2])
            served = terms.concat(server, terms.concat(terms.string("/"), name))
            is_it = terms.eq(tool, terms.ite(terms.app(names[2], args, "Bool"), served, name))
            return terms.and_(is_it, terms.matches(name, canonical.NO_SLASH))

        self._values.guard(names, "identity", identity)

    def _endpoint(self, name: str) -> None:
        terms, values = self._terms, self._values
        own = self._text(name)
        patterns = (canonical.HOST, canonical.ADDRESS_4, canonical.ADDRESS_6)
        self._values.guard(
            (name,), "endpoint", lambda _: terms.or_(*(terms.matches(own, pattern) for pattern in patterns))
        )

        def locality(args: tuple[Term, ...]) -> Term:
            (endpoint,) = args
            where = locality_of(values, endpoint)
            in_process, on_host = (terms.eq(where, terms.string(each)) for each in ("in_process", "host"))
            local = terms.or_(
                terms.eq(endpoint, terms.string("localhost")), terms.suffix(terms.string(".localhost"), endpoint)
            )
            named = is_name(terms, endpoint)
            by_name = terms.implies(named, terms.eq(on_host, local))
            is_four = terms.matches(endpoint, canonical.ADDRESS_4)
            by_four = terms.implies(is_four, terms.eq(on_host, terms.prefix(terms.string("127."), endpoint)))
            by_six = terms.implies(terms.eq(endpoint, terms.string("::1")), on_host)
            nowhere = terms.eq(endpoint, terms.string("in-process"))
            return terms.ite(in_process, nowhere, terms.and_(by_name, by_four, by_six))

        self._values.guard((attribute_name(_ENDPOINT, "locality"),), "locality", locality)


def _years() -> tuple[int, int]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    first, last = (int((moment - epoch).total_seconds()) for moment in (_FIRST, _LAST))
    return first * 1000, last * 1000 + 999


_FIRST: Final = datetime(1000, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
