"""``cedarbox audit rotate``: a new signing key for the index of a ledger, now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from cedarbox.audit import Entry
from cedarbox.audit.index import Index
from cedarbox.errors import ConfigurationError

__all__ = ["rotate"]

_MAX_REASON: Final = 1000  # every opening of the ledger reads it again


def rotate(
    directory: Annotated[Path, typer.Argument(readable=False, help="Directory of the ledger.")] = Path(
        ".cedarbox/ledger"
    ),
    *,
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    signing_key: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="The key that signs next; by default <name>.key beside the directory.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hand the signing of the index over to a new key, because the old one may have been seen.

    Every opening and closing of a stream does the same. A stolen key cannot change what is there, and cannot sign any
    more once it has been handed over. The ledger may be in use meanwhile; auditors keep the first public key.

    Exit code 0: handed over, and on record. 2: no ledger there, or the key does not fit it.

    Example: cedarbox audit rotate .cedarbox/ledger --reason "a backup of the key was lost"
    """
    if not reason.strip():
        raise ConfigurationError("the reason is empty", hint="say in a few words why the key is replaced")
    if len(reason) > _MAX_REASON:
        raise ConfigurationError(f"the reason has {len(reason)} characters", hint=f"say it in {_MAX_REASON} at most")
    key = None if signing_key is None else signing_key.absolute()
    with Index(directory.absolute(), key, make=False).locked() as index:
        (record,) = index.append([Entry(event="key.rotated", attrs={"reason": reason.strip()})])
        ledger = index.ledger
    told = {"ledger": ledger, "seq": record.seq, "next_key": record.entry.attrs["next_key"]}
    if as_json:
        typer.echo(orjson.dumps(told).decode())
    else:
        typer.echo(f"ledger {ledger}: index record {record.seq} hands over to the key {told['next_key']}")
