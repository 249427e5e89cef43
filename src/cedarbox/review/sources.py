"""What names a version: a revision, a directory of one, or a directory on disk.

How a version is named:

* ``main``, ``v1.2``, ``HEAD~1``, a commit: the bundle as it is there;
* ``origin/main...``: where the change left ``origin/main``, the merge base with ``HEAD`` (``A...B``: with ``B``);
* ``main:policies/airgapped``: a directory of a revision;
* ``./new``, ``/srv/bundles/new``, or any directory that is no revision and has nothing of the above in its name: files
  on disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cedarbox.errors import ConfigurationError
from cedarbox.review.git import Repository

__all__ = ["Source", "Sources", "before", "below", "read_at"]

_OF_A_REVISION: Final = re.compile(r"\.\.\.|[:~^]|@\{")
"""What no name of a branch or of a tag has. A change can bring along a directory that is named so."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where versions are read from: a directory, the working tree, or a commit.

    Attributes:
        label: What readers know it by.
        commit: The whole name of the commit; empty for a directory and for the working tree.
        fixed: The only path that is meant, relative to the top of the repository or, for a directory, as it was given;
            None when any path may be asked for.
    """

    label: str
    commit: str = ""
    fixed: str | None = None


class Sources:
    """Finds what is named, in the repository of the working directory or of the bundles.

    Args:
        bundles: Directories, to find the repository with when the working directory is in none.
    """

    def __init__(self, bundles: Sequence[Path] = ()) -> None:
        self._bundles = bundles
        self._known: Repository | None = None

    @property
    def repository(self) -> Repository:
        """The repository, looked for when it is first asked for.

        Raises:
            ConfigurationError: There is none.
            HostError: There is no git.
        """
        if self._known is None:
            self._known = self._around()
        return self._known

    def _around(self) -> Repository:
        """Return the repository of the working directory, or that of the bundles when they are not in it."""
        bundle = next(iter(self._bundles), None)
        beside = None if bundle is None else next((path for path in (bundle, *bundle.parents) if path.is_dir()), None)
        try:
            here = Repository.around(Path.cwd())
        except ConfigurationError:
            if beside is None:
                raise
            return Repository.around(beside)
        if bundle is None or beside is None or below(here.top, bundle) is not None:
            return here
        try:
            return Repository.around(beside)
        except ConfigurationError:
            return here

    def named(self, text: str | None, other: str | None = None) -> Source:
        """Return what a text names.

        Args:
            text: As it was given; None for where this branch left the main branch.
            other: What is compared with that; where it is a directory, its repository is the one that counts.

        Raises:
            ConfigurationError: It names nothing, or two things.
            HostError: There is no git, and a revision is named.
        """
        if text is None:
            if other is not None and (spec := self._directory(other)) is not None:
                # A directory to compare with its own history.
                self._known = Repository.around(Path(spec))
            branch = self.repository.main_branch()
            told = branch.removeprefix("refs/remotes/").removeprefix("refs/heads/")
            return _of_commit(f"where it left {told}", self.repository.merge_base(branch, "HEAD"))
        if (spec := self._directory(text)) is not None:
            return Source(text, fixed=spec)
        try:
            self.repository  # noqa: B018 - it is looked for
        except ConfigurationError as error:
            told = f"{text!r} is no directory, and for a revision: {error.message}"
            raise ConfigurationError(told, hint=error.hint) from None
        revision, colon, path = text.partition(":")
        if colon and revision and not revision.endswith("}"):
            return _of_commit(revision, self.repository.commit(revision), _clean(path))
        one, dots, two = text.partition("...")
        if dots:
            found = self.repository.merge_base(one or "HEAD", two or "HEAD")
            return _of_commit(f"where it left {one or two}", found)
        return _of_commit(text, self.repository.commit(text))

    def _directory(self, text: str) -> str | None:
        """Return the directory that a text names; None when it names none."""
        if "\0" in text or not text:
            raise ConfigurationError("an empty name, or one with a NUL", hint="give a revision or a directory")
        if text.startswith("-"):
            raise ConfigurationError(f"{text!r} is no revision", hint="write a directory as ./name")
        plain_path = text.startswith(("./", "../", "/")) or text in {".", ".."}
        if not plain_path and (_OF_A_REVISION.search(text) or not _is_directory(text)):
            return None
        if plain_path or not self._is_revision(text):
            return text
        hint = f"write ./{text} for the directory, refs/heads/{text} for the branch"
        raise ConfigurationError(f"{text!r} is a directory, and a revision too", hint=hint)

    def _is_revision(self, text: str) -> bool:
        try:
            repository = self.repository
        except ConfigurationError:
            return False
        return repository.knows(text)

    def inside(self, bundle: Path) -> str:
        """Return the path of a bundle relative to the top of the repository, links left as they are.

        Args:
            bundle: The bundle, or a file.

        Raises:
            ConfigurationError: It is not inside.
        """
        found = below(self.repository.top, bundle)
        if found is None:
            hint = "give the path of the bundle inside this repository"
            raise ConfigurationError(f"{bundle}: not below {self.repository.top}", hint=hint)
        return found


def read_at(text: str, limit: int) -> bytes:
    """Return the content of one file of a revision, such as ``origin/main:keys/desk.pub``.

    Args:
        text: The revision, a colon, and the path from the top of the repository.
        limit: How large it may be, in bytes.

    Raises:
        ConfigurationError: There is no such file, or it is a link.
    """
    revision, _, path = text.partition(":")
    repository = Repository.around(Path.cwd())
    with repository.objects(repository.commit(revision)) as objects:
        entry = objects.entry(_clean(path))
        if entry is None or entry.kind != "file":
            hint = "check the path; it begins at the top of the repository"
            raise ConfigurationError(f"{text!r} is no file of the repository", hint=hint)
        return objects.file(entry.object, limit)


def before(path: Path, sources: Sources, old: Source, limit: int) -> bytes | None:
    """Return what a file was before a change that can reach it; None where no change can.

    Args:
        path: The file.
        sources: Where the versions come from.
        old: What is compared with.
        limit: How large it may be, in bytes.

    Raises:
        ConfigurationError: git knows the file, and it was not there before, or it was no plain file.
    """
    if not old.commit:
        return None
    repository = sources.repository
    found = None
    # By a link the change can lead elsewhere, and to somewhere else.
    for name in dict.fromkeys(below(repository.top, each) for each in (path, path.resolve())):
        if name is None:
            continue
        above = [each.as_posix() for each in PurePosixPath(name).parents if each.name]
        tracked = repository.parts("ls-files", "-z", "--cached", "--", name, *above)
        if not any(f"{name}/".startswith(f"{each}/") for each in tracked):
            continue  # the pipeline has put it there
        with repository.objects(old.commit) as objects:
            entry = objects.entry(name)
            if entry is None or entry.kind != "file":
                told = f"{name} is in the repository, and no file of {old.label}: the change brings it along"
                raise ConfigurationError(told, hint="give it from where the change cannot reach it")
            found = objects.file(entry.object, limit)
    return found


def below(top: Path, path: Path) -> str | None:
    """Return a path relative to a directory that it is below; None when it is not.

    Only the way to the directory may go through links: one that stands for the bundle is for the reader to see.

    Args:
        top: The directory, without links.
        path: The path, from the working directory.
    """
    absolute = Path(os.path.normpath(Path.cwd().resolve() / path))
    for above in (absolute, *absolute.parents):
        if above == top or (above.is_dir() and above.resolve() == top):
            return absolute.relative_to(above).as_posix()
    return None


def _of_commit(label: str, commit: str, fixed: str | None = None) -> Source:
    short = commit[:12]
    return Source(label if label == short else f"{label} ({short})", commit, fixed)


def _is_directory(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:
        return False  # a name that is too long for one


def _clean(path: str) -> str:
    parts = PurePosixPath(path.replace("//", "/")).parts
    if path.startswith("/") or ".." in parts:
        hint = "write it from the top of the repository, such as main:policies/airgapped"
        raise ConfigurationError(f"{path!r} is no path inside a repository", hint=hint)
    return "/".join(part for part in parts if part != ".")
