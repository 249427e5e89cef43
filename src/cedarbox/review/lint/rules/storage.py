"""Rules about directories of the host: S020 to S023. Each finding is a mount that Cedar allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import ancestors
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Hit, LintRule
from cedarbox.review.lint.walk import samples
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["RULES", "SENSITIVE", "asks_for_no_link", "mounts", "named_paths", "why_sensitive"]

SENSITIVE: Final = (
    *("/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/dev", "/proc", "/sys", "/root", "/run"),
    *("/var/run", "/var/lib", "/var/log", "/var/spool/cron"),
)
"""Trees of the host that no sandbox may write: programs, settings, devices, state of services, the control sockets."""
_SOCKETS: Final = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman")
_HOMES: Final = ("/root", "/home/user", "/Users/user")
_SECRET_NAMES: Final = (".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".config/gcloud", ".netrc")
_START_FILES: Final = (".bashrc", ".profile", ".config/autostart", ".local/bin")
_SECRET_FILES: Final = ("/etc/shadow", "/etc/ssh", "/etc/kubernetes", "/var/lib/kubelet", "/proc", "/dev")
_ROOTS: Final = ("/", "/home", "/Users", "/var")
_MAX_GUEST_PATHS: Final = 4


def why_sensitive(path: str, more: tuple[str, ...] = ()) -> str:
    """Return why a directory of the host must not be written by a sandbox; empty when nothing speaks against it.

    Args:
        path: Its canonical path.
        more: Further paths that must not be.
    """
    above = {path, *ancestors(path)}
    for tree in (*SENSITIVE, *more):
        if tree in above:
            return f"{tree} is not for a sandbox to change"
        if path in ancestors(tree):
            return f"{tree} is in it"
    home = next((home for home in ("/home/", "/Users/") if path.startswith(home)), "")
    inside = path.removeprefix(home).partition("/")[2] if home else ""
    for name in (*_SECRET_NAMES, *_START_FILES):
        if home and (inside == name or inside.startswith(f"{name}/")):
            return f"it is {name} of a user"
        if home and not inside:
            return "it is the whole home of a user"
    names = {**dict.fromkeys(_SECRET_NAMES, "it holds credentials"), ".git": "its hooks run on the host afterwards"}
    named = next((why for part in path.split("/") if (why := names.get(part))), "")
    return named or ("homes of users are in it" if path in {"/home", "/Users"} else "")


def _written(context: Context) -> Iterator[Hit]:
    homes = [f"{home}/{name}" for home in _HOMES for name in (*_SECRET_NAMES, *_START_FILES)]
    known = [*_ROOTS, *SENSITIVE, *_SOCKETS, *_HOMES, *homes, *context.options.sensitive_paths]
    paths = dict.fromkeys(
        [*known, *(f"{path}/cedarbox-lint" for path in SENSITIVE), *named_paths(context, "mountWrite")]
    )
    more = context.options.sensitive_paths
    waiting = {policy.id for policy in context.permits("mountWrite")}
    for path in paths if waiting else ():
        if not (why := why_sensitive(path, more)):
            continue
        for tried in context.tried(mounts(context, "mountWrite", [path], writable=True)):
            for policy_id in waiting.intersection(tried.decision.policies):
                waiting.discard(policy_id)
                message = f"lets a sandbox write {path} of the host, and {why}: {tried.told}"
                yield Hit(message, context.subject.by_id[policy_id], details=tried.details)


def named_paths(context: Context, *wanted: str) -> list[str]:
    """Return the paths of the host that permits name, and one below each."""
    found: list[str] = []
    for policy in context.permits(*wanted):
        texts = [literal.id for literal in context.literals(policy) if literal.kind == "HostPath"]
        texts += [text for text in samples(policy.est) if text.startswith("/")]
        for text in texts:
            found += [text, f"{text.rstrip('/')}/cedarbox-lint"]
    return list(dict.fromkeys(found))


def mounts(
    context: Context, action: str, paths: Iterable[str], *, writable: bool, is_symlink: bool = False
) -> Iterator[Action]:
    """Yield mounts of paths of the host, to the places in the guest that permits ask for."""
    guests = ["/mnt"]
    for policy in context.permits(action):
        guests += [text for text in samples(policy.est) if text.startswith("/")]
    build = partial(actions.mount, writable=writable, is_symlink=is_symlink)
    for path in paths:
        for base in context.bases(action):
            for guest in list(dict.fromkeys(guests))[:_MAX_GUEST_PATHS]:
                yield from context.made(build, base, host_path=path, guest_path=guest)


def _links(context: Context) -> Iterator[Hit]:
    for name in ("mountRead", "mountWrite"):
        if all(asks_for_no_link(policy) for policy in context.permits(name)):
            continue
        asked = mounts(
            context, name, named_paths(context, name) or ["/srv/data"], writable=name == "mountWrite", is_symlink=True
        )
        for hit in context.first_hits(asked, name, "permits a mount whose path goes through a symbolic link"):
            if context.first("S021", hit):
                yield hit


def asks_for_no_link(policy: ReviewedPolicy) -> bool:
    """Whether it plainly asks for a path without links, so that there is nothing to try."""
    link = {".": {"left": {"Var": "context"}, "attr": "isSymlink"}}
    for condition in policy.est.get("conditions", ()):
        wanted = {"!": {"arg": link}} if condition["kind"] == "when" else link
        if condition["body"] == wanted:
            return True
    return False


def _hooks(context: Context) -> Iterator[Hit]:
    paths = [
        f"{path.removesuffix('/cedarbox-lint')}{below}"
        for path in named_paths(context, "mountWrite")
        for below in ("/.git/hooks", "/cedarbox-lint/.git/hooks")
    ]
    asked = mounts(context, "mountWrite", dict.fromkeys([*paths, "/srv/checkout/.git/hooks"]), writable=True)
    yield from context.first_hits(
        asked, "mountWrite", "lets a sandbox write git hooks and settings that run on the host afterwards"
    )


def _credentials(context: Context) -> Iterator[Hit]:
    homes = [f"{home}/{name}" for home in _HOMES for name in _SECRET_NAMES]
    known = dict.fromkeys([*_SECRET_FILES, *_SOCKETS, *homes, "/", *_HOMES])
    found = [path for path in named_paths(context, "mountRead") if why_sensitive(path) and "/." in path]
    message = "lets a sandbox read credentials or control sockets of the host"
    yield from context.first_hits(mounts(context, "mountRead", [*known, *found], writable=False), "mountRead", message)


RULES: Final = (
    LintRule(
        "S020",
        "writes-sensitive-path",
        "error",
        "A permit to mount a sensitive directory of the host so that the sandbox can write it",
        "name the one directory that is for the sandbox",
        "prover",
        _written,
    ),
    LintRule(
        "S021",
        "mount-through-link",
        "warning",
        "A permit of mounts whose path may go through a symbolic link",
        "add unless { context.isSymlink }",
        "prover",
        _links,
    ),
    LintRule(
        "S022",
        "writes-git-hooks",
        "warning",
        "A permit to mount a checkout so that the sandbox can write its git hooks",
        "mount the checkout read-only, or a copy of it",
        "prover",
        _hooks,
    ),
    LintRule(
        "S023",
        "reads-credentials",
        "error",
        "A permit to mount credentials or control sockets of the host",
        "name the one directory with the data",
        "prover",
        _credentials,
    ),
)
"""The rules."""
