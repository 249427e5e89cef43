"""Tries ordinary requests that permits ask for, so that the prover is not asked what one decision shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.rules.intelligence import tools
from cedarbox.review.lint.rules.lifecycle import created
from cedarbox.review.lint.rules.storage import mounts, named_paths
from cedarbox.review.lint.walk import samples

__all__ = ["exercise"]

_MOST = 4000  # Decisions, at about 0.2 ms each.


def exercise(context: Context) -> None:
    """Put requests to the engine, for the permits that no decision has shown at work yet."""
    if not any(policy.id not in context.seen.allowing for policy in context.policies if policy.effect == "permit"):
        return
    for name, asked in _requests(context):
        idle = {policy.id for policy in context.permits(name)} - context.seen.allowing
        for action in islice(asked, _MOST) if idle else ():
            for _ in context.tried((action,)):
                idle -= context.seen.allowing
            if not idle:
                break


def _requests(context: Context) -> Iterator[tuple[str, Iterable[Action]]]:
    for name in ("mountRead", "mountWrite"):
        yield name, mounts(context, name, named_paths(context, name), writable=name == "mountWrite")
    yield (
        "invokeTool",
        (action for kind in ("function", "mcp", "custom") for action in tools(context, kind, guarded=True)),
    )
    for name in ("create", "resume"):
        yield name, (made for kind in ("microvm", "container") for made in created(context, name, isolation=kind))
    for name, operation in (("readFile", "read"), ("writeFile", "write")):
        yield name, _files(context, name, operation)
    yield "exec", _commands(context)


def _files(context: Context, name: str, operation: str) -> Iterator[Action]:
    for base in context.bases(name):
        for policy in context.permits(name):
            texts = [literal.id for literal in context.literals(policy) if literal.kind == "GuestPath"]
            for path in texts + [text for text in samples(policy.est) if text.startswith("/")]:
                for below in ("", "/cedarbox-lint"):
                    whole = f"{path.rstrip('/')}{below}" or "/"
                    yield from context.made(actions.touch_file, base, path=whole, operation=operation)


def _commands(context: Context) -> Iterator[Action]:
    for base in context.bases("exec"):
        for policy in context.permits("exec"):
            for literal in context.literals(policy):
                if literal.kind == "Executable":
                    yield from context.made(
                        actions.execute, base, command=[literal.id], shell=False, user=None, summary=""
                    )
        yield from context.made(actions.execute, base, command=["true"], shell=True, user=None, summary="")  # noqa: S604
