"""Whether the scopes of two policies can be met by one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["Scope"]

_PARTS: Final = ("action", "resource", "principal")
_TREES: Final = frozenset({f"{NAMESPACE}::HostPath", f"{NAMESPACE}::GuestPath"})


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a policy, made ready to be compared with many others.

    Attributes:
        parts: For each part: the entity that it must be, None where it can be others; and those that it is in or is.
    """

    parts: tuple[tuple[tuple[str, str] | None, tuple[tuple[str, str], ...]], ...]

    @classmethod
    def of(cls, policy: ReviewedPolicy) -> Scope:
        """Make it of a policy."""
        parts = []
        for name in _PARTS:
            scope = policy.est[name]
            uids = _uids(scope)
            parts.append((uids[0] if scope["op"] == "==" and uids else None, uids))
        return cls(tuple(parts))

    def may_meet(self, other: Scope) -> bool:
        """Whether one request can be in both, as far as they tell. False is certain."""
        for (mine, ours), (theirs, others) in zip(self.parts, other.parts, strict=True):
            if mine is not None and theirs is not None:
                if mine != theirs:
                    return False
                continue
            for kind, name in ours:
                if kind not in _TREES:
                    continue
                for other_kind, other_name in others:
                    # Everything is in its ancestors and in nothing else, so two trees meet only where one holds the
                    # other.
                    if kind == other_kind and not (
                        name == other_name or _holds(name, other_name) or _holds(other_name, name)
                    ):
                        return False
        return True


def _uids(scope: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    named = [scope["entity"]] if "entity" in scope else scope.get("entities", ())
    return tuple((str(uid["type"]), str(uid["id"])) for uid in named)


def _holds(above: str, below: str) -> bool:
    return below.startswith(above.rstrip("/") + "/")
