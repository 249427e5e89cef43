"""Finds a git repository and the commits that revisions name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.errors import ConfigurationError
from cedarbox.review.git_objects import DEEPEN, OID, Objects
from cedarbox.review.git_run import run, said
from cedarbox.text import printable

__all__ = ["Repository"]

_MAX_REVISION: Final = 1000
_AMBIGUOUS: Final = re.compile(r"^warning: refname '(.+)' is ambiguous", re.MULTILINE)


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
            hint = DEEPEN if self._is_shallow() else "check the name; git branch --all lists what there is"
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
        if found.returncode or not oids or not all(map(OID.fullmatch, oids)):
            hint = DEEPEN if self._is_shallow() else "name the commit to compare with"
            raise ConfigurationError(f"{names} have no common commit here", hint=hint)
        if len(oids) > 1:
            # A merge takes what each of them has not as part of the change; compared with one, a part is left out.
            hint = f"merge {printable(one)} into what is compared with it, or name the commit to compare with"
            raise ConfigurationError(f"{names} have {len(oids)} newest common commits", hint=hint)
        if self._is_shallow() and not self._cut_off().isdisjoint(self._after(oids[0], *tips)):
            told = f"what {names} have in common is older than where this shallow clone ends"
            raise ConfigurationError(told, hint=DEEPEN)
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
        hint = DEEPEN if self._is_shallow() else "name the revision to compare with, such as HEAD~1"
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
        if found.returncode or not OID.fullmatch(oid):
            return None
        for name in _AMBIGUOUS.findall(found.stderr.decode("utf-8", "replace")):
            # A tag goes before a branch, and whoever changes policies may make tags. HEAD and a whole id are never
            # anything else.
            if name != "HEAD" and not OID.fullmatch(name):
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
            raise ConfigurationError(f"{self.top}: where the shallow clone ends is not known", hint=DEEPEN) from None

    def _after(self, commit: str, *tips: str) -> tuple[str, ...]:
        """Return what is behind one of the tips, and not behind the commit."""
        found = run(self.top, "rev-list", *tips, f"^{commit}")
        if found.returncode:
            raise ConfigurationError(f"{self.top}: git cannot list the history ({said(found)})", hint=DEEPEN)
        return tuple(found.stdout.decode("ascii", "replace").split())


def _is_revision(text: str) -> bool:
    return bool(text) and not text.startswith("-") and len(text) <= _MAX_REVISION and text.isprintable()
