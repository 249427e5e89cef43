"""``cedarbox policy keygen``, ``sign`` and ``verify``: who stands behind a bundle."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from cedarbox.cli.policy_bundle import Bundle
from cedarbox.cli.policy_reporting import PrintJson
from cedarbox.ed25519 import load_private_key, load_public_key, write_key_pair
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.files import open_regular, write_file
from cedarbox.policy import PolicyBundle
from cedarbox.policy.schema import SCHEMA_VERSION
from cedarbox.policy.signing import (
    MAX_ENVELOPE,
    SIGNATURE_FILE,
    Envelope,
    Manifest,
    Signers,
    key_id,
    read_envelope,
    read_manifest,
)
from cedarbox.policy.signing import sign as sign_envelope
from cedarbox.times import duration_s

__all__ = ["keygen", "sign", "verify"]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?", re.ASCII)


def keygen(
    path: Annotated[Path, typer.Argument(help="The private key; the public one is put beside it, as .pub.")],
) -> None:
    """Make an Ed25519 key pair to sign bundles with. Nothing is overwritten.

    Exit code 0: made. 2: one of the files is there already or cannot be written.

    Example: cedarbox policy keygen release.key
    """
    public_path, key = write_key_pair(path)
    typer.echo(f"{path}: private key, keep it away from the hosts that verify")
    typer.echo(f"{public_path}: public key {key_id(key)}")


def sign(
    bundle: Bundle,
    *,
    key: Annotated[Path, typer.Option(readable=False, help="Private key to sign with.")],
    expires: Annotated[
        str | None,
        typer.Option(
            help="When the signature stops to count: an age such as 90d, a date (00:00 UTC of it), or a time such as "
            "2026-01-31T12:00:00Z. By default never, or what the earlier signatures of the same content say.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check a bundle and sign it. Signatures of others over the same content stay; one of this key is replaced.

    Exit code 0: signed. 2: the bundle, the key or the date cannot be used; nothing was written then.

    Example: cedarbox policy sign policies/airgapped --key release.key --expires 90d
    """
    now = datetime.now(UTC).replace(microsecond=0)
    until = None if expires is None else _until(expires, now)
    private = load_private_key(key)[0]
    loaded = PolicyBundle.load(bundle)
    path = bundle / SIGNATURE_FILE
    wanted = Manifest(loaded.name, loaded.revision, loaded.files, SCHEMA_VERSION, now, until)
    envelope, note = _envelope(path, wanted, key_id(private.public_key()))
    signed = sign_envelope(envelope, private)
    try:
        write_file(path, signed.to_bytes(), 0o644)
    except OSError as error:
        raise BundleError(f"cannot write it ({error.strerror})", path=path, hint="check the directory") from None
    if note:
        typer.echo(note)
    manifest = read_manifest(signed.payload, path)
    typer.echo(
        f"{path}: {loaded.name} revision {loaded.revision}, {len(loaded.files)} files, {_told(manifest.expires)}"
    )
    for name in sorted(signed.signatures):
        typer.echo(f"signed by {name}")


def verify(
    bundle: Bundle,
    *,
    public_key: Annotated[list[Path], typer.Option(readable=False, help="A key that counts; may be repeated.")],
    threshold: Annotated[int, typer.Option(min=1, help="How many different keys must have signed.")] = 1,
    as_json: PrintJson = False,
) -> None:
    """Check the signatures of a bundle, its expiry, and the bundle itself.

    Which revisions a host accepted before is not looked at: that is in the state of that host.

    Exit code 0: good. 1: refused, and the reason is told. 2: a key or an option cannot be used, or no such directory.

    Example: cedarbox policy verify policies/airgapped --public-key release.pub
    """
    signers = Signers.of(map(load_public_key, public_key), threshold)
    if not bundle.is_dir():
        raise ConfigurationError(f"{bundle}: no such directory", hint="give the directory of a policy bundle")
    try:
        loaded = PolicyBundle.load(bundle, signers=signers)
        loaded.check_current(datetime.now(UTC))
    except BundleError as error:
        told = {"ok": False, "reason": str(error)}
        typer.echo(orjson.dumps(told).decode() if as_json else f"refused: {error}")
        raise typer.Exit(1) from None
    if as_json:
        facts = {
            "ok": True,
            "name": loaded.name,
            "revision": loaded.revision,
            "digest": loaded.digest,
            "expires": loaded.expires,
            "signed_by": loaded.signed_by,
        }
        typer.echo(orjson.dumps(facts, option=orjson.OPT_UTC_Z).decode())
        return
    typer.echo(f"{loaded.name} revision {loaded.revision}, {loaded.digest}: good, {_told(loaded.expires)}")
    for name in loaded.signed_by:
        typer.echo(f"signed by {name}")


def _envelope(path: Path, wanted: Manifest, mine: str) -> tuple[Envelope, str]:
    """Return what to add the signature to, and a note for the user."""
    new = Envelope(wanted.payload(), {})
    try:
        with open_regular(path) as file:
            data = file.read(MAX_ENVELOPE + 1)
    except FileNotFoundError:
        return new, ""
    except OSError as error:
        raise BundleError(f"cannot read it ({error.strerror})", path=path, hint="remove it to sign anew") from None
    if len(data) > MAX_ENVELOPE:
        raise BundleError(f"larger than {MAX_ENVELOPE} bytes", path=path, hint="remove it to sign anew")
    old = read_envelope(data, path)
    signed = read_manifest(old.payload, path)
    if not signed.says_same(wanted):
        return new, "note: the bundle was changed since it was signed; earlier signatures are dropped"
    if wanted.expires in {None, signed.expires}:
        return old, ""
    if old.signatures.keys() <= {mine}:
        return new, ""
    hint = f"leave --expires out to sign the same, or remove {path} to sign anew"
    raise BundleError(f"others signed it, and it is good with {_told(signed.expires)}", path=path, hint=hint)


def _until(text: str, now: datetime) -> datetime:
    try:
        if (seconds := duration_s(text)) is not None:
            until = now + timedelta(seconds=seconds)
        elif _DATE.fullmatch(text):
            until = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
        else:
            raise ConfigurationError(
                f"--expires {text!r} is not an age or a date", hint="write it like 90d or 2026-01-31"
            )
    except (ValueError, OverflowError):
        raise ConfigurationError(f"--expires {text!r} is no day of the calendar", hint="check the date") from None
    if until <= now:
        raise ConfigurationError(f"--expires {text!r} is over already", hint="give a time to come")
    return until


def _told(expires: datetime | None) -> str:
    return "no expiry" if expires is None else f"expires {expires:%Y-%m-%d %H:%M:%SZ}"
