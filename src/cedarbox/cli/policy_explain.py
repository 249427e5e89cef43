"""``cedarbox policy explain``: what a bundle permits, in the words of those who have to open a firewall for it."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cedarbox.errors import ConfigurationError
from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.endpoint_rows import Row, rows
from cedarbox.policy.endpoints import Endpoints
from cedarbox.policy.endpoints import endpoints as endpoints_of

__all__ = ["explain"]

_COLUMNS = ("host", "but", "ports", "protocols", "classes", "networks", "policy", "reason", "exact", "note")
_SHOWN = ("host", "port", "protocol", "address", "policy")
_NOT_EXACT = 1
_MAX_NETWORKS = 2  # In a cell; more are told below the table. As the next one, chosen for 80 columns.
_MAX_PORTS = 3
_LEAST_POLICY = 20  # Characters that the last column has at least.


def explain(
    bundle: Annotated[Path, typer.Argument(readable=False, help="Directory of the policy bundle.")],
    *,
    endpoints: Annotated[
        bool, typer.Option("--endpoints", help="What an agent may connect to. This version explains nothing else.")
    ] = False,
    principal: Annotated[
        str | None,
        typer.Option(help="The agent; needed where entities.json declares more than one.", show_default=False),
    ] = None,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="How to print it.")] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print what the policies of a bundle let an agent connect to: the list that a firewall team needs.

    A row that is not exact says more than the policies permit; its note tells what else must hold, or which policy
    forbids some of it. Nothing that the policies permit is missing.

    Protocols: tls names the host in its hello; http is plain HTTP/1; tcp is anything else over TCP. TLS that hides its
    name is told apart. The table has reasons and notes below it; csv and json have a column for each.

    Exit code 0: printed, and the rows say exactly what the policies do. 1: printed, and some row is not exact. 2: the
    bundle or an option cannot be used.

    Example: cedarbox policy explain policies/internal-mirror --endpoints --format csv
    """
    if not endpoints:
        raise ConfigurationError("nothing to explain", hint="give --endpoints, all that this version can explain")
    loaded = PolicyBundle.load(bundle)
    agent = _agent(loaded, principal)
    found = endpoints_of(PolicyEngine(loaded), agent)
    made = rows(found)
    match "json" if as_json else form:
        case "json":
            typer.echo(_json(loaded, agent, found, made))
        case "csv":
            typer.echo(_csv(made), nl=False)
        case _:
            _table(made)
            if made and found.exact:
                typer.echo(f"\nEvery row is exact: {agent} may connect to this and to nothing else.")
    for line in () if as_json or form == "json" else _remarks(found, agent, made):
        typer.echo(line, err=True)
    raise typer.Exit(0 if found.exact else _NOT_EXACT)


def _agent(bundle: PolicyBundle, wanted: str | None) -> str:
    declared = sorted(bundle.principals)
    hint = f"declared are: {', '.join(declared) or 'none'}"
    if wanted is None and len(declared) == 1:
        return declared[0]
    if wanted is None:
        raise ConfigurationError(f"{bundle.path / 'entities.json'}: which agent? Give --principal", hint=hint)
    if wanted not in declared:
        raise ConfigurationError(f"{bundle.path / 'entities.json'}: no agent {wanted[:80]!r}", hint=hint)
    return wanted


def _note(row: Row) -> str:
    said = [f"only when {text}" for text in row.when]
    if row.forbidden_by:
        said.append(f"some of it is forbidden by {', '.join(row.forbidden_by)}")
    if not said and not row.exact:
        said.append("a policy may fail to evaluate, and then everything is denied")
    return "; ".join(said)


def _cells(row: Row) -> list[str]:
    return [
        row.host,
        " ".join(row.but),
        row.ports,
        " ".join(row.protocols),
        " ".join(row.classes),
        " ".join(row.networks),
        row.policy,
        row.reason,
        "yes" if row.exact else "no",
        _note(row),
    ]


def _csv(made: tuple[Row, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    # A spreadsheet runs what begins like a formula.
    writer.writerows([f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in _cells(row)] for row in made)
    return text.getvalue()


def _json(bundle: PolicyBundle, agent: str, found: Endpoints, made: tuple[Row, ...]) -> str:
    told = {
        "bundle": bundle.digest,
        "principal": agent,
        "exact": found.exact,
        "endpoints": [{**asdict(row), "note": _note(row)} for row in made],
        "unknown": [asdict(item) for item in found.unknown],
        "notes": list(found.notes),
    }
    return orjson.dumps(told).decode()


def _table(made: tuple[Row, ...]) -> None:
    if not made:
        return
    notes: dict[str, int] = {}
    told = []
    for row in made:
        marks = [str(notes.setdefault(text, len(notes) + 1)) for text in _footnotes(row)]
        told.append((*_short(row), f"{row.policy} [{','.join(marks)}]" if marks else row.policy))
    table = Table(*_SHOWN, box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    table.columns[-1].overflow = "fold"
    for cells in told:
        table.add_row(*cells)
    console = Console(highlight=False, markup=False)
    # Better wider than the screen than a name of which a part is missing.
    fixed = sum(max(map(len, column)) + 2 for column in list(zip(_SHOWN, *told, strict=True))[:-1])
    wide = max(console.width, fixed + _LEAST_POLICY)
    Console(highlight=False, markup=False, width=wide).print(table)
    under = Table.grid(padding=(0, 1))
    under.add_column(no_wrap=True)
    under.add_column(overflow="fold")
    for text, number in notes.items():
        under.add_row(f"[{number}]", text)
    if notes:
        console.print()
        console.print(under)


def _short(row: Row) -> tuple[str, str, str, str]:
    """Return host, port, protocol and address in as few words as say it."""
    address = " ".join(name for name in row.classes if name != "any")
    if row.networks != ("any",):
        many = len(row.networks) > _MAX_NETWORKS
        listed = f"{len(row.networks)} networks" if many else " ".join(row.networks)
        address = f"{address} {listed}".strip()
    host = f"{row.host} (not all)" if row.but else row.host
    ports = row.ports if row.ports.count(",") < _MAX_PORTS else f"{row.ports.count(',') + 1} ranges"
    protocols = "any" if row.protocols == ("any",) else ", ".join(row.protocols)
    return host, ports, protocols, address or "any"


def _footnotes(row: Row) -> list[str]:
    said = [row.reason] if row.reason else []
    if row.but:
        said.append(f"not among them: {', '.join(row.but)}")
    if row.ports.count(",") >= _MAX_PORTS:
        said.append(f"the ports {row.ports}")
    if len(row.networks) > _MAX_NETWORKS:
        said.append(f"the networks {' '.join(row.networks)}")
    return said if row.exact else [*said, f"not exact: {_note(row)}"]


def _remarks(found: Endpoints, agent: str, made: tuple[Row, ...]) -> list[str]:
    said = [] if made else [f"{agent} may connect to nothing"]
    said += [f"note: {item.effect} {item.policy}: {item.text}" for item in found.unknown]
    said += [f"note: {note}" for note in found.notes]
    inexact = sum(not row.exact for row in made)
    if inexact:
        said.append(f"note: {inexact} of {len(made)} rows say more than the policies permit, see their notes")
    return said
