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
``Executable`` begins the command line, or   ``actions.execute``
is the shell of the guest
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

from typing import Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.prove import canonical
from cedarbox.review.prove.agents import Principals
from cedarbox.review.prove.goals import Environment
from cedarbox.review.prove.patterns import UnsupportedError
from cedarbox.review.prove.payloads import Member, Value
from cedarbox.review.prove.terms import Term, Terms
from cedarbox.review.prove.types import IP, STRING, EntityOf, RecordOf
from cedarbox.review.prove.values import Values
from cedarbox.review.prove.worlds import World, attribute_name

__all__ = ["BundleWorld", "REPOSITORY", "SERVER", "is_name", "locality_of"]


def _named(short: str) -> str:
    return f"{NAMESPACE}::{short}"


_HOST, _DOMAIN, _ADDRESS = map(_named, ("Host", "Domain", "Address"))
_IMAGE, _TOOL = map(_named, ("Image", "Tool"))
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

    def __init__(self, values: Values, environment: Environment, declared: Principals, principal: str) -> None:
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
                remote = terms.not_(terms.eq(locality_of(self.values, x), terms.string("in_process")))
                return terms.and_(remote, is_name(terms, x), _in_domain(self.values, x, y))
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


def is_name(terms: Terms, host: Term) -> Term:
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


def locality_of(values: Values, endpoint: Term) -> Term:
    """Return where the model of an endpoint runs."""
    found = values.unknown(EntityOf(_named("Locality")), attribute_name(_ENDPOINT, "locality"), (endpoint,))
    if not isinstance(found, Term):
        raise TypeError(found)
    return found
