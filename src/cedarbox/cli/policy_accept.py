"""``cedarbox policy accept``: answer for one widening that ``policy diff`` found."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from cedarbox.cli import policy_versions as versions
from cedarbox.cli.policy_reporting import PrintJson
from cedarbox.ed25519 import load_private_key
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.files import write_file
from cedarbox.text import printable
from cedarbox.times import duration_s, in_utc

__all__ = ["accept"]

_MAX_REASON: Final = 500
_ID: Final = re.compile(r"[0-9a-f]{16}")
_HEAD: Final = (
    "# Widenings that someone answers for. Each entry is signed: made with cedarbox policy accept, not by hand.\n"
)


def accept(
    base: versions.Base = None,
    head: versions.Head = None,
    *,
    widening: Annotated[list[str], typer.Option(metavar="ID", help="The id that policy diff tells; may be repeated.")],
    key: Annotated[Path, typer.Option(readable=False, help="Your private key, as policy keygen makes it.")],
    reason: Annotated[str, typer.Option(help="Why it is meant, in one line.")],
    expires: Annotated[str, typer.Option(help="How long it counts, such as 90d; 366d at most.")],
    to: Annotated[Path, typer.Option(help="The file that the entry is added to; made when it is missing.")] = Path(
        "accepted.toml"
    ),
    bundle: versions.Bundles = None,
    schema: versions.Schema = None,
    links: versions.Links = None,
    public_key: versions.PublicKeys = None,
    threshold: versions.Threshold = 1,
    timeout: versions.Timeout = 10,
    second_opinion: versions.SecondOpinion = False,
    as_json: PrintJson = False,
) -> None:
    """Sign the acceptance of a widening. It is found again here, so what is signed is what the policies do.

    An entry accepts one widening of one change, and no other. It is used up when the change is in the base.

    Exit code 0: added. 2: there is no such widening, or something given cannot be used; nothing was written then.

    Example: cedarbox policy accept main --widening 3f9a51c0d2e4b687 --key desk.key --reason "new mirror" --expires 90d
    """
    from cedarbox.review.diff.acceptance import MAX_AGE, Accepted, read_accepted, toml_entry
    from cedarbox.review.diff.widened import identity, widened

    until = _until(expires, MAX_AGE)
    if not reason.strip() or len(reason) > _MAX_REASON or not reason.isprintable():
        raise ConfigurationError(
            f"--reason must be one line, {_MAX_REASON} characters at most", hint="say why it is meant"
        )
    private = load_private_key(key)[0]
    earlier = read_accepted(to) if to.exists() else ()
    found = versions.outcomes(
        base,
        head,
        bundles=bundle,
        schema=schema,
        links=links,
        public_keys=public_key,
        threshold=threshold,
        timeout=timeout,
        second_opinion=second_opinion,
    )
    known = {identity(subject): (subject, told) for subject, told in widened(found).items()}
    for name in widening:
        if name not in known:
            hint = f"it has {', '.join(known) or 'none'}" if _ID.fullmatch(name) else "an id is 16 hex digits"
            raise ConfigurationError(f"the change has no widening {printable(name)[:80]!r}", hint=hint)
    added = [Accepted.sign(known[name][0], reason, until, private) for name in dict.fromkeys(widening)]
    try:
        text = to.read_text("utf-8") if earlier or to.exists() else _HEAD
        write_file(to, (text + "".join(map(toml_entry, added))).encode(), 0o644)
    except OSError as error:
        raise BundleError(f"cannot write it ({error.strerror})", path=to, hint="check the directory") from None
    if as_json:
        told = [{"id": name, "until": in_utc(until), "file": str(to), "about": known[name][1]} for name in widening]
        typer.echo(orjson.dumps(told).decode())
        return
    for name in dict.fromkeys(widening):
        typer.echo(f"{to}: {name} accepted until {in_utc(until)}: {printable(known[name][1])}")


def _until(text: str, longest: timedelta) -> datetime:
    seconds = duration_s(text)
    if seconds is None or not 0 < seconds <= longest.total_seconds():
        raise ConfigurationError(f"--expires {text!r} is no time up to {longest.days}d", hint="write it like 90d")
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
