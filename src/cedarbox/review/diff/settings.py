"""What changed in ``cedarbox.toml``: it can undo what the policies say, and no policy shows it.

It is read as it stands there, with the defaults of :class:`cedarbox.settings.Settings`. What the environment of a host
says instead is not seen. What opens something is a widening, see :mod:`cedarbox.review.diff.opening`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cedarbox.review.configured import KEYS, SETTINGS, Configured
from cedarbox.review.diff.metadata import MetadataChange
from cedarbox.review.diff.opening import DEFAULTS, opens

__all__ = ["settings_changes"]

# Told as another bundle is compared, or without any weight.
_ELSEWHERE: Final = frozenset({"policy.bundle", "policy.watch_s", "policy.sighup"})
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
        told = opens(key, was, will)
        means = told or "look whether it is meant"
        exact = json.dumps(will, default=str)
        yield MetadataChange(key, _shown(was), _shown(will), means, bool(told), file=SETTINGS, exact=exact)


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
