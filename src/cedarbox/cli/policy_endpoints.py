"""``cedarbox policy endpoints``: what a bundle permits, in the words of those who have to open a firewall for it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cedarbox.cli.policy_bundle import Bundle, Principal
from cedarbox.cli.policy_reporting import AsJson
from cedarbox.errors import ConfigurationError
from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.endpoint_rows import Row, agents_alike, rows
from cedarbox.policy.endpoints import Endpoints
from cedarbox.policy.endpoints import endpoints as endpoints_of
from cedarbox.text import printable

__all__ = ["Form", "declared_agent", "endpoints", "print_endpoints"]

_COLUMNS = ("host", "but", "ports", "protocols", "classes", "networks", "policy", "reason", "exact", "note")
_SHOWN = ("host", "port", "protocol", "address", "policy")
_NOT_EXACT = 1
_MAX_NETWORKS = 2  # In a cell; more are told below the table. As the next one, chosen for 80 columns.
_MAX_PORTS = 3
_LEAST_POLICY = 20  # Characters that the last column has at least.


Form = Literal["table", "csv", "json"]


def endpoints(
    bundle: Bundle,
    *,
    principal: Principal = None,
    all_agents: Annotated[
        bool, typer.Option("--all", help="Every declared agent; those with the same list are told together.")
    ] = False,
    form: Annotated[Form, typer.Option("--format", help="How to print it.")] = "table",
    as_json: AsJson = False,
) -> None:
    """Print what the policies of a bundle let an agent connect to: the list that a firewall team needs.

    A row that is not exact says more than the policies permit; its note tells what else must hold, or which policy
    forbids some of it. Nothing that the policies permit is missing. Notes tell where they permit DNS queries, published
    ports, or a network that no list restricts. Not told: what the host itself connects to, such as servers of models.

    Protocols: tls names the host in its hello; http is plain HTTP/1; tcp is anything else over TCP. TLS that hides its
    name is told apart. The table has reasons and notes below it; csv and json have a column for each. With --all, csv
    has a column for the agents, and json a list of what it has for one.

    Exit code 0: printed, and the rows say exactly what the policies do. 1: printed, and some row is not exact, or
    a network that no list restricts is permitted. 2: the bundle or an option cannot be used.

    Example: cedarbox policy endpoints policies/internal-mirror --all --format csv
    """
    if all_agents and principal is not None:
        raise ConfigurationError("--all and --principal exclude each other", hint="give one of them")
    print_endpoints(bundle, principal, "json" if as_json else form, all_agents=all_agents)


def print_endpoints(bundle: Path, principal: str | None, form: Form, *, all_agents: bool = False) -> NoReturn:
    """Print the list of endpoints and exit.

    Args:
        bundle: Directory of the bundle.
        principal: The agent; None for the only one.
        form: How.
        all_agents: Every declared agent.

    Raises:
        typer.Exit: Always, else; 1 when a row is not exact.
    """
    loaded = PolicyBundle.load(bundle)
    engine = PolicyEngine(loaded)
    if not all_agents:
        agent = declared_agent(loaded, principal)
        found = endpoints_of(engine, agent)
        made = rows(found)
        if form == "json":
            typer.echo(_json(loaded, agent, found, made))
        else:
            _print(form, [agent], found, made)
        raise typer.Exit(0 if found.exact else _NOT_EXACT)
    groups = agents_alike(engine)
    match form:
        case "json":
            told = ",".join(_json(loaded, agent, found, made) for agents, found, made in groups for agent in agents)
            typer.echo(f"[{told}]")
        case "csv":
            typer.echo(_csv([(row, " ".join(agents)) for agents, _, made in groups for row in made]), nl=False)
            for agents, found, made in groups:
                _print_remarks(agents, found, made)
        case _:
            for number, (agents, found, made) in enumerate(groups):
                typer.echo(f"{chr(10) * (number > 0)}{printable(', '.join(agents))}:")
                _print(form, agents, found, made)
            if not groups:
                typer.echo("no agent is declared, so nothing is permitted")
    raise typer.Exit(0 if all(found.exact for _, found, _ in groups) else _NOT_EXACT)


def _print(form: Form, agents: Sequence[str], found: Endpoints, made: tuple[Row, ...]) -> None:
    if form == "csv":
        typer.echo(_csv([(row, None) for row in made]), nl=False)
    else:
        _table(made)
        if made and found.exact:
            typer.echo(f"\nEvery row is exact: {printable(', '.join(agents))} may connect to this and to nothing else.")
    _print_remarks(agents, found, made)


def _print_remarks(agents: Sequence[str], found: Endpoints, made: tuple[Row, ...]) -> None:
    for line in _remarks(found, printable(", ".join(agents)), made):
        typer.echo(printable(line), err=True)


def declared_agent(bundle: PolicyBundle, wanted: str | None) -> str:
    """Return the agent that is meant.

    Args:
        bundle: Declares it.
        wanted: Its id; None for the only one.

    Raises:
        ConfigurationError: There is none, or more than one.
    """
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


def _csv(made: Sequence[tuple[Row, str | None]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    agents = any(agent is not None for _, agent in made)
    writer.writerow((("agents",) if agents else ()) + _COLUMNS)
    lines = [[*([agent] if agent is not None else []), *_cells(row)] for row, agent in made]
    # A spreadsheet runs what begins like a formula.
    writer.writerows([f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in line] for line in lines)
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
        named = f"{row.policy} [{','.join(marks)}]" if marks else row.policy
        told.append(tuple(printable(cell) for cell in (*_short(row), named)))
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
        under.add_row(f"[{number}]", printable(text))
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
    nothing = f"{agent} may connect to nothing{'' if found.exact else ' that could be listed'}"
    said = [] if made else [nothing]
    said += [f"note: {item.effect} {item.policy}: {item.text}" for item in found.unknown]
    said += [f"note: {note}" for note in found.notes]
    inexact = sum(not row.exact for row in made)
    if inexact:
        said.append(f"note: {inexact} of {len(made)} rows say more than the policies permit, see their notes")
    return said
