"""What ``cedarbox.toml`` at the top of a repository says: a change of it changes what decides, too."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cedarbox.errors import BundleError
from cedarbox.files import open_regular
from cedarbox.policy.reading import utf8_text
from cedarbox.review.git_objects import Objects

__all__ = ["DEFAULT_BUNDLE", "KEYS", "SETTINGS", "Configured", "configured_at", "configured_in", "inside"]

SETTINGS: Final = "cedarbox.toml"
DEFAULT_BUNDLE: Final = "policies/airgapped"
"""What decides where the settings name no bundle, see :class:`cedarbox.settings.PolicySettings`."""

KEYS: Final = ("policy.public_keys", "sandbox.image_keys")
"""The settings that name files of public keys: what is in a file counts, not what it is called."""

_MAX_SETTINGS: Final = 1024 * 1024
_MAX_LINKS: Final = 8
_HINT: Final = "mend it, or name what to compare with --bundle"


@dataclass(frozen=True, slots=True)
class Configured:
    """What a version of a repository is configured with.

    Attributes:
        path: What messages call the file.
        values: What stands in it, unchecked; nothing where there is none.
        bundle: Path of the bundle relative to the top, links followed.
        keys: The digest of each file of a public key that it names, by its path; of those in the repository.
    """

    path: Path
    values: Mapping[str, Any]
    bundle: str
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """A text that is the same for the same settings with the same keys."""
        return json.dumps([self.values, self.keys], default=str, sort_keys=True)


def configured_in(objects: Objects, root: Path) -> Configured:
    """Return what a commit is configured with.

    Args:
        objects: The files of the commit.
        root: What messages call its top.

    Raises:
        ConfigurationError: It cannot be told.
    """
    path, entry = root / SETTINGS, objects.entry(SETTINGS)
    if entry is not None and entry.kind != "file":
        raise BundleError(f"a {entry.kind}, no regular file", path=path, hint=_HINT)
    values = {} if entry is None else _values(path, objects.file(entry.object, _MAX_SETTINGS))

    def link(here: str) -> str | None:
        found = objects.entry(here)
        if found is None or found.kind != "link":
            return None
        return os.fsdecode(objects.file(found.object, _MAX_SETTINGS))

    def read(here: str) -> bytes | None:
        found = objects.entry(here)
        return objects.file(found.object, _MAX_SETTINGS) if found is not None and found.kind == "file" else None

    return _configured(path, values, link, read)


def configured_at(top: Path, path: Path) -> Configured:
    """Return what a working tree is configured with.

    Args:
        top: The top of the working tree.
        path: What messages call the file.

    Raises:
        ConfigurationError: It cannot be told.
    """
    file, values = top / SETTINGS, dict[str, Any]()
    if os.path.lexists(file):
        try:
            with open_regular(file) as opened:
                data = opened.read(_MAX_SETTINGS + 1)
        except OSError as error:
            raise BundleError(f"cannot read it ({error.strerror})", path=path, hint=_HINT) from None
        if len(data) > _MAX_SETTINGS:
            raise BundleError(f"larger than {_MAX_SETTINGS} bytes", path=path, hint=_HINT)
        values = _values(path, data)

    def link(here: str) -> str | None:
        try:
            return str((top / here).readlink()) if (top / here).is_symlink() else None
        except OSError as error:
            raise BundleError(f"names {here!r}: {error.strerror}", path=path, hint=_HINT) from None

    def read(here: str) -> bytes | None:
        try:
            with open_regular(top / here) as opened:
                return opened.read(_MAX_SETTINGS)
        except OSError:
            return None

    return _configured(path, values, link, read)


def inside(path: str) -> bool:
    """Whether a path is below the top that it is relative to."""
    return not path.startswith("/") and path.split("/", 1)[0] != ".."


def _configured(
    path: Path, values: Mapping[str, Any], link: Callable[[str], str | None], read: Callable[[str], bytes | None]
) -> Configured:
    keys = {}
    for name in KEYS:
        section, _, key = name.partition(".")
        table = values.get(section)
        named = table.get(key) if isinstance(table, dict) else None
        for each in named if isinstance(named, list) else ():
            at = _resolved(path, each, link) if isinstance(each, str) and "\0" not in each else ".."
            if inside(at) and (data := read(at)) is not None:
                keys[each] = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Configured(path, values, _resolved(path, _named(path, values), link), keys)


def _values(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(utf8_text(path, data))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BundleError(f"not TOML: {error}", path=path, hint=_HINT) from None


def _named(path: Path, values: Mapping[str, Any]) -> str:
    policy = values.get("policy", {})
    bundle = policy.get("bundle", DEFAULT_BUNDLE) if isinstance(policy, dict) else None
    if not isinstance(bundle, str) or "\0" in bundle:
        raise BundleError("policy.bundle is no path", path=path, hint=_HINT)
    return bundle


def _resolved(path: Path, bundle: str, link: Callable[[str], str | None]) -> str:
    """Return where a path leads, as the program would find it: what follows a link counts from where that leads."""
    waiting, walked, links = bundle.split("/")[::-1], list[str](), 0
    if bundle.startswith("/"):
        return bundle
    while waiting:
        part = waiting.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not walked:
                return "/".join(("..", *waiting[::-1]))
            walked.pop()
            continue
        target = link("/".join((*walked, part)))
        if target is None:
            walked.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise BundleError("names what is behind too many links", path=path, hint=_HINT)
        if target.startswith("/"):
            return "/".join((target, *waiting[::-1]))
        waiting += target.split("/")[::-1]
    return "/".join(walked) or "."
