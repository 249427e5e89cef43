"""Rules about sandboxes and snapshots: S040 to S043. Each finding of the meaning is a request that Cedar allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.entities import Base
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Hit, LintRule
from cedarbox.review.lint.options import ISOLATIONS
from cedarbox.review.lint.walk import samples

__all__ = ["RULES", "created"]

_DIGEST: Final = f"sha256:{'0' * 64}"
# Small enough for any limit a policy may set.
_SMALL: Final[dict[str, Any]] = {"vcpus": 1, "memory_mib": 128, "disk_gb": 1, "lifetime_s": 60}
_LARGE: Final[dict[str, Any]] = {"vcpus": 4096, "memory_mib": 2**30, "disk_gb": 2**20, "lifetime_s": 60}


def _images(context: Context, action: str) -> list[tuple[str, str]]:
    """Return pairs of a reference and a repository that the permits may ask for."""
    found = [("registry.corp.example/image", "registry.corp.example/image")]
    for policy in context.permits(action):
        for literal in context.literals(policy):
            if literal.kind == "ImageRepo":
                found.append((literal.id, literal.id))
            elif literal.kind == "Image":
                found.append((literal.id, "local"))
        found += [(text, text) for text in samples(policy.est)]
    return list(dict.fromkeys(found))[:8]


def created(context: Context, action: str, **changed: Any) -> Iterator[Action]:
    """Yield requests for sandboxes: small, isolated, pinned and signed, but for what is changed."""
    facts = {"isolation": "microvm", "egress": "none", "digest": _DIGEST, "signed": True, **_SMALL, **changed}
    for base in context.bases(action):
        for reference, repository in _images(context, action):
            for made in context.made(actions.create, base, image=reference, repository=repository, **facts):
                yield made if action == "create" else actions.resume(made)


def _weak(context: Context) -> Iterator[Hit]:
    floor = ISOLATIONS.index(context.options.isolation_floor)
    isolations = ISOLATIONS[floor:]
    for action in ("create", "resume"):
        if not context.permits(action):
            continue
        asked = [made for kind in isolations for made in created(context, action, digest=None, isolation=kind)]
        message = "permits a sandbox from an image that no digest pins, so it can change after the review"
        yield from _keyed(context, asked, action, message, key="digest", hint="add when { resource has digest }")
        for isolation in ISOLATIONS[:floor]:
            asked = list(created(context, action, isolation=isolation))
            message = f"permits a sandbox with the isolation {isolation}, weaker than {context.options.isolation_floor}"
            hint = 'add when { context.isolation == Sandbox::Isolation::"microvm" }'
            yield from _keyed(context, asked, action, message, key="isolation", hint=hint)
        asked = [
            made for kind in isolations for made in created(context, action, egress="unrestricted", isolation=kind)
        ]
        message = "permits a sandbox whose backend lets everything out"
        hint = 'add when { context.egress == Sandbox::Egress::"none" }'
        yield from _keyed(context, asked, action, message, key="egress", hint=hint)
        if context.options.require_signed_images:
            asked = [made for kind in isolations for made in created(context, action, signed=False, isolation=kind)]
            message = "permits a sandbox from an image whose signature nobody verified"
            yield from _keyed(context, asked, action, message, key="signed", hint="add when { resource.signed }")


def _keyed(context: Context, asked: list[Action], action: str, message: str, *, key: str, hint: str) -> Iterator[Hit]:
    for hit in context.first_hits(asked, action, message, hint=hint):
        # One finding for a permit of both actions.
        if context.first(f"S040 {key}", hit):
            yield Hit(hit.message, hit.policy, hint=hint, key=key, details=hit.details)


def _adopted(context: Context) -> Iterator[Hit]:
    for policy in context.permits("adopt"):
        yield Hit("permits to restore snapshots that were made under other policies", policy)


def _unlimited(context: Context) -> Iterator[Hit]:
    for action in ("create", "resume"):
        if not context.permits(action):
            continue
        for facts, what in ((_LARGE, "of any size"), (dict.fromkeys(_LARGE), "of a size that nobody tells")):
            asked = [made for kind in ISOLATIONS[::-1] for made in created(context, action, isolation=kind, **facts)]
            for hit in context.first_hits(asked, action, f"permits a sandbox {what}"):
                if context.first("S042", hit):
                    yield hit


def _in_clear(context: Context) -> Iterator[Hit]:
    for store in ("local", "remote", "unknown"):
        for action in ("snapshot", "restore") if store == "unknown" else ("snapshot",):
            asked = [
                made
                for base in context.bases(action)
                for kind in ("tar", "native")
                for made in _saved(context, action, base, kind, store)
            ]
            word = {
                "local": "in clear on this host",
                "remote": "on another machine",
                "unknown": "in a place that is not known",
            }
            for hit in context.first_hits(asked, action, f"permits a workspace that is saved {word[store]}"):
                if context.first("S043", hit):
                    yield hit
    for policy in context.permits("export"):
        if policy.est["resource"]["op"] == "All" and not policy.est.get("conditions"):
            yield Hit("permits to write any snapshot to any file of the host", policy, key="export")


def _saved(context: Context, action: str, base: Base, kind: Any, store: str) -> Iterator[Action]:
    if action == "snapshot":
        yield from context.made(actions.snapshot, base, session="cedarbox-lint", kind=kind, store=store)
    else:
        yield from context.made(actions.restore, base, snapshot_id="cedarbox-lint", kind=kind, store=store)


RULES: Final = (
    LintRule(
        "S040",
        "weak-sandbox",
        "error",
        "A permit of a sandbox from an image without a digest, or isolated less than the floor",
        "ask for a digest, and for the isolation",
        "prover",
        _weak,
    ),
    LintRule(
        "S041",
        "adopts-snapshots",
        "warning",
        "A permit to restore snapshots that were made under other policies",
        "permit it for one snapshot, for as long as it takes to move",
        "text",
        _adopted,
    ),
    LintRule(
        "S042",
        "sandbox-without-limits",
        "warning",
        "A permit of a sandbox of any size",
        "add when { context has vcpus && context.vcpus <= 4 } and the same for memoryMib",
        "meaning",
        _unlimited,
    ),
    LintRule(
        "S043",
        "workspace-in-clear",
        "warning",
        "A permit to keep a workspace in clear, or on another machine",
        'add when { [Sandbox::SnapshotStore::"backend", Sandbox::SnapshotStore::"sealed"].contains(context.store) }',
        "meaning",
        _in_clear,
    ),
)
"""The rules."""
