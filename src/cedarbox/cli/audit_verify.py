"""``cedarbox audit verify``, ``prove`` and ``verifier``: check a ledger, and prove a record to others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cedarbox.audit.files import stream_files
from cedarbox.audit.prove import prove_record
from cedarbox.audit.verify import Report, verify_ledger
from cedarbox.errors import ConfigurationError
from cedarbox.files import write_new

__all__ = ["prove", "verifier", "verify"]

Directory = Annotated[Path, typer.Argument(readable=False, help="Directory of the ledger.")]
PublicKey = Annotated[
    Path | None,
    typer.Option(readable=False, help="First public key of the ledger, or a later one, from outside the ledger."),
]


def verify(
    directory: Directory = Path(".cedarbox/ledger"),
    *,
    public_key: PublicKey = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(readable=False, help="Notes that were kept elsewhere; repeatable."),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Directory with the time stamps and cosigned notes of the ledger (NAME.anchors), from a place that"
            " whoever has the ledger cannot write to. None by default: the one beside the ledger is in the same hands.",
        ),
    ] = None,
    timestamp_ca: Annotated[
        Path | None,
        typer.Option(readable=False, help="Authorities (PEM) of the time-stamp server; checks the time stamps."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the streams.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every record, the chains, and the signatures from the first key on. The ledger may be in use.

    Notes that were kept elsewhere show that nothing was cut off or written again. With --anchors, whatever the ledger
    says that an anchor gave must be in that directory: copy the ledger first, then the directory.

    Exit code 0: nothing found. 1: something was changed, and the first such place is named. 2: no ledger there.

    Example: cedarbox audit verify .cedarbox/ledger --public-key auditor/ledger.pub --anchors auditor/ledger.anchors
    --timestamp-ca auditor/stamps.pem
    """
    if timestamp_ca is not None and anchors is None:
        raise ConfigurationError("--timestamp-ca is given without --anchors", hint="give --anchors DIRECTORY")
    check = partial(
        verify_ledger,
        directory,
        public_key=public_key,
        anchors=anchor or [],
        kept=anchors,
        timestamp_ca=timestamp_ca,
        jobs=jobs,
    )
    report = _verified(directory, check)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if as_json:
        console.print(orjson.dumps(dataclasses.asdict(report)).decode())
    else:
        _show(report, console)
    raise typer.Exit(0 if report.ok else 1)


def prove(
    seq: Annotated[int, typer.Argument(min=0, help="Sequence number of the record.")],
    directory: Directory = Path(".cedarbox/ledger"),
    *,
    stream: Annotated[
        str | None, typer.Option(help="Its stream, or the part behind the dash; needed with several.")
    ] = None,
    public_key: PublicKey = None,
    output: Annotated[Path | None, typer.Option(help="Write the proof to this new file, not to the terminal.")] = None,
) -> None:
    """Print the proof that a record is in the ledger, as JSON, for `cedarbox audit verifier`.

    Exit code 0: printed. 2: there is no such record, nothing signed covers it yet, or the ledger does not verify.

    Example: cedarbox audit prove 17 --stream 20261123T000931123456Z-5f0c2a9e --output proof.json
    """
    proof = orjson.dumps(prove_record(directory, seq, stream=stream, public_key=public_key), option=orjson.OPT_INDENT_2)
    _put(proof + b"\n", output)


def verifier(
    output: Annotated[Path | None, typer.Option(help="Write it to this new file, not to the terminal.")] = None,
) -> None:
    """Print a verifier of ledgers and proofs: one file that needs Python 3.8 or later and nothing else.

    Exit code 0: printed. 2: the file is there already or cannot be written.

    Example: cedarbox audit verifier > cedarbox_verify.py
    """
    _put((files("cedarbox.audit") / "standalone.py").read_bytes(), output)


def _put(data: bytes, output: Path | None) -> None:
    if output is None:
        typer.echo(data, nl=False)
        return
    try:
        made = write_new(output, data, 0o644)
    except OSError as error:
        raise ConfigurationError(f"{output}: it cannot be written: {error.strerror}", hint="check the path") from None
    if not made:
        raise ConfigurationError(f"{output}: it is there already", hint="choose another path")
    typer.echo(f"{output}: written")


def _verified(directory: Path, check: Callable[..., Report]) -> Report:
    console = Console(stderr=True)
    if not console.is_terminal or not directory.is_dir():
        return check()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    total = sum(path.lstat().st_size for path in stream_files(directory))
    with Progress(TextColumn("verifying"), *columns, console=console, transient=True) as progress:
        task = progress.add_task("verify", total=total)
        return check(progress=lambda count: progress.advance(task, count))


def _show(report: Report, console: Console) -> None:
    for finding in report.findings:
        place = "" if finding.seq is None else f", record {finding.seq}"
        line = "" if finding.line is None else f", line {finding.line}"
        console.print(f"{finding.kind}: stream {finding.stream}{place}{line}: {finding.message}")
    for note in report.notes:
        console.print(f"note: stream {note.stream}: {note.message}")
    if report.key_source == "beside":
        console.print("note: the key was found beside the ledger; give --public-key from a place you trust")
    for tree in report.stamped:
        text = f"stamped: stream {tree.stream}: records up to {tree.oldest_size - 1} existed at {tree.oldest_time}"
        if tree.stamps > 1:
            text += f", records up to {tree.newest_size - 1} at {tree.newest_time}"
        console.print(f"{text}, says the time-stamp server")
    counts = (
        f"{report.records} records, {report.streams} streams, {report.checkpoints} signed checkpoints, "
        f"{report.index_checkpoints} keys handed over, {report.anchors} anchors"
        f" ({report.cosigned} cosigned notes, {report.stamps} time stamps)"
    )
    console.print(f"{'the ledger verifies' if report.ok else 'THE LEDGER DOES NOT VERIFY'}: {counts}")
