"""What cedarbox guarantees of the requests that it makes, told to the prover.

Each fact is true of every request that the builders of :mod:`cedarbox.policy.actions` can make (a test makes such
requests at random and holds each fact against them). A fact that were not would make a proof worthless; one that is
missing only leaves more undecided, or finds a request that the builders would not make, which is noticed.

===========================================  ==========================================================================
Fact                                         Source
===========================================  ==========================================================================
``Host``: canonical; ``fqdn`` is its id;     ``canonical.canonical_host``, ``entities.host_entity``, ``domains``
ancestors are its DNS suffixes, itself too
``Domain``, as a resource, is ``.``          ``actions.resolve``
``Address``: the id is its ``ip``, which is  ``entities.target_entity``, ``actions.connect``
the ``ip`` of the context
``ip`` is one address; it decides            ``entities.ip_value``, ``actions.connect``, ``addresses.ip_class``
``ipClass``, which is not ``unresolved``
``proto``, ``hello`` and ``http`` agree      ``wire.check_hello``, ``wire.http_request``
``http``: method, path, upgrade canonical    ``wire.http_request``
ports are 1 to 65535                         ``actions.connect``; ``egress.targets.authority``, ``boxlite.network``
``HostPath``, ``GuestPath``: canonical;      ``entities.path_entity``, ``canonical.canonical_path``, ``ancestors``
``path`` is the id; ancestors are the
directories above
``guestPath``, ``destination``: canonical    ``actions.mount``, ``actions.export``
``operation`` fits the action                ``actions.touch_file``
``user``, ``Account``: names of accounts     ``canonical.canonical_user``
``Executable`` begins the command line       ``actions.execute``
``EnvironmentVariable``: its name            ``actions.set_environment``
``Image``: the id is the digest, else the    ``actions.create``
reference; it is in one repository
``lifetime`` is whole seconds                ``actions.create``
``Instance``, ``Snapshot``: ``backend`` is   ``actions.snapshot``, ``restore``, ``fork``, ``adopt``, ``export``,
that of the request; ``Backend`` is it       ``write_terminal``, ``connect_anywhere``
``Port``: the id is its ``number``           ``actions.expose_port``
``Tool``: the id is its toolset, a slash and ``actions.invoke_tool``
its name, which has no slash; without a
toolset it is the name
``ModelEndpoint``: a host, an address or     ``entities.model_endpoint``
``in-process``; ``locality`` and ancestors
follow from it
nothing but the resource, ``host`` and         ``actions.Action.others``, ``engine.PolicyEngine.decide``
``endpoint`` is brought along
``at`` is in the years 1000 to 9999          ``entities.Base``; Cedar does not read what it writes before
principals are the declared ones             ``engine.PolicyEngine.decide``, ``principals.declared_principals``
===========================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cedarbox.policy import actions
from cedarbox.policy.entities import NAMESPACE, Base
from cedarbox.review.prove import canonical
from cedarbox.review.prove.agents import Declared
from cedarbox.review.prove.goals import Environment
from cedarbox.review.prove.patterns import Pattern, UnsupportedError
from cedarbox.review.prove.terms import Term, Terms
from cedarbox.review.prove.types import IP, STRING, EntityOf, RecordOf
from cedarbox.review.prove.values import IpParts, Member, Value, Values
from cedarbox.review.prove.worlds import World, attribute_name

__all__ = ["BundleWorld", "REPOSITORY", "SERVER", "say_facts"]


def _named(short: str) -> str:
    return f"{NAMESPACE}::{short}"


_HOST, _DOMAIN, _ADDRESS, _PORT = map(_named, ("Host", "Domain", "Address", "Port"))
_IMAGE, _REPO, _TOOL, _TOOLSET = map(_named, ("Image", "ImageRepo", "Tool", "Toolset"))
_ENDPOINT = _named("ModelEndpoint")
_PATHS: Final = frozenset(map(_named, ("HostPath", "GuestPath")))
_OF_BACKEND: Final = frozenset(map(_named, ("Instance", "Snapshot")))
_PRINCIPALS: Final = frozenset(map(_named, ("Agent", "AgentGroup", "Tenant")))
_BACKEND: Final = "context.base.backend"
_OTHERS: Final = (("useSecret", "context.host", _HOST), ("useServerState", "context.endpoint", _ENDPOINT))
"""What requests bring along besides the resource: the action, the part of the request, its type."""

REPOSITORY: Final = f"{_IMAGE}^repository"
"""The function that gives the repository of an image."""
SERVER: Final = f"{_TOOL}^server"
"""The function that gives the toolset of a tool; with ``?``, whether it has one."""


class BundleWorld(World):
    """The entities of the requests that cedarbox makes, and the principals of one bundle.

    Args:
        values: Makes the values.
        environment: The kind of request.
        declared: The principals of the bundle.
        principal: Id of the principal.
    """

    def __init__(self, values: Values, environment: Environment, declared: Declared, principal: str) -> None:
        super().__init__(values)
        self._environment, self._declared, self._principal = environment, declared, principal

    def variable(self, name: str, entity_type: str) -> Value:
        """Return the principal or the resource."""
        terms = self.values.terms
        if name == "principal":
            return Value(EntityOf(entity_type), terms.string(self._principal), terms.false)
        if entity_type == _DOMAIN:
            return Value(EntityOf(entity_type), terms.string("."), terms.false)
        if entity_type == _named("Backend"):
            return Value(EntityOf(entity_type), terms.var(_BACKEND, "String"), terms.false)
        return super().variable(name, entity_type)

    def context(self, kind: RecordOf) -> Value:
        """Return the context."""
        found = super().context(kind)
        if self._environment.resource_type != _ADDRESS:
            return found
        there = Member(IP, found.payload["ip"].payload, self.values.terms.true)
        return Value(kind, {**found.payload, "ip": there}, found.fails)

    def attribute(self, entity_type: str, entity: Term, name: str) -> Member | None:
        """Return an attribute of an entity; None when it has none."""
        terms = self.values.terms
        if entity_type in _PRINCIPALS:
            return self._declared.attribute(self.values, entity_type, self._known(entity), name)
        member = self._attribute(entity_type, entity, name)
        if member is None:
            return None
        return Member(member.type, member.payload, terms.and_(self._brought(entity_type, entity), member.present))

    def _attribute(self, entity_type: str, entity: Term, name: str) -> Member | None:
        terms = self.values.terms
        if (entity_type == _HOST and name == "fqdn") or (entity_type in _PATHS and name == "path"):
            return Member(STRING, entity, terms.true)
        if entity_type in _OF_BACKEND and name == "backend":
            return Member(STRING, terms.var(_BACKEND, "String"), terms.true)
        if entity_type == _ADDRESS and name == "ip":
            return Member(IP, self.values.unknown(IP, "context.ip"), terms.true)
        return super().attribute(entity_type, entity, name)

    def tag(self, entity_type: str, entity: Term, key: Term) -> Member | None:
        """Return a tag of an entity; None when it has none."""
        if entity_type in _PRINCIPALS:
            return self._declared.tag(self.values, entity_type, self._known(entity), key)
        return super().tag(entity_type, entity, key)

    def within(self, below: str, x: Term, above: str, y: Term) -> Term:
        """Return whether an entity is another one, or has it as an ancestor."""
        terms = self.values.terms
        if below in _PRINCIPALS:
            return self._declared.within(self.values, (below, self._known(x)), above, y)
        there = self._brought(below, x)
        if below == above and below in _PATHS and there is terms.true:
            return _in_path(self.values, x, y)
        same = self.values.equal(EntityOf(below), x, EntityOf(above), y)
        return terms.or_(same, terms.and_(there, self.ancestor(below, x, above, y)))

    def _brought(self, entity_type: str, entity: Term) -> Term:
        """Return whether a request brings an entity along; what is not brought has no attributes and no ancestors."""
        terms = self.values.terms
        kind = EntityOf(entity_type)
        of_request = [self.variable("resource", self._environment.resource_type)]
        of_request += [
            Value(EntityOf(brought), terms.var(name, "String"), terms.false)
            for action, name, brought in _OTHERS
            if action == self._environment.action_id
        ]
        return terms.or_(
            *(self.values.equal(kind, entity, each.type, each.payload) for each in of_request if each.type == kind)
        )

    def ancestor(self, below: str, x: Term, above: str, y: Term) -> Term:
        """Return whether an entity that the request brings along has another as a proper ancestor."""
        terms = self.values.terms
        match below, above:
            case (kind, "Sandbox::Domain") if kind == _HOST:
                return _in_domain(self.values, x, y)
            case (kind, "Sandbox::Domain") if kind == _ENDPOINT:
                remote = terms.not_(terms.eq(_locality(self.values, x), terms.string("in_process")))
                return terms.and_(remote, _is_name(terms, x), _in_domain(self.values, x, y))
            case (kind, "Sandbox::ImageRepo") if kind == _IMAGE:
                return terms.eq(terms.app(REPOSITORY, (x,), "String"), y)
            case (kind, "Sandbox::Toolset") if kind == _TOOL:
                same = terms.eq(terms.app(SERVER, (x,), "String"), y)
                return terms.and_(terms.app(f"{SERVER}?", (x,), "Bool"), same)
            case (kind, other) if kind == other and kind in _PATHS:
                return _in_path(self.values, x, y)
        # Nothing else that is asked about has ancestors.
        return terms.false

    @staticmethod
    def _known(entity: Term) -> str:
        if not entity.constant:
            raise UnsupportedError("a principal that is not known")
        return str(entity.value)


def _in_domain(values: Values, host: Term, domain: Term) -> Term:
    terms = values.terms
    if not domain.constant:
        raise UnsupportedError("a domain that is not known")
    if not canonical.is_host(domain.value):
        return terms.false
    dotted = terms.concat(terms.string("."), host)
    return terms.suffix(terms.string(f".{domain.value}"), dotted)


def _is_name(terms: Terms, host: Term) -> Term:
    """Return whether the id of an endpoint, which is a name or an address, is a name."""
    return terms.and_(terms.matches(host, canonical.HOST), terms.not_(terms.matches(host, canonical.ADDRESS_4)))


def _in_path(values: Values, path: Term, above: Term) -> Term:
    terms = values.terms
    if not above.constant:
        raise UnsupportedError("a directory that is not known")
    if not canonical.is_path(above.value):
        return terms.false
    if above.value == "/":
        return terms.true
    return terms.prefix(terms.string(f"{above.value}/"), terms.concat(path, terms.string("/")))


def _locality(values: Values, endpoint: Term) -> Term:
    found = values.unknown(EntityOf(_named("Locality")), attribute_name(_ENDPOINT, "locality"), (endpoint,))
    if not isinstance(found, Term):
        raise TypeError(found)
    return found


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
        shell = self._truth("context.shell")
        self._say(("resource", "context.shell"), lambda: terms.implies(shell, by_shell))
        self._say(
            ("resource", "context.commandLine"),
            lambda: terms.ite(shell, by_shell, terms.or_(terms.eq(line, executable), begins)),
        )

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
            where = _locality(values, endpoint)
            in_process, on_host = (terms.eq(where, terms.string(each)) for each in ("in_process", "host"))
            local = terms.or_(
                terms.eq(endpoint, terms.string("localhost")), terms.suffix(terms.string(".localhost"), endpoint)
            )
            is_name = _is_name(terms, endpoint)
            by_name = terms.implies(is_name, terms.eq(on_host, local))
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
