"""What kinds of connection there are: the protocol, with what of its first bytes goes with it.

A request of ``connect`` has some of these combinations and no others, see :func:`cedarbox.policy.actions.connect` and
:mod:`cedarbox.policy.wire`. So what a policy says about ``proto``, ``hello`` and ``http`` is a set of kinds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["HELLO", "KINDS", "REQUEST", "Kind", "kinds_of_hello", "kinds_of_proto", "plainest_first", "words"]


class Kind(NamedTuple):
    """A kind of connection.

    Attributes:
        proto: A member of ``Sandbox::Proto``.
        hello: A member of ``Sandbox::Hello``; None when it is not TLS, or nobody looks.
        request: A request in plain HTTP is asked about. Without it, in HTTP, nobody looks.
    """

    proto: str
    hello: str | None = None
    request: bool = False


_TLS, _HTTP = Kind("tls", "named"), Kind("http", request=True)
_TCP, _UNNAMED, _ENCRYPTED = Kind("tcp"), Kind("tcp", "unnamed"), Kind("tcp", "encrypted")
# A network card and the clone of a manifest are asked about without anybody seeing the first bytes.
_TLS_UNSEEN, _HTTP_UNSEEN = Kind("tls"), Kind("http")

KINDS: Final = frozenset({_TLS, _TLS_UNSEEN, _HTTP, _HTTP_UNSEEN, _TCP, _UNNAMED, _ENCRYPTED, Kind("udp")})
"""Every kind."""

HELLO: Final = frozenset(kind for kind in KINDS if kind.hello is not None)
"""Where ``context has hello``."""

REQUEST: Final = frozenset(kind for kind in KINDS if kind.request)
"""Where ``context has http``."""


def kinds_of_proto(name: str) -> frozenset[Kind]:
    """Return the kinds with a protocol; empty for one that there is not."""
    return frozenset(kind for kind in KINDS if kind.proto == name)


def kinds_of_hello(name: str) -> frozenset[Kind]:
    """Return the kinds with a hello; empty for one that there is not."""
    return frozenset(kind for kind in KINDS if kind.hello == name)


def plainest_first(kind: Kind) -> tuple[bool, bool, str, str]:
    """By what kinds are sorted, so that an example is an ordinary one, and the same one in every run."""
    return kind.hello not in {None, "named"}, kind.request, kind.proto, kind.hello or ""


def words(held: frozenset[Kind]) -> tuple[str, ...]:
    """Return a set of kinds in words; no word says more than the set.

    ``tls`` and ``http`` are what the broker asks about. ``tcp`` is not TLS; ``tcp (and hidden TLS)`` is also TLS whose
    hello has no name, or an encrypted one.
    """
    if held == KINDS:
        return ("any",)
    said = {name for name in ("tcp", "udp") if Kind(name) in held}
    for seen, unseen in ((_TLS, _TLS_UNSEEN), (_HTTP, _HTTP_UNSEEN)):
        if seen in held:
            said.add(seen.proto)
        elif unseen in held:
            said.add(f"{unseen.proto} (not looked at)")
    if {_TCP, _UNNAMED, _ENCRYPTED} <= held:
        return tuple(sorted(said - {"tcp"} | {"tcp (and hidden TLS)"}))
    if _UNNAMED in held:
        said.add("tcp (TLS without a name)")
    if _ENCRYPTED in held:
        said.add("tcp (TLS with an encrypted name)")
    return tuple(sorted(said))
