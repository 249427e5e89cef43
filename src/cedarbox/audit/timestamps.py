"""Time stamps (RFC 3161) of checkpoints: getting them, and checking them offline.

What a stamp protects: the server signs that it saw the digest of a checkpoint at a certain time. All records up to
that checkpoint then existed, in that form: they cannot be changed later, nor written now and dated back, by anyone who
does not have the key of the server. It says nothing about what was recorded after the checkpoint.

``<stream>.timestamps`` in the directory of the anchors holds one JSON object a line: ``origin`` and ``size`` of the
checkpoint, its text in ``note``, ``sha256`` of that text, ``time`` of the stamp, and ``token``, the answer of the
server in base64, which ``openssl ts -verify`` reads too.

Answers are read as strict DER. A server that adds the certificates of its authorities in an order of its own, as
OpenSSL's does with ``certs``, is refused: let it send its own certificate only, and put the others into ``ca_file``.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from cedarbox.audit.anchoring import Anchored, AnchorError
from cedarbox.audit.checkpoint import origin_of
from cedarbox.audit.files import INDEX, checkpoints_path, is_stream_id
from cedarbox.audit.notes import read_note, whole_notes
from cedarbox.audit.record import format_time
from cedarbox.audit.target import read_pem, tls_context
from cedarbox.errors import ConfigurationError, LedgerError
from cedarbox.files import open_regular

__all__ = ["SUFFIX", "Problem", "Stamp", "Stamps", "TimestampAnchor", "check"]

SUFFIX: Final = ".timestamps"

_ANSWER_BYTES: Final = 64 * 1024
_KEYS: Final = frozenset({"note", "origin", "sha256", "size", "time", "token"})


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time stamp that holds.

    Args:
        stream: Id of the stream, or ``index``.
        size: Size of the checkpoint.
        time: When the server saw it, as records write times.
        note: The text of the checkpoint. Its own signature was not checked.
    """

    stream: str
    size: int
    time: str
    note: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a time stamp.

    Args:
        kind: ``unreadable``; ``foreign``: the file is of no stream; ``stamp``: it does not hold; ``forked``: the ledger
            has another checkpoint of that size; ``truncated``: the ledger has no checkpoint of that size.
        stream: Id of the stream, or ``index``.
        line: Line in the file of stamps, from 1; None for the file.
        message: What is wrong, in one line.
    """

    kind: str
    stream: str
    line: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Stamps:
    """What the time stamps of a ledger say.

    Args:
        stamps: Those that hold, in the order of the files.
        problems: What is wrong; empty when all is good.
    """

    stamps: tuple[Stamp, ...]
    problems: tuple[Problem, ...]


class TimestampAnchor:
    """Asks a time-stamp server.

    Args:
        url: Its address.
        ca_file: PEM file of the authorities that may vouch for its signature.
        tls_ca_file: PEM file of those that may vouch for an https address; None for ``ca_file``.
        every_s: Seconds between two stamps of a stream.
        timeout_s: Longest time for one request, in seconds.

    Raises:
        ConfigurationError: A file of authorities cannot be used.
    """

    kind = "rfc3161"
    suffix = SUFFIX

    def __init__(
        self, url: str, *, ca_file: Path, tls_ca_file: Path | None = None, every_s: float, timeout_s: float
    ) -> None:
        self.every_s = every_s
        self._url, self._timeout = url, timeout_s
        self._authorities = _authorities(ca_file)
        self._tls = tls_context(tls_ca_file or ca_file) if url.startswith("https://") else False

    def take(self, note: bytes) -> Anchored:
        """Have a note stamped, and check the stamp.

        Raises:
            AnchorError: The server cannot be reached, or its answer does not hold.
        """
        request = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).build()
        token = self._ask(request.as_bytes())
        try:
            answer = _verified(token, note, VerifierBuilder.from_request(request), self._authorities)
        except LedgerError as error:
            raise AnchorError(f"{self._url}: {error.message}") from error
        head, time = read_note(note), _time(answer)
        line = {
            "note": note.decode(),
            "origin": head.origin,
            "sha256": sha256(note).hexdigest(),
            "size": head.size,
            "time": time,
            "token": b64encode(token).decode(),
        }
        content = orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n"
        return Anchored(content, {"time": time, "token_sha256": sha256(token).hexdigest()})

    def _ask(self, body: bytes) -> bytes:
        headers = {"content-type": "application/timestamp-query", "accept-encoding": "identity"}
        try:
            with (
                httpx.Client(trust_env=False, timeout=self._timeout, verify=self._tls) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                content = b""
                for chunk in answer.iter_raw():
                    content += chunk
                    if len(content) > _ANSWER_BYTES:
                        raise AnchorError(f"{self._url}: the answer is too long")
        except httpx.HTTPError as error:
            raise AnchorError(f"{self._url}: {type(error).__name__}: {error}") from error
        if answer.status_code != httpx.codes.OK:
            raise AnchorError(f"{self._url}: it answered {answer.status_code}")
        return content


def check(ledger: Path, anchors: Path, *, ca_file: Path, ledger_id: str | None = None) -> Stamps:
    """Check the time stamps of a ledger, without a network.

    That a checkpoint is signed and fits the records is for `cedarbox.audit.verify_ledger` to say; `Stamp.note` can be
    given to it as an anchor.

    Args:
        ledger: The ledger directory.
        anchors: The directory with the files of stamps; `cedarbox.audit.anchoring.anchors_of` gives the usual one.
        ca_file: PEM file of the authorities that may vouch for the server.
        ledger_id: Id of the ledger that the checkpoints must be of; None for any.

    Raises:
        ConfigurationError: The file of authorities cannot be used.
        LedgerError: The directory cannot be read.
    """
    authorities = _authorities(ca_file)
    try:
        paths = sorted(path for path in anchors.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        raise LedgerError(f"{anchors}: the time stamps cannot be read: {error.strerror}") from error
    stamps: list[Stamp] = []
    problems: list[Problem] = []
    for path in paths:
        if path.stem != INDEX and not is_stream_id(path.stem):
            problems.append(Problem("foreign", ascii(path.stem).strip("'"), None, "the time stamps are of no stream"))
            continue
        try:
            lines = _read(path).split(b"\n")
            notes = _notes(checkpoints_path(ledger, path.stem))
        except OSError as error:
            problems.append(Problem("unreadable", path.stem, None, f"it cannot be read: {error.strerror}"))
            continue
        for number, line in enumerate(lines, 1):
            if not line and number == len(lines):
                continue
            try:
                stamp = _stamp(path.stem, line, authorities, ledger_id)
            except LedgerError as error:
                problems.append(Problem("stamp", path.stem, number, error.message))
                continue
            stamps.append(stamp)
            problems.extend(_compare(stamp, number, notes))
    return Stamps(tuple(stamps), tuple(problems))


def _compare(stamp: Stamp, line: int, notes: dict[int, set[bytes]]) -> list[Problem]:
    root = read_note(stamp.note).root
    if stamp.size not in notes:
        return [Problem("truncated", stamp.stream, line, f"the ledger has no checkpoint of {stamp.size} records")]
    if root not in notes[stamp.size]:
        return [Problem("forked", stamp.stream, line, f"the ledger has another checkpoint of {stamp.size} records")]
    return []


def _stamp(stream: str, line: bytes, authorities: Sequence[x509.Certificate], ledger: str | None) -> Stamp:
    try:
        fields: Any = orjson.loads(line)
        if not isinstance(fields, dict) or fields.keys() != _KEYS:
            raise LedgerError("it does not have the keys of a time stamp")
        note = str(fields["note"]).encode()
        token = b64decode(str(fields["token"]), validate=True)
    except (ValueError, binascii.Error) as error:
        raise LedgerError("it is not JSON with a token in base64") from error
    head = read_note(note)
    answer = _verified(token, note, VerifierBuilder(), authorities)
    expected = (head.origin, head.size, sha256(note).hexdigest(), _time(answer))
    if (fields["origin"], fields["size"], fields["sha256"], fields["time"]) != expected:
        raise LedgerError("what it says of itself is not what was stamped")
    if head.origin.rsplit("/", 1)[-1] != stream:
        raise LedgerError("the checkpoint is of another stream")
    if ledger is not None and head.origin != origin_of(ledger, stream):
        raise LedgerError("the checkpoint is of another ledger")
    return Stamp(stream, head.size, expected[3], note)


def _verified(
    token: bytes, note: bytes, builder: VerifierBuilder, authorities: Sequence[x509.Certificate]
) -> TimeStampResponse:
    try:
        answer = decode_timestamp_response(token)
        for certificate in authorities:
            if certificate.issuer == certificate.subject:
                builder = builder.add_root_certificate(certificate)
            else:
                builder = builder.add_intermediate_certificate(certificate)
        builder.build().verify_message(answer, note)
    except (ValueError, VerificationError) as error:
        raise LedgerError(f"the time stamp does not hold: {error}") from error
    return answer


def _time(answer: TimeStampResponse) -> str:
    when = answer.tst_info.gen_time
    return format_time(int(when.timestamp()) * 1_000_000_000 + when.microsecond * 1000)


def _authorities(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        found = tuple(dict.fromkeys(x509.load_pem_x509_certificates(read_pem(path, "ca_file"))))
    except ValueError as error:
        raise ConfigurationError(f"{path}: no certificates in PEM: {error}", hint="check ca_file") from None
    if not any(certificate.issuer == certificate.subject for certificate in found):
        raise ConfigurationError(f"{path}: no root certificate in it", hint="add the certificate of the authority")
    return found


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def _notes(path: Path) -> dict[int, set[bytes]]:
    """Give the roots by size; nothing when there is no such file: all of its checkpoints are missing then."""
    found: dict[int, set[bytes]] = {}
    try:
        data = _read(path)
    except FileNotFoundError:
        return found
    for note in whole_notes(data)[0]:
        try:
            head = read_note(note)
        except LedgerError:
            continue  # the verifier names it
        found.setdefault(head.size, set()).add(head.root)
    return found
