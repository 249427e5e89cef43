"""The sections about the record: the ledger, what vouches for it from outside, and where it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from cedarbox.audit.pace import Pace
from cedarbox.audit.target import Target
from cedarbox.errors import ConfigurationError
from cedarbox.settings.section import Section

if TYPE_CHECKING:
    from cedarbox.audit.anchoring import Anchor

__all__ = ["AuditSettings", "OtlpSettings", "TimestampSettings", "WitnessSettings"]


class TimestampSettings(Section):
    """A time-stamp server (RFC 3161) that vouches for when a checkpoint existed: ``[audit.timestamp]``.

    Attributes:
        url: Its address. What is sent is a digest; the answer is signed, so http will do.
        ca_file: PEM file of the certificate authorities that may vouch for its signature.
        tls_ca_file: PEM file of those that may vouch for an https address; None for ``ca_file``.
        every_s: Seconds between two stamps. There is one at opening and one at closing besides.
        timeout_s: Longest time for one request, in seconds.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^/\s@]+(/\S*)?$")]
    ca_file: Path
    tls_ca_file: Path | None = None
    every_s: Annotated[float, Field(ge=1, le=604_800)] = 3600.0
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0


class WitnessSettings(Section):
    """A program that is shown each new checkpoint and may keep it or sign it: ``[audit.witness]``.

    Attributes:
        command: The program by its absolute path, and its arguments. No shell reads them.
        every_s: Seconds between two calls. There is one at opening and one at closing besides.
        timeout_s: Seconds after which it is ended.
    """

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    every_s: Annotated[float, Field(ge=1, le=604_800)] = 3600.0
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0

    @model_validator(mode="after")
    def _program_is_named(self) -> WitnessSettings:
        if not self.command[0].startswith("/") or any("\0" in part for part in self.command):
            raise ValueError("command must begin with the absolute path of a program")
        return self


class AuditSettings(Section):
    """Where the ledger is, and who outside of this host vouches for it.

    Attributes:
        directory: Made with mode 0700 when it is missing.
        signing_key: Ed25519 key that signs next, made on first use with mode 0600; None for ``<name>.key`` beside the
            directory of that name.
        segment_mib: Size in MiB at which a file of records is sealed and the next one begun.
        approvals: Directory of the approvals that calls wait for; None for ``approvals`` beside the directory.
        timestamp: A time-stamp server; None for none.
        witness: A program that witnesses; None for none.
    """

    directory: Path = Path(".cedarbox/ledger")
    signing_key: Path | None = None
    segment_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    approvals: Path | None = None
    timestamp: TimestampSettings | None = None
    witness: WitnessSettings | None = None

    def anchors(self) -> tuple[Anchor, ...]:
        """Return what vouches for the checkpoints from outside; the files of authorities are read by this.

        Raises:
            ConfigurationError: A file of authorities cannot be used.
        """
        # Late, because few commands need them.
        from cedarbox.audit.timestamps import TimestampAnchor
        from cedarbox.audit.witness import WitnessAnchor

        stamp, witness = self.timestamp, self.witness
        found: list[Anchor] = []
        if stamp is not None:
            found.append(
                TimestampAnchor(
                    stamp.url,
                    ca_file=stamp.ca_file,
                    tls_ca_file=stamp.tls_ca_file,
                    every_s=stamp.every_s,
                    timeout_s=stamp.timeout_s,
                )
            )
        if witness is not None:
            found.append(WitnessAnchor(witness.command, every_s=witness.every_s, timeout_s=witness.timeout_s))
        return tuple(found)

    @property
    def segment_bytes(self) -> int:
        """The size of a segment in bytes."""
        return self.segment_mib * 1024 * 1024


class OtlpSettings(Section):
    """Where spans, metrics and records are sent, and on what terms. Nothing of it is taken from a proxy setting.

    Attributes:
        endpoint: ``http://host:port`` or ``https://host:port`` of an OTLP collector, or ``unix:/path/to.sock``; None
            keeps all on disk only. Plain http is for loopback addresses.
        protocol: ``http/protobuf`` (port 4318 by custom) or ``grpc`` (4317).
        spans: Directory of the spans that wait to be sent; None for ``spans`` beside the ledger.
        headers: Sent with every request, such as an authorization. A value ``env:NAME`` or ``file:/absolute/path``
            (mode 0600) says where the value is, and is read for each request; so no token stands here.
        ca_file: PEM file of the certificate authorities that may vouch for the collector. https needs it: no other
            authority is trusted.
        client_certificate: PEM file of the certificate to show to the collector (mutual TLS).
        client_key: Its private key, PEM, without a password, mode 0600.
        insecure: Send in clear over a network, because something else protects it.
        compression: ``gzip`` or ``none``.
        timeout_s: Longest time for one request, in seconds.
        batch_records: Records or spans in one request at most.
        batch_kib: KiB of them in one request, unless a single one is longer.
        metrics_interval_s: Seconds between two looks at whether there are new metrics to send; 0 keeps and sends
            none, for a collector that takes none.
        capture_content: Put prompts, answers, arguments, results and output on spans, as far as the policies permit
            ``captureContent``. Without both, spans hold none of it.
        content_max_chars: Longest content of one attribute; of longer content the older part is left out.
    """

    endpoint: Annotated[str | None, Field(pattern=r"^(https?://[^/\s]+(/\S*)?|unix:/\S.*)$")] = "http://127.0.0.1:4318"
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    spans: Path | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    compression: Literal["gzip", "none"] = "gzip"
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    batch_records: Annotated[int, Field(ge=1, le=10_000)] = 512
    batch_kib: Annotated[int, Field(ge=1, le=16_384)] = 1024
    metrics_interval_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    capture_content: bool = False
    content_max_chars: Annotated[int, Field(ge=64, le=1_000_000)] = 16_384

    @model_validator(mode="after")
    def _terms_go_together(self) -> OtlpSettings:
        try:
            self.target()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self

    def target(self) -> Target | None:
        """Return where to send to; None for nowhere. No file is read by this.

        Raises:
            ConfigurationError: The terms do not go together.
        """
        if self.endpoint is None:
            return None
        return Target(
            endpoint=self.endpoint,
            protocol=self.protocol,
            ca_file=self.ca_file,
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            insecure=self.insecure,
            headers=self.headers,
            compression=self.compression,
            timeout_s=self.timeout_s,
        )

    def pace(self) -> Pace:
        """Return how much is sent at once."""
        return Pace(batch_units=self.batch_records, batch_bytes=self.batch_kib * 1024)
