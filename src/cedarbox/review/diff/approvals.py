"""Approvals as part of what is permitted: a permit that waits for a person is less than one that does not.

A call goes through in a *mode*: freely, or with a signature by one key that holds so long. Which modes a bundle has for
a request is a matter of the permits that match it (see :func:`cedarbox.policy.approval.combined`): each that asks for
an approval rules out the modes that it does not take. A change widens when a request goes through in a mode in which it
did not. So dropping ``@requires_approval``, an approver more, another key behind a name and a longer time are all
found, and permits that could not be approved together are no permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cedarbox.review.diff.effects import Approving, Effect
from cedarbox.review.prove import Allows, And, Goal, Matches, Not, Or

__all__ = ["Mode", "free", "gained", "level", "modes"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way for a call to go through.

    Attributes:
        key: Base64 of the public key that signs; empty for freely.
        expires_s: How long the signature is to hold, in seconds; 0 for freely.
    """

    key: str = ""
    expires_s: int = 0

    def taken(self, approving: Approving | None) -> bool:
        """Whether a permit that asks for this lets a call through in this mode."""
        if approving is None:
            return True
        return bool(self.key) and self.key in dict(approving.keys) and self.expires_s <= approving.expires_s


def modes(*sides: Mapping[str, Effect]) -> tuple[Mode, ...]:
    """Return the modes that the policies of some versions tell apart.

    Args:
        sides: The policies of each that can match the action, by id.
    """
    asked = [effect.approving for side in sides for effect in side.values() if effect.approving is not None]
    keys = sorted({key for approving in asked for key, _ in approving.keys})
    times = sorted({approving.expires_s for approving in asked})
    return (Mode(), *(Mode(key, time) for key in keys for time in times))


def gained(new: str, old: str, sides: Mapping[str, Mapping[str, Effect]]) -> Goal:
    """Return the formula: the request goes through on one side in a mode in which it does not on the other.

    Args:
        new: Name of the one side.
        old: Name of the other.
        sides: The policies of each side that can match the action, by id.
    """
    each = [
        And(_through(new, sides[new], mode), Not(_through(old, sides[old], mode)))
        for mode in modes(sides[new], sides[old])
    ]
    return each[0] if len(each) == 1 else Or(*each)


def free(side: str, effects: Mapping[str, Effect]) -> Goal:
    """Return the formula: the request goes through without an approval.

    Args:
        side: Name of the side.
        effects: Its policies that can match the action, by id.
    """
    return _through(side, effects, Mode())


def _through(side: str, effects: Mapping[str, Effect], mode: Mode) -> Goal:
    blocking = [name for name, effect in effects.items() if not mode.taken(effect.approving)]
    return And(Allows(side), *(Not(Matches(side, name)) for name in blocking)) if blocking else Allows(side)


@dataclass(frozen=True, slots=True)
class Level:
    """How a request goes through on one side.

    Attributes:
        modes: The modes in which it does; none for a denial.
        told: In words.
    """

    modes: frozenset[Mode]
    told: str

    @property
    def keys(self) -> str:
        """The keys that can sign, in words."""
        return f"key {', '.join(sorted({mode.key for mode in self.modes if mode.key}))}"


def level(*, allowed: bool, determining: Iterable[Effect], among: Iterable[Mode]) -> Level:
    """Return how a request went through that was replayed.

    Args:
        allowed: It is allowed, approvals left aside.
        determining: The policies that determined that.
        among: The modes that are told apart.
    """
    if not allowed:
        return Level(frozenset(), "deny")
    asked = [effect.approving for effect in determining if effect.approving is not None]
    found = frozenset(mode for mode in among if all(mode.taken(approving) for approving in asked))
    if not asked:
        return Level(found, "allow")
    names = sorted({name for key, name in asked[0].keys if any(mode.key == key for mode in found)})
    if not names:
        return Level(frozenset(), "deny, as no one approver can approve it")
    shortest = min(approving.expires_s for approving in asked)
    return Level(found, f"allow with the approval of {' or '.join(names)} within {shortest} s")
