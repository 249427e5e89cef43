"""Directories of the host in the guest: what may be one, and that it is still the one that was decided on.

BoxLite 0.10.8 creates a missing host path, takes a file for a directory, and takes any guest path (measured), so all of
it is checked here, before a microVM exists.

A read-only mount is shared live over virtiofs. It is read-only twice: in the guest, where not even root may remount it,
and in the jail of the process on the host that serves it. A writable one cannot be shared: BoxLite's seccomp filter
for that process lacks chmod, chown, rename, link and symlink, so each of these ends the microVM, and no option changes
the filter without switching it off (measured on BoxLite 0.10.8). So a writable mount is a copy; see
:mod:`cedarbox.boxlite.copies`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cedarbox.errors import CanonicalizationError, ConfigurationError, HostError
from cedarbox.hostpaths import real_path

__all__ = [
    "MAX_MOUNTS",
    "Mount",
    "PinnedMount",
    "check_mounts",
    "check_pinned",
    "mark",
    "outside_home",
    "pinned",
    "recheck",
]

MAX_MOUNTS: Final = 16
"""Mounts of one sandbox; each read-only one is a virtio device of its own."""

_HOST_NEVER: Final = frozenset(("dev", "proc", "sys"))
_GUEST_NEVER: Final = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr", ".cedarbox")
)
_GUEST_NEVER_ITSELF: Final = frozenset(("home", "mnt", "opt", "root", "srv", "var"))


@dataclass(frozen=True, slots=True, init=False)
class Mount:
    """A directory of the host that a sandbox is given.

    A read-only mount is live: the guest sees what changes on the host. A writable mount is copied into the guest when
    the microVM is made, and copied back when the session stops, in one step; when the directory changed on the host
    meanwhile, the result is kept beside it instead. Every mount is decided by policy: ``mountRead`` or ``mountWrite``
    on the real path of the directory.

    Attributes:
        host: The directory; absolute, or starting with ``~``.
        guest: Where it appears; an absolute path that is not of the system and not the workspace or above it.
        read_only: Whether the guest may not change it; the default.

    Raises:
        ConfigurationError: A path cannot be used. Whether the directory exists is checked when options are made.
    """

    host: str
    guest: str
    read_only: bool = True

    def __init__(self, host: str | Path, guest: str | PurePosixPath, read_only: bool = True) -> None:
        for name, value in (("host", host), ("guest", guest)):
            text = str(value) if isinstance(value, Path | PurePosixPath) else value
            if not isinstance(text, str) or not _printable(text):
                raise ConfigurationError(f"mounts: {name} {value!r} is not a path", hint="give a path without controls")
            object.__setattr__(self, name, text)
        if not isinstance(read_only, bool):
            raise ConfigurationError(f"mounts: read_only {read_only!r} is not true or false")
        object.__setattr__(self, "read_only", read_only)
        _check_guest(self.guest)


@dataclass(frozen=True, slots=True)
class PinnedMount:
    """A mount as a state keeps it: the very directory that was found when the session was made.

    Attributes:
        host: The directory as configured.
        real: Its path without symbolic links.
        device: The number of its file system.
        inode: Its number there.
        guest: Where it appears in the guest.
        read_only: Whether the guest may not change it.
        contents: SHA-256 of the tree that was copied in, or back, last; empty for a read-only mount.
    """

    host: str
    real: str
    device: int
    inode: int
    guest: str
    read_only: bool
    contents: str = ""


def check_mounts(value: object, *, root: str) -> tuple[Mount, ...]:
    """Check the mounts of a sandbox, the directories on the host too.

    Args:
        value: Mounts, or their fields by name as JSON has them.
        root: The workspace directory of the guest.

    Returns:
        The mounts.

    Raises:
        ConfigurationError: One cannot be used; the message says which and why.
    """
    mounts = _coerced(value)
    check_pinned([pinned(mount) for mount in mounts], root=root)
    return mounts


def _coerced(value: object) -> tuple[Mount, ...]:
    if not isinstance(value, tuple | list):
        raise ConfigurationError(f"mounts: {value!r} is not a list", hint="give a tuple of cedarbox.Mount")
    if len(value) > MAX_MOUNTS:
        raise ConfigurationError(f"mounts: there are {len(value)}", hint=f"give at most {MAX_MOUNTS}")
    mounts = []
    for entry in value:
        fields = entry
        if isinstance(entry, Mapping) and {"host", "guest"} <= set(entry) <= {"host", "guest", "read_only"}:
            fields = Mount(**entry)
        if not isinstance(fields, Mount):
            raise ConfigurationError(f"mounts: {entry!r} is not a mount", hint="give cedarbox.Mount(host, guest)")
        mounts.append(fields)
    return tuple(mounts)


def pinned(mount: Mount) -> PinnedMount:
    """Find the directory of a mount on the host.

    Raises:
        ConfigurationError: It is missing, is not a directory, may not be used, or belongs to the system.
    """
    hint = "give an absolute path of a directory"
    try:
        host = Path(mount.host).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"mounts: {mount.host}: {error}", hint=hint) from None
    if not host.is_absolute():
        raise ConfigurationError(f"mounts: {mount.host} is not absolute", hint=hint)
    try:
        real = real_path(str(host), strict=True)
        status = Path(real).stat()
    except OSError as error:
        raise ConfigurationError(f"mounts: {mount.host}: {error.strerror}", hint=hint) from None
    except CanonicalizationError as error:
        raise ConfigurationError(f"mounts: {error.message}", hint=hint) from None
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"mounts: {mount.host} is not a directory", hint=hint)
    _check_host(real, mount.host)
    if not os.access(real, os.R_OK | os.X_OK):
        raise ConfigurationError(f"mounts: {mount.host} may not be read by this user", hint="change its mode")
    if not mount.read_only:
        if os.path.ismount(real):
            raise ConfigurationError(
                f"mounts: {mount.host} is a mount point, which cannot be replaced in one step",
                hint="share a directory below it, or mount it read-only",
            )
        if not os.access(Path(real).parent, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"mounts: {Path(real).parent} may not be written by this user, so {mount.host} cannot be replaced",
                hint="share a directory below one of yours, or mount it read-only",
            )
    return PinnedMount(
        host=str(host),
        real=real,
        device=status.st_dev,
        inode=status.st_ino,
        guest=mount.guest,
        read_only=mount.read_only,
    )


def check_pinned(mounts: Iterable[PinnedMount], *, root: str) -> None:
    """Check pinned mounts against each other and the workspace, without looking at the disk.

    Args:
        mounts: The mounts.
        root: The workspace directory of the guest.

    Raises:
        ConfigurationError: A path cannot be used, or two mounts are in each other.
    """
    mounts = tuple(mounts)
    if len(mounts) > MAX_MOUNTS:
        raise ConfigurationError(f"mounts: there are {len(mounts)}", hint=f"give at most {MAX_MOUNTS}")
    for number, mount in enumerate(mounts):
        _check_guest(mount.guest)
        if not _printable(mount.real) or os.path.normpath(mount.real) != mount.real:
            raise ConfigurationError(f"mounts: {mount.real!r} is not a real path", hint="start a new session")
        _check_host(mount.real, mount.host)
        if _within(root, mount.guest):
            raise ConfigurationError(
                f"mounts: {mount.guest} would hide the workspace {root}", hint=f"mount it at {root}/NAME or elsewhere"
            )
        for other in mounts[:number]:
            if _overlap(mount.guest, other.guest):
                raise ConfigurationError(f"mounts: {mount.guest} and {other.guest} are in each other in the guest")
            if _overlap(mount.real, other.real):
                raise ConfigurationError(f"mounts: {mount.real} and {other.real} are in each other on the host")


def outside_home(mounts: Iterable[PinnedMount], home: Path) -> None:
    """Refuse a mount that holds the BoxLite home or is in it: it would hand out the disks of all sandboxes.

    Raises:
        ConfigurationError: One does.
    """
    real_home = real_path(str(home.absolute()))
    for mount in mounts:
        if _overlap(mount.real, real_home):
            raise ConfigurationError(
                f"mounts: {mount.host} and the BoxLite home {home} are in each other", hint="mount something else"
            )


def recheck(mounts: Iterable[PinnedMount]) -> None:
    """Check, right before a boot, that every path still leads to the directory that was decided on.

    Raises:
        HostError: One does not: it is gone, or something else is in its place.
    """
    for mount in mounts:
        try:
            real = real_path(mount.host, strict=True)
            status = Path(real).stat()
        except OSError as error:
            raise HostError(f"the mount {mount.host} is gone: {error.strerror}", hint="put it back") from None
        except CanonicalizationError as error:
            raise HostError(f"the mount {mount.host}: {error.message}", hint="put it back") from None
        if real != mount.real or (status.st_dev, status.st_ino) != (mount.device, mount.inode):
            raise HostError(
                f"the mount {mount.host} is not the directory that it was when the session was made",
                hint="put it back, or start a new session",
            )
        if not stat.S_ISDIR(status.st_mode):
            raise HostError(f"the mount {mount.host} is not a directory any more", hint="put it back")


def mark(mounts: Iterable[PinnedMount]) -> str:
    """Return what the name of a microVM ends with, so that one with other mounts is never taken for it.

    A state can be changed while nobody looks; the name that BoxLite keeps for a microVM cannot be changed with it.

    Returns:
        Empty without mounts; else a hyphen, ``m`` and 16 hex digits.
    """
    facts = [
        {name: value for name, value in asdict(mount).items() if name in ("real", "guest", "read_only")}
        for mount in mounts
    ]
    if not facts:
        return ""
    return "-m" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _printable(path: str) -> bool:
    return bool(path) and not any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in path)


def _check_guest(guest: str) -> None:
    hint = "give an absolute path such as /mnt/data"
    parts = PurePosixPath(guest).parts[1:]
    normal = guest.startswith("/") and not guest.startswith("//") and str(PurePosixPath(guest)) == guest
    if not _printable(guest) or not normal or ".." in parts:
        raise ConfigurationError(f"mounts: {guest!r} is not an absolute, plain path of the guest", hint=hint)
    if not parts or parts[0] in _GUEST_NEVER or (len(parts) == 1 and parts[0] in _GUEST_NEVER_ITSELF):
        raise ConfigurationError(f"mounts: {guest} belongs to the guest's system", hint=hint)


def _check_host(real: str, named: str) -> None:
    parts = PurePosixPath(real).parts[1:]
    if not real.startswith("/") or not parts or parts[0] in _HOST_NEVER:
        raise ConfigurationError(f"mounts: {named} leads to {real}, which is never shared", hint="name a directory")


def _within(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def _overlap(one: str, other: str) -> bool:
    return _within(one, other) or _within(other, one)
