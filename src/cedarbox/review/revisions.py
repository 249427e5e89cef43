"""The two versions of a bundle that a change lies between: from git revisions, from directories, signed or not.

How a version is named:

* ``main``, ``v1.2``, ``HEAD~1``, a commit: the bundle as it is there;
* ``origin/main...``: where the change left ``origin/main``, the merge base with ``HEAD`` (``A...B``: with ``B``);
* ``main:policies/airgapped``: a directory of a revision;
* ``./new``, ``/srv/bundles/new``, or any directory that is no revision: files on disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy.signing import Signers
from cedarbox.review.beside import beside_of_commit, beside_on_disk
from cedarbox.review.configured import SETTINGS, Configured, configured_at, configured_in, inside
from cedarbox.review.diff.settings import settings_changes
from cedarbox.review.git import Objects, Repository
from cedarbox.review.linked import BESIDE
from cedarbox.review.plain import read_file, schema_of
from cedarbox.review.stored import MAX_FILE, NO_LINKS, of_commit, of_disk, refuse_links, small
from cedarbox.review.subject import shown
from cedarbox.review.version import Pair, Version, verified

__all__ = ["compared_with", "pairs", "read_at", "resettled"]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where versions are read from: a directory, the working tree, or a commit."""

    label: str
    commit: str = ""
    fixed: str | None = None
    """The only path that is meant, relative to the top of the repository or, for a directory, as it was given."""


def pairs(
    base: str | None,
    head: str | None,
    bundles: Sequence[Path] = (),
    *,
    signers: Signers | None = None,
    schema: Path | None = None,
    links: Path | None = None,
    baseline: Path | None = None,
    configured: bool = False,
) -> tuple[Pair, ...]:
    """Read what is to be compared.

    Args:
        base: How it was; by default the merge base of ``HEAD`` and the main branch.
        head: How it is to be; by default the working tree.
        bundles: Directories of the bundles, for revisions; by default each bundle of the repository that differs.
        signers: Whose signatures both versions must have; with None no signature is looked at.
        schema: A Cedar schema: the directories hold plain Cedar, no bundles. A version that has a file at this place
            uses its own.
        links: With a schema, the links of templates; by default the file ``links.json`` beside the policies of each
            version. A version that has a file at this place uses its own. Where one has it and the other has not, the
            links of the other are not known; where none has it, it counts for both.
        baseline: A baseline of the linter to read in both versions too.
        configured: Compare the bundle that ``cedarbox.toml`` at the top names with the one that it named, even where
            that is the same, and no other.

    Returns:
        A pair for each bundle, in the order given; by default those that differ, sorted, and last, where
        ``cedarbox.toml`` at the top says something else than before, the bundle that it names with the one before.

    Raises:
        ConfigurationError: A version cannot be read, or there is no bundle in either.
        HostError: There is no git, and a revision is named.
    """
    if links is not None and schema is None:
        raise ConfigurationError("--links is for plain Cedar; bundles have no templates", hint="give --schema too")
    reader = _Reader(signers, schema, links, baseline, bundles)
    old = reader.source(base, head)
    new = reader.source(head, None) if head is not None else _Source("the working tree")
    if configured:
        if bundles or schema is not None or old.fixed is not None or new.fixed is not None:
            hint = "leave out what names bundles, directories or a schema"
            raise ConfigurationError(f"{SETTINGS} is to name what is compared, and something else does too", hint=hint)
        return (reader.configured(old, new),)
    if old.fixed is not None or new.fixed is not None:
        if bundles:
            raise ConfigurationError("--bundle is for revisions; a directory was given", hint="leave one of them out")
        return (reader.fixed(old, new, head_given=head is not None),)
    if bundles:
        found = [reader.pair(old, new, path) for path in map(reader.inside, bundles)]
        for each in found:
            if each.base.files is None and each.head.files is None:
                hint = "give the directory of a policy bundle"
                raise ConfigurationError(f"{each.bundle}: no bundle there, before or after", hint=hint)
        return tuple(found)
    differing = [
        each
        for each in (reader.pair(old, new, path) for path in reader.discovered(old, new))
        if (each.base.files, each.base.beside) != (each.head.files, each.head.beside)
    ]
    if schema is None and reader.resettled(old, new) is not None:
        decides = reader.configured(old, new)
        same = decides.base.files, decides.head.files
        differing = [each for each in differing if (each.base.files, each.head.files) != same]
        differing.append(decides)
    return tuple(differing)


def compared_with(base: str | None, head: str | None, beside: Sequence[Path] = ()) -> str:
    """Return what :func:`pairs` takes for the old version, in words.

    Args:
        base: As there.
        head: As there.
        beside: The bundles, as there.

    Raises:
        ConfigurationError: It cannot be told.
        HostError: There is no git.
    """
    return _Reader(None, None, None, None, beside).source(base, head).label


