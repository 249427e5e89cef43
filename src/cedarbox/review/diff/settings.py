"""What changed in ``cedarbox.toml``: it can undo what the policies say, and no policy shows it.

It is read as it stands there, with the defaults of :class:`cedarbox.settings.PolicySettings`. What the environment of
a host says instead is not seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cedarbox.review.configured import KEYS, SETTINGS, Configured
from cedarbox.review.diff.metadata import MetadataChange

__all__ = ["DEFAULTS", "settings_changes"]

DEFAULTS: Final[Mapping[str, Any]] = {
    "policy.mode": "enforce",
    "policy.principal": "agent",
    "policy.require_signature": False,
    "policy.public_keys": [],
    "policy.signature_threshold": 1,
    "sandbox.image_keys": [],
}
"""What counts where a key is not there."""

# Told as another bundle is compared, or without any weight.
_ELSEWHERE: Final = frozenset({"policy.bundle", "policy.watch_s", "policy.sighup"})
_SECRETS: Final = "egress.secrets."
_SHOWN: Final = 120
_DIGEST: Final = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]+")


def settings_changes(old: Configured | None, new: Configured | None) -> Iterator[MetadataChange]:
    """Yield each key that changed.

    Args:
        old: What a version was configured with; None where its settings are not looked at.
        new: What the other one is configured with.
    """
    if old is None or new is None:
        return
    before, after = ({**DEFAULTS, **dict(_flat(each.values)), **_told_keys(each)} for each in (old, new))
    for key in sorted((before.keys() | after.keys()) - _ELSEWHERE):
        was, will = before.get(key), after.get(key)
        # For Python 1 and true are equal.
        if json.dumps(was, default=str) == json.dumps(will, default=str):
            continue
        judge = _secret if key.startswith(_SECRETS) else _WIDENS.get(key)
        told = judge(was, will) if judge is not None else ""
        means = told or "look whether it is meant"
        exact = json.dumps(will, default=str)
        yield MetadataChange(key, _shown(was), _shown(will), means, bool(told), file=SETTINGS, exact=exact)


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


def _image_keys(was: Any, will: Any) -> str:
    if not isinstance(will, list):
        return "whose signatures of images count cannot be told"
    had = was if isinstance(was, list) else []
    return "an image that somebody else signed counts as signed" if any(each not in had for each in will) else ""


def _secret(was: Any, will: Any) -> str:
    return "" if will is None else "the name stands for another secret, whatever it was permitted for"


def _threshold(was: Any, will: Any) -> str:
    had = was if isinstance(was, int) else 1
    return "" if type(will) is int and will >= had else "fewer signatures are enough"


_WIDENS: Final[Mapping[str, Callable[[Any, Any], str]]] = {
    "policy.mode": _mode,
    "policy.principal": _principal,
    "policy.require_signature": _require_signature,
    "policy.public_keys": _public_keys,
    "policy.signature_threshold": _threshold,
    "sandbox.image_keys": _image_keys,
}
"""How a change of a key lets something through that did not pass, in words; empty when it does not."""


def _told_keys(given: Configured) -> dict[str, Any]:
    """Return the lists of public keys as what they are: a file with another content is another key."""
    flat = dict(_flat(given.values))
    return {
        name: [f"{each} ({given.keys[each]})" if each in given.keys else each for each in flat[name]]
        for name in KEYS
        if isinstance(flat.get(name), list) and all(isinstance(each, str) for each in flat[name])
    }


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
    told = _DIGEST.sub(r"\1…", told)
    return told if len(told) <= _SHOWN else f"{told[: _SHOWN - 1]}…"
