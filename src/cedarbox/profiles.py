"""The policy bundles that ship, and a project that starts from one of them.

A wheel has the bundles inside the package; in a checkout they are the directory ``policies`` at its root. Writing is
all or nothing: everything is staged beside its place, moved there by renames, and moved back if one of them fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import cedarbox
from cedarbox.errors import ConfigurationError

__all__ = ["Profile", "Written", "find_profile", "profiles", "write_project"]

_SETTINGS: Final = """\
# The settings of cedarbox. Each is also CEDARBOX_SECTION__KEY in the environment, which wins over this file.
# What is commented out shows how it is written.

[policy]
bundle = "policies/{profile}"
principal = "agent"    # the agent, as entities.json of the bundle declares it
# mode = "shadow"                  # records what would be denied and denies nothing: to try a bundle, never for work
# watch_s = 1.0                    # take up changes of the bundle while sandboxes run
# sighup = true                    # and on SIGHUP
# require_signature = true         # refuse a bundle that is unsigned, expired, or older than one that was accepted
# public_keys = ["release.key.pub"]
# signature_threshold = 1
# state = ".cedarbox/bundles.json" # the newest revisions that were accepted

# The ledger: a record of every decision and outcome. The directory is made with mode 0700, the key with mode 0600.
[audit]
directory = ".cedarbox/ledger"
# signing_key = ".cedarbox/ledger.key"
# segment_mib = 64                 # a file of records is sealed at this size
# approvals = ".cedarbox/approvals" # calls that wait for a person, and what was signed

# Where spans and records are sent over OTLP/HTTP. While nobody listens there, they stay on disk.
[otlp]
endpoint = "http://127.0.0.1:4318"
# spans = ".cedarbox/spans"
# headers = {{ authorization = "Bearer …" }}

# What a sandbox is made of: a local OCI layout, or an image that is pinned by its digest.
[sandbox]
# rootfs = "path/to/oci-layout"
# image = "registry.corp.example/agents/python@sha256:…"
cpus = 1
memory_mib = 1024
# boot_timeout_s = 60.0
# lifetime_s = 28800               # a sandbox is ended after this many seconds
# snapshots = "sealed"             # keep workspaces, encrypted, when a run ends
# store = "path/to/image-store"
# lock = "cedarbox.images.lock"
# image_keys = ["images.pub"]      # an image counts as signed when one of these keys signed it

# A registry that needs a login.
# [registries."registry.corp.example:5000"]
# username = "puller"
# password_env = "REGISTRY_PASSWORD"
"""


@dataclass(frozen=True, slots=True)
class Profile:
    """A bundle that ships.

    Attributes:
        name: Its name, which is the name of its directory.
        description: One line, from ``bundle.toml``.
        files: What it consists of: POSIX path relative to the bundle, and content.
    """

    name: str
    description: str
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        bundle: The directory of the bundle.
        settings: The settings file.
        kept: What was there before, and where it is now.
    """

    bundle: Path
    settings: Path
    kept: Mapping[Path, Path]


def profiles() -> tuple[Profile, ...]:
    """Return the bundles that ship, by name.

    Raises:
        ConfigurationError: This installation has none.
    """
    found = [_profile(entry) for entry in _shipped().iterdir() if entry.joinpath("bundle.toml").is_file()]
    return tuple(sorted(found, key=lambda profile: profile.name))


def find_profile(name: str) -> Profile:
    """Return the bundle of this name.

    Raises:
        ConfigurationError: There is none.
    """
    known = {profile.name: profile for profile in profiles()}
    if name not in known:
        raise ConfigurationError(f"there is no profile {name!r}", hint=f"known: {', '.join(known)}")
    return known[name]


def write_project(directory: Path, profile: Profile, *, force: bool = False) -> Written:
    """Write ``policies/<profile>`` and ``cedarbox.toml`` into a directory, both or neither.

    Args:
        directory: The project; made when it is missing.
        profile: What to start from.
        force: Put what is there already aside, under a name that ends in ``.bak`` and a number.

    Raises:
        ConfigurationError: Something is there already and ``force`` was not given, or the directory cannot be written.
    """
    bundle, settings = directory / "policies" / profile.name, directory / "cedarbox.toml"
    if not force:
        for place in (bundle, settings):
            if os.path.lexists(place):
                hint = "--force keeps it as a backup, or name another directory"
                raise ConfigurationError(f"{place} is there already", hint=hint)
    try:
        return _write(bundle, settings, profile)
    except OSError as error:
        place = error.filename or directory
        hint = "name a directory that this user can write; nothing was changed"
        raise ConfigurationError(f"{place}: {error.strerror}", hint=hint) from None


def _write(bundle: Path, settings: Path, profile: Profile) -> Written:
    kept: dict[Path, Path] = {}
    with ExitStack() as undo:
        for parent in (settings.parent, bundle.parent):
            _make(parent, undo)
        with tempfile.TemporaryDirectory(prefix=".cedarbox-init-", dir=bundle.parent) as work:
            staged = {Path(work) / "bundle": bundle, Path(work) / "settings": settings}
            for name, content in profile.files.items():
                _put(Path(work) / "bundle" / name, content)
            _put(Path(work) / "settings", _SETTINGS.format(profile=profile.name).encode())
            for source, target in staged.items():
                if os.path.lexists(target):
                    kept[target] = _aside(target)
                    target.rename(kept[target])
                    undo.callback(kept[target].rename, target)
                _move(source, target)
                undo.callback(_remove, target)
        undo.pop_all()
    return Written(bundle, settings, kept)


def _make(directory: Path, undo: ExitStack) -> None:
    missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir()
        undo.callback(parent.rmdir)
    if not directory.is_dir():
        raise NotADirectoryError(0, "not a directory", str(directory))


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _move(source: Path, target: Path) -> None:
    # A rename would replace a file that somebody else made in the meantime; a link does not, and neither does the
    # rename of a directory that is not empty.
    if source.is_dir():
        source.rename(target)
    else:
        os.link(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _aside(path: Path) -> Path:
    number = 1
    while os.path.lexists(backup := path.with_name(f"{path.name}.bak{number}")):
        number += 1
    return backup


def _shipped() -> Traversable:
    packaged = resources.files("cedarbox").joinpath("bundles")
    if packaged.is_dir():
        return packaged
    checkout = Path(cedarbox.__file__).parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "policies").is_dir():
        return checkout / "policies"
    raise ConfigurationError("this installation has no policy bundles", hint="install cedarbox again, from its wheel")


def _profile(entry: Traversable) -> Profile:
    files = dict(_files(entry, ""))
    metadata = tomllib.loads(files["bundle.toml"].decode())
    return Profile(entry.name, str(metadata["description"]), files)


def _files(directory: Traversable, above: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{above}{entry.name}/")
        else:
            yield f"{above}{entry.name}", entry.read_bytes()
