"""Reads the files of a bundle so that what was read had been there all at once, or refuses.

A bundle may be replaced while it is read. The directory is opened once and its files are reached through that
descriptor, so a rename cannot lead elsewhere halfway. Afterwards names, inodes, sizes and times must be what they were,
and the path must still lead to the same directory; otherwise all is read again.

What this cannot see: a writer that changes files in place, one after the other, and pauses while the bundle is read.
Replace a bundle as a whole, by renaming a directory or a link to it, or sign it: a mixture never verifies.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.files import open_regular
from cedarbox.policy.signing import MAX_ENVELOPE, SIGNATURE_FILE

__all__ = ["BundleFiles", "decides", "read_bundle", "utf8_text"]

_ATTEMPTS: Final = 5
_MAX_FILE: Final = 4 * 1024 * 1024
_MAX_FILES: Final = 1000
_MAX_TOTAL: Final = 64 * 1024 * 1024

_Print = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """What a bundle held at one moment.

    Attributes:
        deciding: The content of each file that decides, by its name, sorted.
        signature: The content of the signature file; None when there is none or it was not asked for.
    """

    deciding: Mapping[str, bytes]
    signature: bytes | None


class _ChangedError(Exception):
    """The bundle was changed while it was read."""


def read_bundle(root: Path, *, with_signature: bool) -> BundleFiles:
    """Read every file that decides, each once for an attempt.

    Args:
        root: The directory, or a link to it.
        with_signature: Read the signature file too; it is not looked at otherwise.

    Raises:
        BundleError: The directory or a file cannot be read, is of the wrong kind or too large, or it was changed
            during each of 5 attempts.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(root, with_signature=with_signature)
        except _ChangedError:
            continue
    hint = "replace it in one step, by renaming a directory or a link"
    raise BundleError(f"it was changed while it was read, {_ATTEMPTS} times over", path=root, hint=hint)


def _attempt(root: Path, *, with_signature: bool) -> BundleFiles:
    try:
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except ValueError:
        raise BundleError("a path with a NUL", path=Path("(bundle)"), hint="check the path") from None
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        hint = "check the path, or make a bundle there" if missing else "it must be a directory that this user can read"
        raise BundleError(f"cannot read the policy bundle ({error.strerror})", path=root, hint=hint) from None
    try:
        before = _survey(root, directory, with_signature=with_signature)
        contents = {name: _read(root, directory, name, seen) for name, seen in before.items()}
        if _survey(root, directory, with_signature=with_signature) != before or not _leads_to(root, directory):
            raise _ChangedError
    finally:
        os.close(directory)
    signature = contents.pop(SIGNATURE_FILE, None)
    return BundleFiles(contents, signature)


def _survey(root: Path, directory: int, *, with_signature: bool) -> dict[str, _Print]:
    try:
        names = sorted(name for name in os.listdir(directory) if _counts(name, with_signature=with_signature))
    except OSError as error:
        hint = "it must be a directory that this user can read"
        raise BundleError(f"cannot read the policy bundle ({error.strerror})", path=root, hint=hint) from None
    if len(names) > _MAX_FILES:
        raise BundleError(f"more than {_MAX_FILES} files", path=root, hint="put several policies into one file")
    prints = {}
    for name in names:
        if not name.isprintable():
            raise BundleError(f"a file with the name {name!a}", path=root, hint="use printable UTF-8 in names")
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            raise _ChangedError from None
        except OSError as error:
            raise _unreadable(root / name, error) from None
        _refuse_odd(root / name, status)
        prints[name] = _print(status)
    if sum(size for _, size, _, _ in prints.values()) > _MAX_TOTAL:
        raise BundleError(f"larger than {_MAX_TOTAL} bytes in all", path=root, hint="split the bundle")
    return prints


def _counts(name: str, *, with_signature: bool) -> bool:
    return with_signature if name == SIGNATURE_FILE else decides(name)


def decides(name: str) -> bool:
    """Whether a file of a bundle decides, by its name; a name that begins with a dot is a name like any other."""
    return name.endswith(".cedar") or name in {"entities.json", "bundle.toml"}


def utf8_text(path: Path, data: bytes) -> str:
    """Return the text of a file of a bundle.

    Raises:
        BundleError: It is not UTF-8; the message names the line.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BundleError("not UTF-8 text", path=path, line=line, hint="save it as UTF-8") from None


def _refuse_odd(path: Path, status: os.stat_result) -> None:
    # A link could change between review and load, or lead out of the bundle; a pipe would block.
    if not stat.S_ISREG(status.st_mode):
        raise BundleError("not a regular file", path=path, hint="a bundle holds plain files, no links")
    limit = MAX_ENVELOPE if path.name == SIGNATURE_FILE else _MAX_FILE
    if status.st_size > limit:
        hint = "sign the bundle again with cedarbox policy sign" if path.name == SIGNATURE_FILE else "split it"
        raise BundleError(f"larger than {limit} bytes", path=path, hint=hint)


def _read(root: Path, directory: int, name: str, seen: _Print) -> bytes:
    try:
        with open_regular(name, directory=directory) as file:
            if _print(os.fstat(file.fileno())) != seen:
                raise _ChangedError
            data = file.read(seen[1] + 1)
    except FileNotFoundError:
        raise _ChangedError from None
    except OSError as error:
        now = _stat_or_none(name, directory)
        if now is None or _print(now) != seen:
            raise _ChangedError from None
        raise _unreadable(root / name, error) from None
    if len(data) != seen[1]:
        raise _ChangedError
    return data


def _stat_or_none(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None


def _leads_to(root: Path, directory: int) -> bool:
    opened = os.fstat(directory)
    try:
        named = root.stat()
    except OSError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _print(status: os.stat_result) -> _Print:
    # The time of the last change of the inode cannot be set, unlike that of the content.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"cannot read it ({error.strerror})", path=path, hint="check its owner and mode")
