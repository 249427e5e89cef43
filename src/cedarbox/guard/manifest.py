"""A manifest, entry by entry, as requests to the policies.

Manifests are applied inside the backend, where no wrapper sees it. So they are decided before: what comes from the
host, what is fetched, what is written, which paths outside the workspace are opened, which accounts are made and which
environment every process gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Final

from agents.sandbox.entries import BaseEntry, Dir, File, GitRepo, LocalDir, LocalFile, Mount
from agents.sandbox.errors import InvalidManifestPathError
from agents.sandbox.manifest import DEFAULT_REMOTE_MOUNT_COMMAND_ALLOWLIST, EnvEntry, Environment, Manifest
from agents.sandbox.types import Group, Permissions, User
from agents.sandbox.workspace_paths import SandboxPathGrant
from pydantic import BaseModel

from cedarbox.errors import CanonicalizationError, CedarboxError
from cedarbox.guard.question import Impossible, Question
from cedarbox.guard.repositories import host_of
from cedarbox.hostpaths import real_path
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import canonical_path, canonical_user
from cedarbox.policy.entities import Base
from cedarbox.telemetry.redaction import redact

__all__ = [
    "KNOWN_FIELDS",
    "account_questions",
    "check_fields",
    "entry_questions",
    "environment_questions",
    "questions",
]

_COMMON: Final = frozenset({"description", "ephemeral", "group", "is_dir", "permissions", "type"})

KNOWN_FIELDS: Final[Mapping[type[BaseModel], frozenset[str]]] = {
    Manifest: frozenset({"version", "root", "entries", "environment", "users", "groups", "extra_path_grants"})
    | {"remote_mount_command_allowlist"},
    Environment: frozenset({"value"}),
    EnvEntry: frozenset({"description", "ephemeral", "value"}),
    File: _COMMON | {"content"},
    Dir: _COMMON | {"children"},
    LocalFile: _COMMON | {"src"},
    LocalDir: _COMMON | {"src"},
    GitRepo: _COMMON | {"host", "repo", "ref", "subpath"},
    SandboxPathGrant: frozenset({"description", "host_path", "path", "read_only"}),
    User: frozenset({"name"}),
    Group: frozenset({"name", "users"}),
    Permissions: frozenset({"owner", "group", "other", "directory"}),
}
"""Every field of a manifest that is decided here, or that gives nothing to a sandbox (descriptions)."""

_RESERVED: Final = ("BOXLITE_", "CEDARBOX_EXEC")


def check_fields(known: Mapping[type[BaseModel], frozenset[str]] = KNOWN_FIELDS) -> None:
    """Refuse an SDK whose manifest has a field that nothing here decides, or lacks one.

    Raises:
        CedarboxError: Names what is new or gone.
    """
    problems = [
        f"{what}: {model.__name__}.{name}"
        for model, fields in known.items()
        for what, names in (("new", set(model.model_fields) - fields), ("gone", fields - set(model.model_fields)))
        for name in sorted(names)
    ]
    if problems:
        hint = "install openai-agents >=0.24,<0.25, the version this release was checked against"
        raise CedarboxError(f"the SDK's manifest has changed ({', '.join(problems)})", hint=hint)


def questions(manifest: Manifest, *, isolated: bool) -> Iterator[Question | Impossible]:
    """Yield what has to be asked before a manifest may be applied.

    Args:
        manifest: The manifest.
        isolated: The sandbox has a file system of its own. Without one, a path grant is a grant on the host.
    """
    if type(manifest) is not Manifest:
        yield Impossible("create", "the manifest", f"a {type(manifest).__name__} is not the SDK's own Manifest")
        return
    yield from environment_questions(manifest.environment.value)
    yield from account_questions(manifest, isolated=isolated)
    yield from _grant_questions(manifest.extra_path_grants, isolated=isolated)
    try:
        entries = list(manifest.iter_entries())
    except InvalidManifestPathError as error:
        yield Impossible("manifest write", str(manifest.root), f"an entry leaves the workspace: {error.message}")
        return
    for relative, entry in entries:
        yield from _entry_questions(f"{manifest.root}/{relative.as_posix()}", entry)
    if manifest.remote_mount_command_allowlist != DEFAULT_REMOTE_MOUNT_COMMAND_ALLOWLIST:
        reason = "remote_mount_command_allowlist is for mounts, which cannot be held to a policy; leave it as it is"
        yield Impossible("mountWrite", "the manifest", reason)


def entry_questions(entries: Iterable[tuple[PurePath, BaseEntry]]) -> Iterator[Question | Impossible]:
    """Yield what has to be asked before entries may be applied to a sandbox that runs.

    Args:
        entries: Where each goes, as an absolute path in the sandbox, and the entry.
    """
    for path, entry in entries:
        yield from _entry_questions(path.as_posix(), entry)
        if type(entry) is Dir:
            yield from entry_questions((path / name, child) for name, child in entry.children.items())


def account_questions(manifest: Manifest, *, isolated: bool) -> Iterator[Question | Impossible]:
    """Yield what has to be asked before the users and groups of a manifest may be made; ``isolated`` as above."""
    if (manifest.users or manifest.groups) and not isolated:
        reason = "this backend has no users of its own: they would be made on this host"
        yield Impossible("createAccount", "the manifest", reason)
        return
    for group in manifest.groups:
        yield _account(group.name, group=True)
    users = [*manifest.users, *(user for group in manifest.groups for user in group.users)]
    for name in dict.fromkeys(user.name for user in users):
        yield _account(name, group=False)


def environment_questions(names: Iterable[str]) -> Iterator[Question | Impossible]:
    """Yield what has to be asked before every process gets these environment variables.

    Names that sandboxes keep for themselves are refused on every backend: ``BOXLITE_EXECUTOR`` would run a command
    outside of the container, with all privileges of the virtual machine (measured on BoxLite 0.10.8).
    """
    for name in names:
        if name.upper().startswith(_RESERVED):
            reason = f"names that start with {' or '.join(_RESERVED)} are reserved for the sandbox"
            yield Impossible("setEnvironment", f'EnvironmentVariable::"{name}"', reason)
        else:
            yield Question("environment set", partial(actions.set_environment, name=name), name)


def _entry_questions(path: str, entry: BaseEntry) -> Iterator[Question | Impossible]:
    # A subclass may do anything when it is applied, so the types must be the SDK's own.
    if type(entry) not in {File, Dir, LocalFile, LocalDir, GitRepo}:
        why = "its provider is reached from inside" if isinstance(entry, Mount) else "what it does is not known"
        yield Impossible(
            "mountWrite", path, f"manifest entries of type {entry.type!r} cannot be held to a policy: {why}"
        )
        return
    if isinstance(entry, Dir) and any("\\" in str(name) for name in entry.children):
        yield Impossible("manifest write", path, "the name of an entry in it has a backslash")
        return
    modes = (entry.permissions.owner, entry.permissions.group, entry.permissions.other)
    if any(not 0 <= int(bits) <= 0o7 for bits in modes):
        yield Impossible("manifest write", path, "its permissions have more than read, write and execute")
        return
    if entry.group is not None:
        try:
            canonical_user(entry.group.name)
        except CanonicalizationError as error:
            yield Impossible("manifest write", path, f"its group: {error.message}")
            return
    if isinstance(entry, LocalFile) or (isinstance(entry, LocalDir) and entry.src is not None):
        yield _host_source(str(entry.src), path, writable=False)
    elif isinstance(entry, GitRepo):
        yield _clone(entry)
    yield _guest_path(path, "make_directory" if entry.is_dir else "write")


def _grant_questions(grants: Iterable[SandboxPathGrant], *, isolated: bool) -> Iterator[Question | Impossible]:
    seen: dict[str, SandboxPathGrant] = {}
    for grant in grants:
        first = seen.setdefault(grant.path, grant)
        if (first.read_only, first.host_path) != (grant.read_only, grant.host_path):
            # Of two grants of one path the SDK takes the first, of nested ones the innermost.
            reason = "two path grants of one path differ, so what is granted cannot be told; give one"
            yield Impossible("mountWrite", grant.path, reason)
            return
        if grant.host_path is not None or not isolated:
            yield _host_source(grant.host_path or grant.path, grant.path, writable=not grant.read_only)
        else:
            yield _guest_path(grant.path, "read" if grant.read_only else "write")


def _account(name: str, *, group: bool) -> Question:
    return Question("account create", lambda base: actions.create_account(base, name=name, group=group), name)


def _host_source(source: str, guest_path: str, *, writable: bool) -> Question:
    def name(base: Base) -> Action:
        # The SDK takes relative sources from the working directory of this process.
        given = str(Path.cwd() / source)
        plain, real = canonical_path(given), _real(given)
        if real != _real(plain):
            # The SDK hands the source to the kernel as it is, and there a link comes before the dots behind it.
            raise CanonicalizationError(f"the source {source!r} has '..' behind a link, so it leads to two places")
        return actions.mount(base, host_path=real, guest_path=guest_path, writable=writable, is_symlink=real != plain)

    return Question("manifest mount", name, source)


def _real(path: str) -> str:
    try:
        return canonical_path(real_path(path))
    except OSError as error:
        raise CanonicalizationError(f"where {path!r} leads cannot be told ({error.strerror})") from None


def _guest_path(path: str, operation: str) -> Question:
    return Question("manifest write", lambda base: actions.touch_file(base, path=path, operation=operation), path)


def _clone(entry: GitRepo) -> Question:
    def name(base: Base) -> Action:
        return actions.connect(base, host_of(entry), port=443, proto="tls")

    return Question("manifest clone", name, redact(f"https://{entry.host}/{entry.repo}"))


check_fields()
