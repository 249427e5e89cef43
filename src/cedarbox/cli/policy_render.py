"""``cedarbox policy render``: a bundle as a page for people who do not read Cedar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cedarbox.cli.policy_bundle import Bundle
from cedarbox.errors import ConfigurationError
from cedarbox.files import write_file

__all__ = ["render"]


def render(
    bundle: Bundle,
    *,
    form: Annotated[Literal["html", "markdown"], typer.Option("--format", help="What to make.")] = "html",
    into: Annotated[
        Path | None, typer.Option(help="Write it there; by default it is printed.", show_default=False)
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(readable=False, help="A key whose signature counts; may be repeated.", show_default=False),
    ] = None,
    threshold: Annotated[int, typer.Option(min=1, help="How many different keys must have signed.")] = 1,
) -> None:
    """Make a page that says in plain sentences who may do what, for people who do not read Cedar.

    Each policy has its sentence, its reason, the Cedar text and the tests in which it decides. A condition without
    words is quoted; nothing is left out. The HTML is one file that runs no script and loads nothing.

    With --public-key the signatures are verified, and the page says whose they are.

    Exit code 0: made. 2: the bundle, a key or a signature cannot be used, or the file cannot be written.

    Example: cedarbox policy render policies/internal-mirror --into policies.html
    """
    from cedarbox.ed25519 import load_public_key
    from cedarbox.policy.bundle import PolicyBundle
    from cedarbox.policy.signing import SIGNATURE_FILE, Signers
    from cedarbox.review.rendering import html, markdown, page_of
    from cedarbox.review.subject import Subject

    if threshold > 1 and not public_key:
        raise ConfigurationError("--threshold is given, and no --public-key", hint="name the keys that count")
    subject = Subject.load(bundle)
    signed = "there, and not verified here" if (bundle / SIGNATURE_FILE).exists() else "none"
    if public_key:
        verified = PolicyBundle.load(bundle, signers=Signers.of(map(load_public_key, public_key), threshold))
        if subject.bundle is None or verified.digest != subject.bundle.digest:
            raise ConfigurationError(f"{bundle}: it was changed while it was read", hint="run it again")
        until = "no expiry" if verified.expires is None else f"expires {verified.expires:%Y-%m-%d %H:%M:%SZ}"
        signed = f"verified: {', '.join(verified.signed_by)}, {until}"
    page = page_of(subject, signed=signed)
    text = html(page) if form == "html" else markdown(page)
    if into is None:
        # The page says that it is UTF-8, whatever the locale is.
        typer.echo(text.encode(), nl=False)
        return
    try:
        write_file(into, text.encode(), 0o644)
    except OSError as error:
        raise ConfigurationError(f"{into}: it cannot be written: {error.strerror}", hint="check the path") from None
    typer.echo(f"{into}: {len(subject.policies)} policies of {page.name}")
