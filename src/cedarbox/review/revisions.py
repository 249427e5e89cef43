"""The two versions of a bundle that a change lies between: from git revisions, from directories, signed or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy.signing import Signers
from cedarbox.review.beside import beside_of_commit, beside_on_disk
from cedarbox.review.checked_out import as_in_a_commit, checked_out
from cedarbox.review.configured import SETTINGS, Configured, configured_at, configured_in, inside
from cedarbox.review.converted import refuse_converted
from cedarbox.review.diff.settings import settings_changes
from cedarbox.review.git import Repository
from cedarbox.review.git_objects import Objects
from cedarbox.review.limited import limited_bytes
from cedarbox.review.linked import BESIDE
from cedarbox.review.plain import read_file, schema_of
from cedarbox.review.sources import Source, Sources, below
from cedarbox.review.stored import MAX_FILE, NO_LINKS, of_commit, of_disk, refuse_links
from cedarbox.review.subject import shown
from cedarbox.review.twins import refuse_twins
from cedarbox.review.version import Pair, Version, verified

__all__ = ["compared_with", "pairs", "resettled"]


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
    sources = Sources(bundles)
    reader = _Reader(sources, signers, schema, links, baseline)
    old = sources.named(base, head)
    new = sources.named(head) if head is not None else Source("the working tree")
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
        found = [reader.pair(old, new, path) for path in map(sources.inside, bundles)]
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
    return Sources(beside).named(base, head).label


def resettled(base: str, beside: Sequence[Path] = ()) -> tuple[Path, Path] | None:
    """Return which bundle ``cedarbox.toml`` of a revision names, and which that of the working tree names.

    Args:
        base: The revision, as :func:`pairs` takes it, and no directory.
        beside: Bundles, to find the repository with when the working directory is in none.

    Returns:
        Their paths; None when the settings are the same.

    Raises:
        ConfigurationError: It cannot be told, or the base names a directory.
        HostError: There is no git.
    """
    sources = Sources(beside)
    old, new = sources.named(base), Source("the working tree")
    if old.fixed is not None:
        hint = "write it like origin/main; policy diff compares directories"
        raise ConfigurationError(
            f"{base!r} names a directory, and what is reviewed is compared with a revision", hint=hint
        )
    return _Reader(sources).resettled(old, new)


class _Reader:
    def __init__(
        self,
        sources: Sources,
        signers: Signers | None = None,
        schema: Path | None = None,
        links: Path | None = None,
        baseline: Path | None = None,
    ) -> None:
        self._sources = sources
        self._signers, self._schema, self._links, self._baseline = signers, schema, links, baseline

    @property
    def repository(self) -> Repository:
        return self._sources.repository

    def fixed(self, old: Source, new: Source, *, head_given: bool) -> Pair:
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

    def _beside(self, other: Source) -> str:
        assert other.fixed is not None  # noqa: S101 - why this is called
        return other.fixed if other.commit else self._sources.inside(Path(other.fixed))

    def pair(self, old: Source, new: Source, path: str) -> Pair:
        """Return both versions of the bundle at a path below the top."""
        before, after = self._version(old, path, old=True), self._version(new, path, old=False)
        return self._paired(self._named(path), before, self._noted(old, new, after))

    def _noted(self, old: Source, new: Source, after: Version) -> Version:
        if new.commit or new.fixed is not None or not self._at_head(old.commit):
            return after
        note = f"{old.label} is what is checked out: only what is not committed was compared"
        return replace(after, notes=(*after.notes, note))

    def _at_head(self, commit: str) -> bool:
        return bool(commit) and self.repository.knows("HEAD") and self.repository.commit("HEAD") == commit

    def _paired(self, name: str, before: Version, after: Version) -> Pair:
        if self._links is not None and before.links is None and after.links is None:
            links = (self._links, read_file(self._links))
            before, after = replace(before, links=links), replace(after, links=links)
        return Pair(name, before, after)

    def _named(self, path: str) -> str:
        return shown(Path(os.path.relpath(self.repository.top / path)))

    def discovered(self, old: Source, new: Source) -> Sequence[str]:
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

    def resettled(self, old: Source, new: Source) -> tuple[Path, Path] | None:
        """Return the bundles that were and are configured; None when the settings are the same."""
        before, after = self._configured(old), self._configured(new)
        if before.bundle == after.bundle and not any(True for _ in settings_changes(before, after)):
            return None
        return self.repository.top / before.bundle, self.repository.top / after.bundle

    def configured(self, old: Source, new: Source) -> Pair:
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
        return self._paired(f"{self._named(after)}{named}", had, replace(self._noted(old, new, will), settings=now))

    def _configured(self, source: Source) -> Configured:
        if not source.commit:
            path = Path(self._named(SETTINGS))
            as_in_a_commit(self.repository, SETTINGS, path)
            return configured_at(self.repository.top, path)
        root = Path(f"{source.commit[:12]}:")
        with self.repository.objects(source.commit) as objects:
            refuse_twins(objects.listed, "", {SETTINGS}, root)
            refuse_converted(objects, "", [SETTINGS] if SETTINGS in objects.listed("") else [], root)
            return configured_in(objects, root)

    def _version(self, source: Source, path: str, *, old: bool) -> Version:
        notes, committed = tuple[str, ...](), None
        if source.commit:
            root = Path(self._named(path))
            if old:
                # A place in an old version is no place that an editor could open.
                root = Path(f"{source.commit[:12]}:{path}")
            with self.repository.objects(source.commit) as objects:
                files, committed = of_commit(objects, path, root), objects.committed()
                schema = self._schema_of(objects)
                links = None if self._schema is None else self._links_of(objects, path, root)
                beside = beside_of_commit(objects, path, self._baseline_inside()) if schema is None else {}
        else:
            root = Path(path) if source.fixed is not None else Path(self._named(path))
            if source.fixed is None:
                refuse_links(self.repository.top, path)
            files = of_disk(root)
            if source.fixed is None:
                notes = checked_out(self.repository, path, root, files or {})
            schema = None if self._schema is None else _schema_on_disk(self._schema)
            links = None if self._schema is None else self._links_on_disk(root)
            beside = beside_on_disk(root, self._baseline) if schema is None else {}
        return replace(
            verified(Version(source.label, root, files, schema=schema, links=links), self._signers),
            beside=beside,
            notes=notes,
            committed=committed,
        )

    def _links_of(self, objects: Objects, path: str, root: Path) -> tuple[Path, bytes] | None:
        named = root / BESIDE if self._links is None else self._links
        at = f"{path}/{BESIDE}" if self._links is None else below(self.repository.top, self._links)
        if at is None:
            return named, read_file(named)
        entry = objects.entry(at)
        if entry is None:
            return None
        if entry.kind != "file":
            raise BundleError(f"a {entry.kind}, no regular file", path=named, hint=NO_LINKS)
        _refuse_converted(objects, at)
        return named, objects.file(entry.object, MAX_FILE)

    def _links_on_disk(self, root: Path) -> tuple[Path, bytes] | None:
        named = root / BESIDE if self._links is None else self._links
        if self._links is None and not os.path.lexists(named):
            return None
        return named, read_file(named)

    def _baseline_inside(self) -> str | None:
        try:
            return None if self._baseline is None else self._sources.inside(self._baseline)
        except ConfigurationError:
            return None  # it is not in the repository: no change of it can be in the change

    def _schema_of(self, objects: Objects) -> str | None:
        if self._schema is None:
            return None
        at = self._sources.inside(self._schema)
        entry = objects.entry(at)
        if entry is None or entry.kind != "file":
            return _schema_on_disk(self._schema)
        _refuse_converted(objects, at)
        return schema_of(Path(at), objects.file(entry.object, MAX_FILE))


def _refuse_converted(objects: Objects, path: str) -> None:
    file = PurePosixPath(path)
    refuse_converted(objects, file.parent.as_posix(), [file.name], Path(file.parent))


def _schema_on_disk(path: Path) -> str:
    return schema_of(path, limited_bytes(path, MAX_FILE, hint="give a Cedar schema"))
