"""``cedarbox collector``: the embedded OTLP receiver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Receive spans and records by OTLP, and show them.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option(help="Where spans and records are kept.")]
