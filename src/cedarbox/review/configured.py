"""Which bundle ``cedarbox.toml`` at the top of a repository names: a change of it changes what decides, too."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.files import open_regular
from cedarbox.policy.reading import utf8_text
from cedarbox.review.git import Objects

__all__ = ["DEFAULT_BUNDLE", "SETTINGS", "configured_at", "configured_in", "inside"]

SETTINGS: Final = "cedarbox.toml"
DEFAULT_BUNDLE: Final = "policies/airgapped"
"""What decides where the settings name no bundle, see :class:`cedarbox.settings.PolicySettings`."""

_MAX_SETTINGS: Final = 1024 * 1024
_MAX_LINKS: Final = 8
_HINT: Final = "mend it, or name what to compare with --bundle"


def configured_in(objects: Objects, root: Path) -> str:
    """Return the path of the bundle that a commit is configured with, relative to the top, links followed.

    Args:
        objects: The files of the commit.
        root: What messages call its top.

    Raises:
        ConfigurationError: It cannot be told.
    """
    path, entry = root / SETTINGS, objects.entry(SETTINGS)
    if entry is not None and entry.kind != "file":
        raise BundleError(f"a {entry.kind}, no regular file", path=path, hint=_HINT)
    at = DEFAULT_BUNDLE if entry is None else _named(path, objects.file(entry.object, _MAX_SETTINGS))

    def link(here: str) -> str | None:
        found = objects.entry(here)
        if found is None or found.kind != "link":
            return None
        return os.fsdecode(objects.file(found.object, _MAX_SETTINGS))

    return _resolved(path, at, link)


def configured_at(top: Path) -> str:
    """Return the path of the bundle that a working tree is configured with, relative to the top, links followed.

    Args:
        top: The top of the working tree.

    Raises:
        ConfigurationError: It cannot be told.
    """
    path, at = top / SETTINGS, DEFAULT_BUNDLE
    if os.path.lexists(path):
        try:
            with open_regular(path) as file:
                data = file.read(_MAX_SETTINGS + 1)
        except OSError as error:
            raise BundleError(f"cannot read it ({error.strerror})", path=path, hint=_HINT) from None
        if len(data) > _MAX_SETTINGS:
            raise BundleError(f"larger than {_MAX_SETTINGS} bytes", path=path, hint=_HINT)
        at = _named(path, data)

    def link(here: str) -> str | None:
        try:
            return str((top / here).readlink()) if (top / here).is_symlink() else None
        except OSError as error:
            raise BundleError(f"names {here!r}: {error.strerror}", path=path, hint=_HINT) from None

    return _resolved(path, at, link)


def inside(path: str) -> bool:
    """Whether a path is below the top that it is relative to."""
    return not path.startswith("/") and path.split("/", 1)[0] != ".."


def _named(path: Path, data: bytes) -> str:
    try:
        settings = tomllib.loads(utf8_text(path, data))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BundleError(f"not TOML: {error}", path=path, hint=_HINT) from None
    policy = settings.get("policy", {})
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
            raise BundleError("names a bundle behind too many links", path=path, hint=_HINT)
        if target.startswith("/"):
            return "/".join((target, *waiting[::-1]))
        waiting += target.split("/")[::-1]
    return "/".join(walked) or "."
