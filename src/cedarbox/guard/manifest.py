"""A manifest, entry by entry, as requests to the policies.

Manifests are applied inside the backend, where no wrapper sees it. So they are decided before: what comes from the
host, what is fetched, what is written, and which paths outside the workspace are opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agents.sandbox.entries import Dir, File, GitRepo, LocalDir, LocalFile
from agents.sandbox.manifest import Manifest

from cedarbox.errors import CanonicalizationError
from cedarbox.guard.gate import Impossible, Question
from cedarbox.hostpaths import real_path
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import canonical_host, canonical_path
from cedarbox.policy.entities import Base

__all__ = ["questions"]


def questions(manifest: Manifest, *, isolated: bool) -> Iterator[Question | Impossible]:
    """Yield what has to be asked before a manifest may be applied.

    Args:
        manifest: The manifest.
        isolated: The sandbox has a file system of its own. Without one, a path grant is a grant on the host.
    """
    for grant in manifest.extra_path_grants:
        if grant.host_path is not None or not isolated:
            yield _host_source(grant.host_path or grant.path, grant.path, writable=not grant.read_only)
        else:
            yield _guest_path(grant.path, "read" if grant.read_only else "write")
    for relative, entry in manifest.iter_entries():
        path = f"{manifest.root}/{relative.as_posix()}"
        if type(entry) in {LocalFile, LocalDir}:
            yield _host_source(str(getattr(entry, "src", None) or "."), path, writable=False)
        elif isinstance(entry, GitRepo):
            yield _clone(entry.host, entry.repo)
        elif type(entry) not in {File, Dir}:
            reason = f"manifest entries of type {entry.type!r} cannot be held to a policy"
            yield Impossible("mountWrite", path, reason)
            continue
        yield _guest_path(path, "make_directory" if entry.is_dir else "write")


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


def _clone(host: str, repository: str) -> Question:
    def name(base: Base) -> Action:
        target = canonical_host(host)
        if not host.isascii():
            # git has its own idea of internationalised names, and gets the host as it is.
            raise CanonicalizationError(
                f"the host {host!r} is not ASCII, and git reads it its own way", hint=f"write {target}"
            )
        return actions.connect(base, target, port=443, proto="tls")

    return Question("manifest clone", name, f"https://{host}/{repository}")
