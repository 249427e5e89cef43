"""The filters that showing, following and exporting records have in common."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console

from cedarbox.audit.query import Query, moment
from cedarbox.errors import ConfigurationError, LedgerError
from cedarbox.settings import load_settings

__all__ = ["Unreadable", "check_counts", "filtered", "ledger_directory"]

_Text = str | None


def _filters(
    *,
    event: Annotated[
        list[str] | None, typer.Option("--event", help="Event, or a pattern such as 'snapshot.*'; repeatable.")
    ] = None,
    decision: Annotated[_Text, typer.Option(help="allow or deny.")] = None,
    session: Annotated[_Text, typer.Option(help="Id of a sandbox session, or its beginning.")] = None,
    run: Annotated[_Text, typer.Option(help="Id of a run, or its beginning.")] = None,
    principal: Annotated[_Text, typer.Option(help="Id of an agent.")] = None,
    action: Annotated[_Text, typer.Option(help="Cedar action, such as connect.")] = None,
    resource: Annotated[_Text, typer.Option(help="Pattern of the resource, such as '*.corp.example'.")] = None,
    tool: Annotated[_Text, typer.Option(help="Name of a tool.")] = None,
    policy: Annotated[_Text, typer.Option(help="Id of a policy that determined the decision.")] = None,
    since: Annotated[_Text, typer.Option(help="Not before: 2026-11-23T09:30:00Z, 2026-11-23, or 2h (ago).")] = None,
    until: Annotated[_Text, typer.Option(help="Before: as --since.")] = None,
    stream: Annotated[_Text, typer.Option(help="Id of a stream, or its part behind the dash; or index.")] = None,
    trace: Annotated[_Text, typer.Option(help="Trace id.")] = None,
) -> Query:
    if decision not in {None, "allow", "deny"}:
        raise ConfigurationError(f"--decision {decision!r} is neither allow nor deny", hint="give one of them")
    now = time.time_ns()
    return Query(
        events=tuple(event or ()),
        decision=decision,
        session=session,
        run=run,
        principal=principal,
        action=action,
        resource=resource,
        tool=tool,
        policy=policy,
        since=None if since is None else moment(since, now_ns=now),
        until=None if until is None else moment(until, now_ns=now),
        stream=stream,
        trace=trace,
    )


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the filters; it gets the :class:`Query` that they make as ``query``."""
    own = inspect.signature(command, eval_str=True).parameters
    filters = inspect.signature(_filters, eval_str=True).parameters

    @wraps(command)
    def with_filters(**given: Any) -> None:
        query = _filters(**{name: given.pop(name) for name in filters})
        command(query=query, **given)

    mine = [parameter for name, parameter in own.items() if name != "query"]
    both = sorted([*mine, *filters.values()], key=lambda parameter: parameter.kind)
    with_filters.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]  # what inspect looks for
    hints = get_type_hints(_filters, include_extras=True) | get_type_hints(command, include_extras=True)
    with_filters.__annotations__ = {name: hint for name, hint in hints.items() if name not in {"query", "return"}}
    return with_filters


def ledger_directory(given: Path | None) -> Path:
    """Return the directory of the ledger: the one that was given, else that of the settings."""
    return given if given is not None else load_settings().audit.directory


def check_counts(limit: int | None, last: int | None) -> None:
    """Refuse --limit together with --last.

    Raises:
        ConfigurationError: Both are given.
    """
    if limit is not None and last is not None:
        raise ConfigurationError("--limit and --last exclude each other", hint="give the first ones or the last ones")


class Unreadable:
    """Tells of what cannot be read, one line each on stderr, and remembers that there was something."""

    def __init__(self) -> None:
        self.count = 0
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, error: LedgerError) -> None:
        """Tell of one."""
        self.count += 1
        self._console.print(f"cedarbox: {error}")

    def exit(self) -> None:
        """End the command with exit code 2 when there was something."""
        if self.count:
            raise typer.Exit(2)
