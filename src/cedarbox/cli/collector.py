"""``cedarbox collector``: the embedded OTLP receiver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cedarbox.audit.files import check_ledger
from cedarbox.audit.keys import load_public_key
from cedarbox.collector.grpc import DEFAULT_GRPC_PORT
from cedarbox.collector.health import health_of, show_health
from cedarbox.collector.page import PageOptions
from cedarbox.collector.retention import Retention, parse_age, parse_size
from cedarbox.collector.server import DEFAULT_PORT, EmbeddedCollector
from cedarbox.collector.server import serve as run_collector
from cedarbox.collector.show import show_logs, show_runs, show_trace
from cedarbox.collector.store import FILE_NAME, Store
from cedarbox.errors import ConfigurationError

__all__ = ["app"]

app = typer.Typer(help="Receive spans, records and metrics by OTLP, and show them.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option(readable=False, help="Where what was received is kept.")]
_DEFAULT = Path(".cedarbox/collector")


@app.command()
def serve(
    *,
    directory: Directory = _DEFAULT,
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port for HTTP; 0 for a free one.")] = DEFAULT_PORT,
    grpc_port: Annotated[int, typer.Option(help="TCP port for gRPC; 0 for a free one.")] = DEFAULT_GRPC_PORT,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Take gRPC on a TCP port.")] = True,
    http_socket: Annotated[Path | None, typer.Option(help="Unix socket that takes HTTP too.")] = None,
    grpc_socket: Annotated[Path | None, typer.Option(help="Unix socket that takes gRPC too.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="Drop what arrived longer ago: a number and s, m, h, d or w, such as 30d.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Drop the oldest beyond this size, records of ledgers last; such as 2GiB.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Show what is kept to browsers of this host.")] = True,
    ledger: Annotated[
        Path | None, typer.Option(readable=False, help="Ledger that can be verified from the page.")
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(readable=False, help="Its public key, from a place you trust; else the one beside it."),
    ] = None,
    policies: Annotated[
        list[Path] | None,
        typer.Option(readable=False, metavar="<path>", help="Policy bundle whose texts the page shows; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it listens as one JSON object.")] = False,
) -> None:
    """Receive OTLP over HTTP and gRPC until Ctrl-C or SIGTERM. What is acknowledged is on disk.

    Without --keep and --max-size nothing is dropped; a full disk then makes senders wait.

    The page is at the HTTP address. It only reads, but for a button that verifies the ledger where --ledger is given.

    Exit code 0: stopped. 2: a port, a policy bundle, a socket or the directory cannot be used, or a limit is malformed.

    Example: cedarbox collector serve --directory .cedarbox/collector --keep 30d --max-size 2GiB
    """
    if public_key is not None and ledger is None:
        raise ConfigurationError("--public-key is the key of a ledger", hint="give --ledger too")
    if ledger is not None:
        check_ledger(ledger, yet=False)
    if public_key is not None:
        load_public_key(public_key)
    retention = Retention(
        parse_age(keep) if keep is not None else None, parse_size(max_size) if max_size is not None else None
    )
    collector = EmbeddedCollector(
        directory,
        host=host,
        port=port,
        grpc_port=grpc_port if grpc else None,
        http_socket=http_socket,
        grpc_socket=grpc_socket,
        retention=retention,
        page=PageOptions(ledger=ledger, public_key=public_key, policies=tuple(policies or ())) if page else None,
    )

    def announce(running: EmbeddedCollector) -> None:
        sockets = {"http_socket": http_socket, "grpc_socket": grpc_socket}
        told = {"http": running.url, "grpc": running.grpc_endpoint}
        told |= {name: str(path) if path is not None else None for name, path in sockets.items()}
        if as_json:
            typer.echo(orjson.dumps(told | {"directory": str(directory)}).decode())
            return
        typer.echo(f"listening on {running.url}")
        for name in ("grpc", "http_socket", "grpc_socket"):
            if told[name] is not None:
                typer.echo(f"listening on {told[name]} ({name.replace('_', ', ')})")

    run_collector(collector, announce=announce)


@app.command()
def status(
    *,
    directory: Directory = _DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print how much was received, what was dropped, and which ledger records are missing or in conflict.

    A collector may run meanwhile. A record that is missing is lost, or has not arrived yet.

    Exit code 0: no stream of a ledger lacks a record. 1: one does, or an id arrived with two contents.
    2: nothing is kept there, or it cannot be read.

    Example: cedarbox collector status --directory .cedarbox/collector --json
    """
    with _opened(directory) as store:
        health = health_of(store.queries)
    show_health(health, Console(highlight=False), json=as_json)
    raise typer.Exit(1 if health.alarms else 0)


@app.command()
def show(
    trace: Annotated[str | None, typer.Argument(help="Trace to show as a tree; all runs when not given.")] = None,
    *,
    directory: Directory = _DEFAULT,
    logs: Annotated[bool, typer.Option("--logs", help="Show the records instead of the spans.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the runs that were received, the spans of one as a tree, or the records.

    Exit code 0: shown. 2: nothing is kept there, or no such trace.

    Example: cedarbox collector show --directory .cedarbox/collector
    """
    console = Console(highlight=False)
    with _opened(directory) as store:
        if logs:
            rows = store.logs(trace_id=trace)
            if trace is not None and not rows:
                hint = "cedarbox collector show lists the runs"
                raise ConfigurationError(f"no record of trace {trace} is in {store.path}", hint=hint)
            show_logs(rows, console, json=as_json)
        elif trace is None:
            show_runs(store, console, json=as_json)
        else:
            show_trace(store, trace, console, json=as_json)


def _opened(directory: Path) -> Store:
    if not (directory / FILE_NAME).exists():
        hint = "name the directory that a collector was given"
        raise ConfigurationError(f"{directory} holds nothing that a collector received", hint=hint)
    return Store(directory)
