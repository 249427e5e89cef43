"""Reads commits and their files out of a git repository.

Objects are read raw from one ``git cat-file --batch``, by their ids: no name of a file ever becomes an option or a
pattern.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal

from cedarbox.errors import ConfigurationError
from cedarbox.review.git_run import TIMEOUT_S, run, said, start
from cedarbox.text import printable

__all__ = ["Entry", "Objects", "Repository"]

# Of a directory: 1,000 files with names of 255 octets are below 300 kB.
_MAX_TREE: Final = 4 * 1024 * 1024
_MAX_COMMIT: Final = 1024 * 1024
_MAX_REVISION: Final = 1000
_DEEPEN: Final = (
    "fetch the history too: fetch-depth: 0 in actions/checkout, GIT_DEPTH: 0 in GitLab, or git fetch --unshallow"
)
_OID: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_AMBIGUOUS: Final = re.compile(r"^warning: refname '(.+)' is ambiguous", re.MULTILINE)

Kind = Literal["file", "directory", "link", "submodule"]
_KINDS: Final[Mapping[int, Kind]] = {0o100000: "file", 0o040000: "directory", 0o120000: "link", 0o160000: "submodule"}


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
        found = run(directory, "rev-parse", "--show-toplevel")
        if found.returncode:
            why = said(found)
            if "dubious ownership" in why:
                hint = "run as that user, or: git config --global --add safe.directory THE-REPOSITORY"
                raise ConfigurationError(f"{directory}: the git repository belongs to another user", hint=hint)
            hint = "run it inside the checkout, or give two directories"
            raise ConfigurationError(f"{directory}: in no git repository that can be read ({why})", hint=hint)
        top = Path(os.fsdecode(found.stdout.removesuffix(b"\n"))).resolve()
        if not os.path.lexists(top / ".git"):
            # No commit can have that name in it: the repository itself may be files of one.
            hint = "run it in the top of the checkout"
            raise ConfigurationError(f"{directory}: in a git repository whose working tree has no .git", hint=hint)
        return cls(top)

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
        """Whether a text names a commit.

        Raises:
            ConfigurationError: It could name two.
        """
        return _is_revision(revision) and self._commit(revision) is not None

    def merge_base(self, one: str, other: str) -> str:
        """Return the id of the newest commit that both have behind them.

        Args:
            one: A revision.
            other: Another.

        Raises:
            ConfigurationError: One names no commit, they share none that is here, or it cannot be told which is the
                newest.
        """
        tips = self.commit(one), self.commit(other)
        found = run(self.top, "merge-base", "--all", *tips)
        oids = found.stdout.decode("ascii", "replace").split()
        names = f"{printable(one)} and {printable(other)}"
        if found.returncode or not oids or not all(map(_OID.fullmatch, oids)):
            hint = _DEEPEN if self._is_shallow() else "name the commit to compare with"
            raise ConfigurationError(f"{names} have no common commit here", hint=hint)
        if len(oids) > 1:
            # A merge takes what each of them has not as part of the change; compared with one, a part is left out.
            hint = f"merge {printable(one)} into what is compared with it, or name the commit to compare with"
            raise ConfigurationError(f"{names} have {len(oids)} newest common commits", hint=hint)
        if self._is_shallow() and not self._cut_off().isdisjoint(self._after(oids[0], *tips)):
            told = f"what {names} have in common is older than where this shallow clone ends"
            raise ConfigurationError(told, hint=_DEEPEN)
        return oids[0]

    def main_branch(self) -> str:
        """Return what changes are compared with by default: the main branch of the origin, else of this repository.

        It is named in full, as a tag with a shorter name would come before it.

        Raises:
            ConfigurationError: There is none that goes by a usual name.
        """
        head = run(self.top, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
        named = [head.stdout.decode("utf-8", "replace").strip()] if head.stdout else []
        usual = [f"refs/{where}/{name}" for where in ("remotes/origin", "heads") for name in ("main", "master")]
        for name in (*named, *usual):
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
        found = run(self.top, *arguments)
        if found.returncode:
            raise ConfigurationError(f"{self.top}: git cannot read its index ({said(found)})", hint="check the clone")
        return tuple(os.fsdecode(part) for part in found.stdout.split(b"\0") if part)

    def _commit(self, revision: str) -> str | None:
        # A revision could be an option, or a search through all of the history.
        if not _is_revision(revision):
            hint = "write a branch, a tag, a commit, or such as HEAD~1"
            raise ConfigurationError(f"{printable(revision)[:200]!r} is no revision", hint=hint)
        found = run(self.top, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        oid = found.stdout.decode("ascii", "replace").strip()
        if found.returncode or not _OID.fullmatch(oid):
            return None
        for name in _AMBIGUOUS.findall(found.stderr.decode("utf-8", "replace")):
            # A tag goes before a branch, and whoever changes policies may make tags. HEAD and a whole id are never
            # anything else.
            if name != "HEAD" and not _OID.fullmatch(name):
                told = f"{printable(name)[:200]!r} is the name of more than one: of a tag and a branch, say"
                raise ConfigurationError(told, hint="write it in full, such as refs/remotes/origin/main")
        return oid

    def _is_shallow(self) -> bool:
        return run(self.top, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"

    def _cut_off(self) -> frozenset[str]:
        """Return the commits whose parents are not in a shallow clone."""
        name = os.fsdecode(run(self.top, "rev-parse", "--git-path", "shallow").stdout.removesuffix(b"\n"))
        try:
            return frozenset((self.top / name).read_text("ascii").split())
        except (OSError, ValueError):
            raise ConfigurationError(f"{self.top}: where the shallow clone ends is not known", hint=_DEEPEN) from None

    def _after(self, commit: str, *tips: str) -> tuple[str, ...]:
        """Return what is behind one of the tips, and not behind the commit."""
        found = run(self.top, "rev-list", *tips, f"^{commit}")
        if found.returncode:
            raise ConfigurationError(f"{self.top}: git cannot list the history ({said(found)})", hint=_DEEPEN)
        return tuple(found.stdout.decode("ascii", "replace").split())


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
        self._process = start(self._top)
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
            process.wait(TIMEOUT_S)

    def committed(self) -> datetime | None:
        """Return when the commit was made; None where no time is told that a clock can show.

        Raises:
            ConfigurationError: It cannot be read.
        """
        told = re.search(rb"^committer .*> ([0-9]{1,12}) [+-][0-9]{4}$", self._header(), re.MULTILINE)
        try:
            return datetime.fromtimestamp(int(told[1]), UTC) if told else None
        except (OverflowError, ValueError):
            return None

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
        data = self._read(tree, b"tree", _MAX_TREE)
        try:
            return _entries(data, len(tree) // 2)
        except (KeyError, ValueError):
            raise self._unreadable(tree, "it is damaged") from None

    def listed(self, path: str) -> Iterable[str]:
        """Return the names in the directory at a path; none where there is no directory.

        Args:
            path: Relative to the top, with ``/``; empty for the top itself.

        Raises:
            ConfigurationError: A link or a submodule is on the way, or an object cannot be read.
        """
        entry = self.entry(path)
        return () if entry is None or entry.kind != "directory" else self.directory(entry.object).keys()

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
        first = self._header().split(b"\n", 1)[0].decode("ascii", "replace")
        tree = first.removeprefix("tree ")
        if not _OID.fullmatch(tree):
            raise self._unreadable(self._commit, "it is damaged")
        return tree

    def _header(self) -> bytes:
        return self._read(self._commit, b"commit", _MAX_COMMIT).partition(b"\n\n")[0]

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


def _is_revision(text: str) -> bool:
    return bool(text) and not text.startswith("-") and len(text) <= _MAX_REVISION and text.isprintable()


def _exactly(stream: IO[bytes], size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _entries(data: bytes, digest: int) -> Mapping[str, Entry]:
    # A tree is for each entry: mode, space, name, NUL, the bytes of the id (gitformat-pack and the source of git).
    found: dict[str, Entry] = {}
    at = 0
    while at < len(data):
        end = data.index(b"\0", at)
        mode, _, octets = data[at:end].partition(b" ")
        name = os.fsdecode(octets)
        at = end + 1 + digest
        # Of two with one name a checkout could have the other.
        if name in found or "/" in name or name in {"", ".", ".."}:
            raise ValueError(name)
        # As git reads it: a mode may begin with zeros.
        found[name] = Entry(_KINDS[int(mode, 8) & 0o170000], data[end + 1 : at].hex())
    return found
