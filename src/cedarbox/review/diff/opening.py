"""Which changes of ``cedarbox.toml`` open something, whatever the policies say, each with what it means.

That is what has less enforced or somebody else decide, lets a sandbox reach or send more or live longer, runs a
program of the host, hands a secret out, sends the record or what is in it elsewhere, or has older bundles accepted
again. It is not what only costs more, such as memory or time, or what the policies decide too, such as which image is
booted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

__all__ = ["DEFAULTS", "LIMITS", "opens"]

LIMITS: Final[Mapping[str, float]] = {
    "connections": 1024,
    "connections_per_s": 256.0,
    "bytes_out": 4 << 30,
    "bytes_in": 16 << 30,
}
"""What the broker allows a sandbox where ``egress.limits`` says nothing; of those that hold back what passes."""

DEFAULTS: Final[Mapping[str, Any]] = {
    "policy.mode": "enforce",
    "policy.principal": "agent",
    "policy.require_signature": False,
    "policy.public_keys": [],
    "policy.signature_threshold": 1,
    "sandbox.image_keys": [],
    "audit.directory": ".cedarbox/ledger",
    "egress.mode": "broker",
    "otlp.endpoint": "http://127.0.0.1:4318",
    "otlp.insecure": False,
    "otlp.capture_content": False,
    **{f"egress.limits.{name}": value for name, value in LIMITS.items()},
}
"""What counts where a key is not there."""

_REACH: Final = ("none", "broker", "nic")
_REGISTRIES: Final = "registries."
_SENT: Final = ("egress.secrets.", "otlp.headers.")
_LOCAL: Final = re.compile(r"unix:.*|https?://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?(/\S*)?", re.ASCII)


def opens(key: str, was: Any, will: Any) -> str:
    """Return what a change of a key opens, in words; empty when it opens nothing.

    Args:
        key: Its name, such as ``policy.mode``.
        was: What it said, or counted where it was not there; None for nothing.
        will: What it says.
    """
    if key.startswith(_SENT):
        return _secret(was, will)
    if key.startswith(_REGISTRIES):
        return _registry(key.rpartition(".")[2], will)
    judge = _OPENS.get(key)
    return judge(was, will) if judge is not None else ""


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


def _egress_mode(was: Any, will: Any) -> str:
    if will not in _REACH:
        return "how a sandbox reaches the network cannot be told"
    # With what could not be read nothing started, and what counts without it is what it is compared with.
    had = was if was in _REACH else DEFAULTS["egress.mode"]
    if _REACH.index(will) <= _REACH.index(had):
        return ""
    if will == "nic":
        return "a sandbox has a network card, with a list of hosts that is coarser than the policies"
    return "a sandbox reaches what the policies permit, and reached nothing"


def _limit(default: float, was: Any, will: Any) -> str:
    if not _is_number(will):
        return "how much of it passes cannot be told"
    return "" if will <= (was if _is_number(was) else default) else "more of it passes than before"


def _lifetime(was: Any, will: Any) -> str:
    if will is None:
        return "a sandbox is not ended by its time any more"
    return "" if was is None or (_is_number(was) and _is_number(will) and will <= was) else "a sandbox lives longer"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _registry(key: str, will: Any) -> str:
    if will is None or key == "username" or (key == "transport" and will == "https"):
        return ""
    if key == "transport":
        return "images come in clear, and whoever is on the way can change them"
    return "another secret of the host is sent to that registry"


def _endpoint(was: Any, will: Any) -> str:
    if will is None or (isinstance(will, str) and _LOCAL.fullmatch(will)):
        return ""
    return "records and spans are sent there"


def _authority(was: Any, will: Any) -> str:
    return "" if was is None or will is None else "somebody else can vouch in its place"


def _collector_authority(was: Any, will: Any) -> str:
    return "" if will is None else "somebody else can vouch for where records are sent"


def _insecure(was: Any, will: Any) -> str:
    return "" if will is False else "records and spans are sent in clear"


def _capture(was: Any, will: Any) -> str:
    return "" if will is False else "prompts, answers and output are on the spans that are sent"


def _witness(was: Any, will: Any) -> str:
    return "nobody else is shown the record any more" if will is None else "this program is run on the host"


def _stamps(was: Any, will: Any) -> str:
    return "nobody else vouches for when a record was there any more" if will is None else ""


_FORGOTTEN: Final = "which revisions were accepted is forgotten, so that an older bundle counts as new"


def _directory(was: Any, will: Any) -> str:
    if isinstance(was, str) and isinstance(will, str) and PurePosixPath(was).parent == PurePosixPath(will).parent:
        return ""
    return f"the record begins anew there, and unless policy.state says where it is, {_FORGOTTEN}"


_OPENS: Final[Mapping[str, Callable[[Any, Any], str]]] = {
    "policy.mode": _mode,
    "policy.principal": _principal,
    "policy.require_signature": _require_signature,
    "policy.public_keys": _public_keys,
    "policy.signature_threshold": _threshold,
    "policy.state": lambda was, will: _FORGOTTEN,
    "sandbox.image_keys": _image_keys,
    "sandbox.lifetime_s": _lifetime,
    "egress.mode": _egress_mode,
    "audit.directory": _directory,
    "audit.witness.command": _witness,
    "audit.timestamp.url": _stamps,
    "audit.timestamp.ca_file": _authority,
    "otlp.endpoint": _endpoint,
    "otlp.ca_file": _collector_authority,
    "otlp.insecure": _insecure,
    "otlp.capture_content": _capture,
    **{f"egress.limits.{name}": partial(_limit, default) for name, default in LIMITS.items()},
}
"""How a change of a key lets something through that did not pass, in words; empty when it does not."""