def resettled(base: str, beside: Sequence[Path] = ()) -> tuple[Path, Path] | None:
    """Return which bundle ``cedarbox.toml`` of a revision names, and which that of the working tree names.

    Args:
        base: The revision, as :func:`pairs` takes it; a directory has no settings.
        beside: Bundles, to find the repository with when the working directory is in none.

    Returns:
        Their paths; None when the settings are the same.

    Raises:
        ConfigurationError: It cannot be told.
        HostError: There is no git.
    """
    reader = _Reader(None, None, None, None, beside)
    old, new = reader.source(base, None), _Source("the working tree")
    return None if old.fixed is not None else reader.resettled(old, new)


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


class _Reader:
    def __init__(
        self,
        signers: Signers | None,
        schema: Path | None,
        links: Path | None,
        baseline: Path | None,
        bundles: Sequence[Path],
    ) -> None:
        self._signers, self._schema, self._links = signers, schema, links
        self._baseline, self._bundles = baseline, bundles
        self._known: Repository | None = None

    @property
    def repository(self) -> Repository:
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
        if bundle is None or beside is None or _below(here.top, bundle) is not None:
            return here
        try:
            return Repository.around(beside)
        except ConfigurationError:
            return here

    def source(self, text: str | None, other: str | None) -> _Source:
        if text is None:
            if other is not None and (spec := self._directory(other)) is not None:
                # A directory to compare with its own history.
                self._known = Repository.around(Path(spec))
            branch = self.repository.main_branch()
            return self._of_commit(f"where it left {branch}", self.repository.merge_base(branch, "HEAD"))
        if (spec := self._directory(text)) is not None:
            return _Source(text, fixed=spec)
        try:
            self.repository  # noqa: B018 - it is looked for
        except ConfigurationError as error:
            told = f"{text!r} is no directory, and for a revision: {error.message}"
            raise ConfigurationError(told, hint=error.hint) from None
        revision, colon, path = text.partition(":")
        if colon and revision and not revision.endswith("}"):
            return self._of_commit(revision, self.repository.commit(revision), _clean(path))
        one, dots, two = text.partition("...")
        if dots:
            found = self.repository.merge_base(one or "HEAD", two or "HEAD")
            return self._of_commit(f"where it left {one or two}", found)
        return self._of_commit(text, self.repository.commit(text))

    def _of_commit(self, label: str, commit: str, fixed: str | None = None) -> _Source:
        short = commit[:12]
        return _Source(label if label == short else f"{label} ({short})", commit, fixed)

    def _directory(self, text: str) -> str | None:
        """Return the directory that a text names; None when it names none."""
        if "\0" in text or not text:
            raise ConfigurationError("an empty name, or one with a NUL", hint="give a revision or a directory")
        if text.startswith("-"):
            raise ConfigurationError(f"{text!r} is no revision", hint="write a directory as ./name")
        plain_path = text.startswith(("./", "../", "/")) or text in {".", ".."}
        if not plain_path and not _is_directory(text):
            return None
        if plain_path or not self._is_revision(text):
            return text
        hint = f"write ./{text} for the directory, refs/heads/{text} for the branch"
        raise ConfigurationError(f"{text!r} is a directory, and a revision too", hint=hint)

    def _is_revision(self, text: str) -> bool:
        try:
            return self.repository.knows(text)
        except ConfigurationError:
            return False

    def inside(self, bundle: Path) -> str:
        """Return the path of a bundle relative to the top of the repository, links left as they are."""
        found = _below(self.repository.top, bundle)
        if found is None:
            hint = "give the path of the bundle inside this repository"
            raise ConfigurationError(f"{bundle}: not below {self.repository.top}", hint=hint)
        return found

    def fixed(self, old: _Source, new: _Source, *, head_given: bool) -> Pair:
        """Return the pair of which at least one side names its directory."""
        if not head_given and not old.commit:
            raise ConfigurationError("two directories are compared, and one is given", hint="give the new one too")
        if not head_given:
            assert old.fixed is not None  # noqa: S101 - why this is called
            return self.pair(old, new, old.fixed)
        old_at = old.fixed if old.fixed is not None else self._beside(new)
        new_at = new.fixed if new.fixed is not None else self._beside(old)
        before, after = self._version(old, old_at, old=True), self._version(new, new_at, old=False)
        for version, at in ((before, old_at), (after, new_at)):
            if version.files is None and (old.fixed is not None and new.fixed is not None):
                hint = "give the directory of a policy bundle"
                raise ConfigurationError(f"{at}: no bundle there", hint=hint)
        return self._paired(shown(after.root), before, after)

    def _beside(self, other: _Source) -> str:
        assert other.fixed is not None  # noqa: S101 - why this is called
        return other.fixed if other.commit else self.inside(Path(other.fixed))

    def pair(self, old: _Source, new: _Source, path: str) -> Pair:
        """Return both versions of the bundle at a path below the top."""
        return self._paired(self._named(path), self._version(old, path, old=True), self._version(new, path, old=False))

    def _paired(self, name: str, before: Version, after: Version) -> Pair:
        if self._links is not None and before.links is None and after.links is None:
            links = (self._links, read_file(self._links))
            before, after = replace(before, links=links), replace(after, links=links)
        return Pair(name, before, after)

    def _named(self, path: str) -> str:
        return shown(Path(os.path.relpath(self.repository.top / path)))

    def discovered(self, old: _Source, new: _Source) -> Sequence[str]:
        """Return the directories with a bundle.toml on either side, below the top, sorted."""
        names: set[str] = set()
        for source in (old, new):
            if source.commit:
                with self.repository.objects(source.commit) as objects:
                    names.update(objects.named("bundle.toml"))
            else:
                top = self.repository.top
                listed = (name for name in self.repository.listed() if PurePosixPath(name).name == "bundle.toml")
                names.update(name for name in listed if (top / name).exists())
        if not names:
            hint = "name the bundle with --bundle"
            raise ConfigurationError(f"{self.repository.top}: no policy bundle, before or after", hint=hint)
        return sorted(PurePosixPath(name).parent.as_posix() for name in names)

    def resettled(self, old: _Source, new: _Source) -> tuple[Path, Path] | None:
        """Return the bundles that were and are configured; None when the settings are the same."""
        before, after = self._configured(old), self._configured(new)
        if before.bundle == after.bundle and not any(True for _ in settings_changes(before, after)):
            return None
        return self.repository.top / before.bundle, self.repository.top / after.bundle

    def configured(self, old: _Source, new: _Source) -> Pair:
        """Return what was configured to decide, and what is now, with the settings."""
        was, now = self._configured(old), self._configured(new)
        before, after = was.bundle, now.bundle
        if not inside(before) or not inside(after):
            message = f"{SETTINGS} names {after!r} as the bundle, and named {before!r}: one is not in this repository"
            raise ConfigurationError(message, hint="compare the two directories, or name bundles with --bundle")
        will = self._version(new, after, old=False)
        if will.files is None:
            # It may come from somewhere else until it decides.
            message = f"{SETTINGS} names {after!r} as the bundle, and none is there"
            raise ConfigurationError(message, hint="name one of this repository")
        named = f" ({SETTINGS} named {self._named(before)})" if before != after else ""
        had = replace(self._version(old, before, old=True), settings=was)
        return self._paired(f"{self._named(after)}{named}", had, replace(will, settings=now))

    def _configured(self, source: _Source) -> Configured:
        if not source.commit:
            return configured_at(self.repository.top, Path(self._named(SETTINGS)))
        with self.repository.objects(source.commit) as objects:
            return configured_in(objects, Path(f"{source.commit[:12]}:"))

    def _version(self, source: _Source, path: str, *, old: bool) -> Version:
        if source.commit:
            root = Path(self._named(path))
            if old:
                # A place in an old version is no place that an editor could open.
                root = Path(f"{source.commit[:12]}:{path}")
            with self.repository.objects(source.commit) as objects:
                files = of_commit(objects, path, root)
                schema = self._schema_of(objects)
                links = None if self._schema is None else self._links_of(objects, path, root)
                beside = beside_of_commit(objects, path, self._baseline_inside()) if schema is None else {}
        else:
            root = Path(path) if source.fixed is not None else Path(self._named(path))
            if source.fixed is None:
                refuse_links(self.repository.top, path)
            files = of_disk(root)
            schema = None if self._schema is None else schema_of(self._schema, small(self._schema))
            links = None if self._schema is None else self._links_on_disk(root)
            beside = beside_on_disk(root, self._baseline) if schema is None else {}
        return replace(
            verified(Version(source.label, root, files, schema=schema, links=links), self._signers), beside=beside
        )

    def _links_of(self, objects: Objects, path: str, root: Path) -> tuple[Path, bytes] | None:
        named = root / BESIDE if self._links is None else self._links
        at = f"{path}/{BESIDE}" if self._links is None else _below(self.repository.top, self._links)
        if at is None:
            return named, read_file(named)
        entry = objects.entry(at)
        if entry is None:
            return None
        if entry.kind != "file":
            raise BundleError(f"a {entry.kind}, no regular file", path=named, hint=NO_LINKS)
        return named, objects.file(entry.object, MAX_FILE)

    def _links_on_disk(self, root: Path) -> tuple[Path, bytes] | None:
        named = root / BESIDE if self._links is None else self._links
        if self._links is None and not os.path.lexists(named):
            return None
        return named, read_file(named)

    def _baseline_inside(self) -> str | None:
        try:
            return None if self._baseline is None else self.inside(self._baseline)
        except ConfigurationError:
            return None  # it is not in the repository: no change of it can be in the change

    def _schema_of(self, objects: Objects) -> str | None:
        if self._schema is None:
            return None
        at = self.inside(self._schema)
        entry = objects.entry(at)
        if entry is None or entry.kind != "file":
            return schema_of(self._schema, small(self._schema))
        return schema_of(Path(at), objects.file(entry.object, MAX_FILE))


def _below(top: Path, path: Path) -> str | None:
    """Return a path relative to a directory that it is below; None when it is not.

    Only the way to the directory may go through links: one that stands for the bundle is for the reader to see.
    """
    absolute = Path(os.path.normpath(Path.cwd().resolve() / path))
    for above in (absolute, *absolute.parents):
        if above == top or (above.is_dir() and above.resolve() == top):
            return absolute.relative_to(above).as_posix()
    return None


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
