"""What changed in ``cedarbox.toml``: it can undo what the policies say, and no policy shows it.

It is read as it stands there, with the defaults of :class:`cedarbox.settings.PolicySettings`. What the environment of
a host says instead is not seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cedarbox.review.configured import SETTINGS, Configured
from cedarbox.review.diff.metadata import MetadataChange

__all__ = ["DEFAULTS", "settings_changes"]

DEFAULTS: Final[Mapping[str, Any]] = {
    "policy.mode": "enforce",
    "policy.principal": "agent",
    "policy.require_signature": False,
    "policy.public_keys": [],
    "policy.signature_threshold": 1,
}
"""What counts where a key is not there."""

# Told as another bundle is compared, or without any weight.
_ELSEWHERE: Final = frozenset({"policy.bundle", "policy.watch_s", "policy.sighup"})
_SHOWN: Final = 120


def settings_changes(old: Configured | None, new: Configured | None) -> Iterator[MetadataChange]:
    """Yield each key that changed.

    Args:
        old: What a version was configured with; None where its settings are not looked at.
        new: What the other one is configured with.
    """
    if old is None or new is None:
        return
    before, after = ({**DEFAULTS, **dict(_flat(each.values))} for each in (old, new))
    for key in sorted((before.keys() | after.keys()) - _ELSEWHERE):
        was, will = before.get(key), after.get(key)
        # For Python 1 and true are equal.
        if json.dumps(was, default=str) == json.dumps(will, default=str):
            continue
        told = _WIDENS[key](was, will) if key in _WIDENS else ""
        yield MetadataChange(
            key, _shown(was), _shown(will), told or "look whether it is meant", widens=bool(told), file=SETTINGS
        )


def _mode(was: Any, will: Any) -> str:
    return "" if will == "enforce" else "what the policies deny happens all the same"


def _principal(was: Any, will: Any) -> str:
    return "the policies are asked about another agent, and what the two may do is not compared"


def _require_signature(was: Any, will: Any) -> str:
    return "" if will is True else "policies that nobody signed decide"


def _public_keys(was: Any, will: Any) -> str:
    if not isinstance(will, list):
        return "whose signatures count cannot be told"
    if not will:
        return "no signature is looked at any more"
    # With what could not be read nothing started: there is nobody whom it counted for.
    had = was if isinstance(was, list) else []
    return "somebody else's signature counts" if had and any(each not in had for each in will) else ""


def _threshold(was: Any, will: Any) -> str:
    had = was if isinstance(was, int) else 1
    return "" if type(will) is int and will >= had else "fewer signatures are enough"


_WIDENS: Final[Mapping[str, Callable[[Any, Any], str]]] = {
    "policy.mode": _mode,
    "policy.principal": _principal,
    "policy.require_signature": _require_signature,
    "policy.public_keys": _public_keys,
    "policy.signature_threshold": _threshold,
}
"""How a change of a key lets something through that did not pass, in words; empty when it does not."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    told = value if isinstance(value, str) else json.dumps(value, default=str)
    return told if len(told) <= _SHOWN else f"{told[: _SHOWN - 1]}…"
