"""Verify a ledger: is every record still there, unchanged, in its place, and under a signed checkpoint?

What can be found with the ledger alone: records edited, deleted, reordered or taken from another stream; histories
rewritten without the key; streams cut below a checkpoint or below the head that a later stream names; streams or
checkpoint files deleted; checkpoints by another key. What cannot: the deletion of the newest stream with its
checkpoints, a cut of the newest stream together with its later checkpoints, records after the last checkpoint of a
stream that was never closed, and a rewrite by somebody who has the signing key. For those keep a copy of the
checkpoints, or of the shipped records, elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.checkpoint import Checkpoint, iter_notes, open_note, origin_of
from cedarbox.audit.files import CHECKPOINTS, STREAM, is_held, is_stream_id, stream_files
from cedarbox.audit.keys import find_public_key, load_public_key
from cedarbox.audit.record import MAX_LINE_BYTES, parse_line
from cedarbox.audit.walk import Claim, Finding, Walk
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["Finding", "Head", "Report", "verify_ledger"]


@dataclass(frozen=True, slots=True)
class Head:
    """The last good record of a stream.

    Args:
        stream: Id of the stream.
        seq: Sequence number of the record.
        hash: Hash of the record.
        signed: Number of records under the last good checkpoint.
        closed: Whether the stream ends with ``ledger.closed``.
    """

    stream: str
    seq: int
    hash: str
    signed: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification came to.

    Args:
        ok: True when there are no findings.
        streams: Number of stream files.
        records: Number of good records.
        checkpoints: Number of good checkpoints.
        findings: What is wrong, by stream.
        notes: What is worth knowing and not wrong, such as a stream that is open or whose writer died.
        heads: The last good record of each stream.
        public_key: The file of the public key.
        key_source: ``given`` by the caller, or found ``beside`` the ledger, where whoever changed the ledger could
            have changed it too.
    """

    ok: bool
    streams: int
    records: int
    checkpoints: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    heads: tuple[Head, ...]
    public_key: str
    key_source: Literal["given", "beside"]


def verify_ledger(directory: Path | str, *, public_key: Path | str | None = None) -> Report:
    """Verify every stream of a ledger. It may be in use meanwhile.

    Args:
        directory: The ledger.
        public_key: The public key that you trust (PEM). Default: ``ledger.pub`` beside the directory, else inside.

    Returns:
        The report; whatever the files hold leads to a finding, not to an error.

    Raises:
        LedgerError: There is no ledger, or no usable public key.
    """
    place = Path(directory)
    paths = stream_files(place)
    key_path = find_public_key(place) if public_key is None else Path(public_key)
    key = load_public_key(key_path)
    findings = _strangers(place, {path.stem for path in paths})
    if not paths and not findings:
        raise LedgerError(f"{place}: there is no stream in this directory", hint="give the directory of a ledger")
    # Claims come before the streams, and the checkpoints of a stream before its records: a writer only adds.
    claims = _claims(paths)
    notes: list[Finding] = []
    heads: list[Head] = []
    records = checkpoints = 0
    for stream, claimed in sorted(claims.items()):
        if _gone(place, stream, {path.stem for path in paths}):
            by = claimed[0].by
            findings.append(Finding("deleted", stream, None, None, f"the stream that {by} names is gone"))
    for path in paths:
        walk = _walked(path, place, key, claims.get(path.stem, ()))
        findings += walk.findings
        notes += walk.notes
        records += walk.size
        checkpoints += walk.good_checkpoints
        if walk.size:
            heads.append(Head(path.stem, walk.size - 1, walk.prev, walk.signed, walk.closed))
    return Report(
        not findings,
        len(paths),
        records,
        checkpoints,
        tuple(findings),
        tuple(notes),
        tuple(heads),
        str(key_path),
        "beside" if public_key is None else "given",
    )


def _walked(path: Path, place: Path, key: Ed25519PublicKey, claims: Sequence[Claim]) -> Walk:
    walk = _walk_once(path, place, key, claims)
    if not _unsealed(walk):
        return walk
    # Its writer may be between ledger.closed and the checkpoint over it. When nobody holds the stream, both are there.
    held = is_held(path)
    walk = _walk_once(path, place, key, claims)
    if held:
        walk.notes += [replace(finding, kind="open") for finding in _unsealed(walk)]
        walk.findings[:] = [finding for finding in walk.findings if finding.kind != "unsealed"]
    return walk


def _walk_once(path: Path, place: Path, key: Ed25519PublicKey, claims: Sequence[Claim]) -> Walk:
    walk = Walk(path, place, claims)
    _read_checkpoints(path, key, walk)
    walk.run()
    return walk


def _unsealed(walk: Walk) -> list[Finding]:
    return [finding for finding in walk.findings if finding.kind == "unsealed"]


def _strangers(directory: Path, streams: set[str]) -> list[Finding]:
    """Find files that a ledger does not have: unknown names of streams, checkpoints without their stream."""
    findings = []
    for path in sorted(directory.iterdir()):
        if path.suffix == STREAM and not is_stream_id(path.stem):
            findings.append(Finding("foreign", ascii(path.stem), None, None, "the file is not a stream of a ledger"))
        elif path.suffix == CHECKPOINTS and _gone(directory, path.stem, streams) and path.lstat().st_size:
            # An empty one is what remains when the disk was full before the stream could be made.
            message = "the checkpoints have no stream: its file is gone"
            findings.append(Finding("deleted", ascii(path.stem).strip("'"), None, None, message))
    return findings


def _gone(directory: Path, stream: str, listed: set[str]) -> bool:
    """Whether a stream is missing. One that was begun after the directory was listed is not."""
    return stream not in listed and not os.path.lexists(directory / f"{stream}{STREAM}")


def _claims(paths: list[Path]) -> dict[str, list[Claim]]:
    """Collect what the first record of each stream says about the others."""
    claims: dict[str, list[Claim]] = {}
    for path in paths:
        try:
            with open_regular(path) as file:
                fields, _ = parse_line(file.readline(MAX_LINE_BYTES + 1))
        except (OSError, LedgerError):
            continue  # the walk over this stream will say so
        heads: Any = fields["attrs"].get("heads", ())
        for head in heads if isinstance(heads, list) else ():
            if not isinstance(head, Mapping):
                continue
            stream, seq, digest = head.get("stream"), head.get("seq"), head.get("hash")
            if isinstance(stream, str) and type(seq) is int and isinstance(digest, str) and is_stream_id(stream):
                claims.setdefault(stream, []).append(Claim(path.stem, seq, digest))
    return claims


def _read_checkpoints(path: Path, key: Ed25519PublicKey, walk: Walk) -> None:
    """Hand the good checkpoints to the walk, and say what is wrong with the others."""
    try:
        with open_regular(path.with_suffix(CHECKPOINTS)) as file:
            data = file.read()
    except OSError:
        walk.has_checkpoints = False
        return
    notes = list(iter_notes(data))
    walk.torn_checkpoint = bool(data) and not data.endswith(b"\n\n")
    bad: str | None = None
    good: list[Checkpoint] = []
    for index, note in enumerate(notes):
        try:
            good.append(open_note(note, origin_of(path.stem), key))
        except LedgerError as error:
            torn = walk.torn_checkpoint and index == len(notes) - 1
            if bad is None and not torn:
                bad = f"checkpoint {index + 1}: {error.message}"
    walk.expect(good, bad)
