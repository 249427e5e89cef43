"""Reads files out of a git repository without running anything that the repository says.

A repository that is reviewed is not trusted: its configuration can name programs (a file system monitor, hooks, helpers
of transports), it can replace objects by others, and a partial clone fetches what is missing from wherever it says.
Only plumbing is called here that does none of that, each time with the rest switched off, and objects are read raw from
one ``git cat-file --batch``, by their ids: no name of a file ever becomes an option or a pattern.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal

from cedarbox.errors import ConfigurationError, HostError
from cedarbox.text import printable

__all__ = ["Entry", "Objects", "Repository"]

_TIMEOUT_S: Final = 60
# Of a directory: 1,000 files with names of 255 octets are below 300 kB.
_MAX_TREE: Final = 4 * 1024 * 1024
_MAX_COMMIT: Final = 1024 * 1024
_MAX_REVISION: Final = 1000
_DEEPEN: Final = (
    "fetch the history too: fetch-depth: 0 in actions/checkout, GIT_DEPTH: 0 in GitLab, or git fetch --unshallow"
)
_OID: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SWITCHED_OFF: Final = (
    "core.fsmonitor=false",  # a program that git runs to learn what changed
    "core.hooksPath=/dev/null",
    "core.alternateRefsCommand=",
    "core.commitGraph=false",  # parents come from the commits, not from a file that repeats them
    "protocol.allow=never",  # a partial clone must not fetch what is missing
    "core.pager=cat",
    "log.showSignature=false",  # it would run gpg.program
)

Kind = Literal["file", "directory", "link", "submodule"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory of a commit holds under one name.

    Attributes:
        kind: What it is.
        object: Id of its object.
    """

    kind: Kind
    object: str


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository.

    Attributes:
        top: Its working tree, without links in the path.
    """

    top: Path

    @classmethod
    def around(cls, directory: Path) -> Repository:
        """Find the repository that a directory is in.

        Raises:
            ConfigurationError: It is in none, or in one without a working tree.
            HostError: There is no git.
        """
        found = _run(directory, "rev-parse", "--show-toplevel")
        if found.returncode:
            said = _said(found)
            if "dubious ownership" in said:
                hint = "run as that user, or: git config --global --add safe.directory THE-REPOSITORY"
                raise ConfigurationError(f"{directory}: the git repository belongs to another user", hint=hint)
            hint = "run it inside the checkout, or give two directories"
            raise ConfigurationError(f"{directory}: in no git repository that can be read ({said})", hint=hint)
        return cls(Path(os.fsdecode(found.stdout.removesuffix(b"\n"))).resolve())

    def commit(self, revision: str) -> str:
        """Return the id of the commit that a revision names.

        Raises:
            ConfigurationError: It names none here.
        """
        found = self._commit(revision)
        if found is None:
            hint = _DEEPEN if self._is_shallow() else "check the name; git branch --all lists what there is"
            raise ConfigurationError(f"{printable(revision)[:200]!r} names no commit of {self.top}", hint=hint)
        return found

    def knows(self, revision: str) -> bool:
        """Whether a revision names a commit."""
        return self._commit(revision) is not None

    def merge_base(self, one: str, other: str) -> str:
        """Return the id of the newest commit that both have behind them.

        Args:
            one: A revision.
            other: Another.

        Raises:
            ConfigurationError: One names no commit, or they share none that is here.
        """
        found = _run(self.top, "merge-base", self.commit(one), self.commit(other))
        oid = found.stdout.decode("ascii", "replace").strip()
        if found.returncode or not _OID.fullmatch(oid):
            hint = _DEEPEN if self._is_shallow() else "name the commit to compare with"
            raise ConfigurationError(f"{printable(one)} and {printable(other)} have no common commit here", hint=hint)
        return oid

    def main_branch(self) -> str:
        """Return what changes are compared with by default: the main branch of the origin, else of this repository.

        Raises:
            ConfigurationError: There is none that goes by a usual name.
        """
        head = _run(self.top, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
        named = [head.stdout.decode("utf-8", "replace").strip().removeprefix("refs/remotes/")] if head.stdout else []
        for name in (*named, "origin/main", "origin/master", "main", "master"):
            if self.knows(name):
                return name
        hint = _DEEPEN if self._is_shallow() else "name the revision to compare with, such as HEAD~1"
        raise ConfigurationError(f"{self.top}: no main branch to compare with", hint=hint)

    def objects(self, commit: str) -> Objects:
        """Open the files of a commit, for use in a ``with`` statement.

        Args:
            commit: Id of the commit, as :meth:`commit` gives it.
        """
        return Objects(self.top, commit)

    def listed(self) -> tuple[str, ...]:
        """Return the paths below the top that are in the working tree: those that git knows, and new ones.

        Raises:
            ConfigurationError: git cannot list them.
        """
        return self.parts("ls-files", "-z", "--cached", "--others", "--exclude-standard")

    def parts(self, *arguments: str) -> tuple[str, ...]:
        """Return what a command of git prints that ends each part with a NUL.

        Args:
            arguments: The command, of those that run nothing and change nothing.

        Raises:
            ConfigurationError: It fails.
        """
        found = _run(self.top, *arguments)
        if found.returncode:
            raise ConfigurationError(f"{self.top}: git cannot read its index ({_said(found)})", hint="check the clone")
        return tuple(os.fsdecode(part) for part in found.stdout.split(b"\0") if part)

    def _commit(self, revision: str) -> str | None:
        # A revision could be an option, or a search through all of the history.
        if not revision or revision.startswith("-") or len(revision) > _MAX_REVISION or not revision.isprintable():
            hint = "write a branch, a tag, a commit, or such as HEAD~1"
            raise ConfigurationError(f"{printable(revision)[:200]!r} is no revision", hint=hint)
        given = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        found = _run(self.top, *given)
        oid = found.stdout.decode("ascii", "replace").strip()
        return oid if not found.returncode and _OID.fullmatch(oid) else None

    def _is_shallow(self) -> bool:
        return _run(self.top, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"


class Objects(AbstractContextManager["Objects"]):
    """The files of one commit, read one after the other from one process.

    Args:
        top: The working tree of the repository.
        commit: Id of the commit.
    """

    def __init__(self, top: Path, commit: str) -> None:
        self._top, self._commit = top, commit
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Objects:
        self._process = _start(self._top)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait(_TIMEOUT_S)

    def entry(self, path: str) -> Entry | None:
        """Return what stands at a path; None for nothing.

        Args:
            path: Relative to the top, with ``/``; empty for the top itself.

        Raises:
            ConfigurationError: A link or a submodule is on the way, or an object cannot be read.
        """
        at = Entry("directory", self._root())
        walked: list[str] = []
        for name in [part for part in path.split("/") if part not in {"", "."}]:
            if at.kind != "directory":
                told = f"{'/'.join(walked)} is a {at.kind} in commit {self._commit[:12]}"
                if at.kind == "file":
                    return None
                hint = "a bundle is read from plain directories, not through links"
                raise ConfigurationError(told, hint="run it inside of that" if at.kind == "submodule" else hint)
            walked.append(name)
            below = self.directory(at.object).get(name)
            if below is None:
                return None
            at = below
        return at

    def directory(self, tree: str) -> Mapping[str, Entry]:
        """Return what a directory holds, by name.

        Args:
            tree: Id of its object.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return dict(_entries(self._read(tree, b"tree", _MAX_TREE), len(tree) // 2))

    def named(self, name: str) -> Iterator[str]:
        """Yield the path of every file of this name, relative to the top. Links and submodules are passed over.

        Args:
            name: Without a directory.

        Raises:
            ConfigurationError: A directory cannot be read.
        """
        waiting = [("", self._root())]
        while waiting:
            above, tree = waiting.pop()
            for each, entry in self.directory(tree).items():
                if entry.kind == "directory":
                    waiting.append((f"{above}{each}/", entry.object))
                elif entry.kind == "file" and each == name:
                    yield above + each

    def file(self, blob: str, limit: int) -> bytes:
        """Return the content of a file.

        Args:
            blob: Id of its object.
            limit: How large it may be, in bytes.

        Raises:
            ConfigurationError: It cannot be read, or is larger.
        """
        return self._read(blob, b"blob", limit)

    def _root(self) -> str:
        first = self._read(self._commit, b"commit", _MAX_COMMIT).split(b"\n", 1)[0].decode("ascii", "replace")
        tree = first.removeprefix("tree ")
        if not _OID.fullmatch(tree):
            raise self._unreadable(self._commit, "it is damaged")
        return tree

    def _read(self, oid: str, kind: bytes, limit: int) -> bytes:
        process = self._process
        assert process is not None  # noqa: S101 - inside the with statement
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            process.stdin.write(oid.encode("ascii") + b"\n")
            process.stdin.flush()
            header = process.stdout.readline(200).split()
            if len(header) != 3 or header[0] != oid.encode("ascii") or header[1] != kind:
                missing = len(header) == 2 or not header
                raise self._unreadable(oid, "it is not here" if missing else "it is not what it should be")
            size = int(header[2])
            if size > limit:
                raise self._unreadable(oid, f"it is larger than {limit} bytes", hint="split the file")
            data = _exactly(process.stdout, size)
            process.stdout.read(1)
        except (OSError, ValueError):
            raise self._unreadable(oid, "git ended") from None
        if len(data) != size:
            raise self._unreadable(oid, "git ended")
        return data

    def _unreadable(self, oid: str, why: str, hint: str = "") -> ConfigurationError:
        message = f"object {oid[:12]} of commit {self._commit[:12]} cannot be read: {why}"
        return ConfigurationError(message, hint=hint or f"the clone is not whole; {_DEEPEN}")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _entries(data: bytes, digest: int) -> Iterator[tuple[str, Entry]]:
    # A tree is for each entry: mode, space, name, NUL, the bytes of the id (gitformat-pack and the source of git).
    at = 0
    while at < len(data):
        end = data.index(b"\0", at)
        mode, _, name = data[at:end].partition(b" ")
        kind: Kind = "file"
        if mode == b"40000":
            kind = "directory"
        elif mode == b"120000":
            kind = "link"
        elif mode == b"160000":
            kind = "submodule"
        at = end + 1 + digest
        yield os.fsdecode(name), Entry(kind, data[end + 1 : at].hex())


def _environment() -> dict[str, str]:
    # What is in the environment of a hook (GIT_DIR, GIT_INDEX_FILE) would lead to another repository than the one asked
    # about, and GIT_TRACE and others write files.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "LC_ALL": "C",
    }


def _command(*arguments: str) -> list[str]:
    options = [part for setting in _SWITCHED_OFF for part in ("-c", setting)]
    return ["git", "--no-pager", "--no-replace-objects", *options, *arguments]


def _run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        done = subprocess.run(
            _command(*arguments),
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _no_git(directory, error) from None
    if done.returncode < 0:
        # Not that there is no such thing, which would have something else compared.
        raise HostError(f"{directory}: git was ended by signal {-done.returncode}", hint="run it again")
    return done


def _start(directory: Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            _command("cat-file", "--batch"),
            cwd=directory,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        raise _no_git(directory, error) from None


def _no_git(directory: Path, error: Exception) -> HostError | ConfigurationError:
    if isinstance(error, FileNotFoundError) and error.filename == "git":
        return HostError("git is not installed", hint="install git, or give two directories")
    if isinstance(error, subprocess.TimeoutExpired):
        return HostError(f"{directory}: git did not answer within {_TIMEOUT_S} s", hint="try it again")
    return ConfigurationError(f"{directory}: git cannot be run there ({error})", hint="check the path")


def _said(found: subprocess.CompletedProcess[bytes]) -> str:
    lines = found.stderr.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[0])[:200] if lines else "git says nothing"
