"""``cedarbox collector``: the embedded OTLP receiver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cedarbox.collector.server import DEFAULT_PORT
from cedarbox.collector.server import serve as run_collector
from cedarbox.collector.show import show_logs, show_runs, show_trace
from cedarbox.collector.store import FILE_NAME, Store
from cedarbox.errors import ConfigurationError

__all__ = ["app"]

app = typer.Typer(help="Receive spans and records by OTLP, and show them.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option(readable=False, help="Where spans and records are kept.")]
_DEFAULT = Path(".cedarbox/collector")


@app.command()
def serve(
    *,
    directory: Directory = _DEFAULT,
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 for a free one.")] = DEFAULT_PORT,
) -> None:
    """Receive OTLP over HTTP until Ctrl-C or SIGTERM. What is acknowledged is on disk.

    Exit code 0: stopped. 2: the port or the directory cannot be used.

    Example: cedarbox collector serve --directory .cedarbox/collector --port 4318
    """
    run_collector(directory, host=host, port=port, announce=lambda url: typer.echo(f"listening on {url}"))


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
    if not (directory / FILE_NAME).exists():
        hint = "name the directory that a collector was given"
        raise ConfigurationError(f"{directory} holds nothing that a collector received", hint=hint)
    with Store(directory) as store:
        if logs:
            show_logs(store.logs(trace_id=trace), console, json=as_json)
        elif trace is None:
            show_runs(store, console, json=as_json)
        else:
            show_trace(store, trace, console, json=as_json)
