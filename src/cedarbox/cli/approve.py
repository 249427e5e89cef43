"""``cedarbox approve``: answering the calls that wait for a person."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cedarbox.approvals import ApprovalStore, Request, grant_request, reject_request
from cedarbox.audit import Ledger
from cedarbox.errors import ConfigurationError
from cedarbox.policy.trust import load
from cedarbox.settings import Settings, load_settings
from cedarbox.times import duration_s

__all__ = ["app"]

app = typer.Typer(help="List, grant and reject the calls that wait for an approval.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request, or as much of it as tells it apart.")]


@app.command("list")
def list_requests(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with escapes in the arguments.")] = False
) -> None:
    """Print what waits, oldest first, with the exact arguments.

    Exit code 0: printed. 2: the settings cannot be used.

    Example: cedarbox approve list --json
    """
    found = _store(load_settings()).requests()
    if as_json:
        told = [{"id": request.id, **dataclasses.asdict(request)} for request in found]
        for item, request in zip(told, found, strict=True):
            item["call"] |= {
                "arguments": request.call.arguments.encode("utf-8", "backslashreplace").decode(),
                "arguments_digest": request.call.arguments_digest,
            }
        typer.echo(orjson.dumps(told).decode())
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for request in found:
        call = request.call
        console.print(f"{request.id[:12]}  {_shown(request.requested)}  {_shown(call.kind)} tool {_shown(call.tool)}")
        console.print(
            f"  agent      {_shown(call.agent or '')} as {_shown(request.principal)}, call {_shown(call.call_id)}"
        )
        console.print(f"  approvers  {_shown(' or '.join(request.approvers))}, for {request.expires_s} s at most")
        console.print(f"  digest     {call.arguments_digest}")
        console.print(f"  arguments  {_shown(call.arguments)}")


@app.command()
def grant(
    request: Id,
    *,
    key: Annotated[Path, typer.Option(readable=False, help="The approver's Ed25519 key (PEM, mode 0600).")],
    approver: Annotated[str, typer.Option("--as", help="The approver's name in bundle.toml.")],
    expires: Annotated[
        str | None, typer.Option(help="How long it holds: a number and s, m or h. By default as the policy says.")
    ] = None,
) -> None:
    """Sign one call. The grant is recorded in the ledger of the settings, and holds once.

    Exit code 0: granted. 2: there is no such request, the approver or the key is not the right one, or the policies
    changed since.

    Example: cedarbox approve grant 3f9a51c0 --key security-desk.key --as security-desk
    """
    settings = load_settings()
    store = _store(settings)
    found, bundle = _find(store, request), load(settings.policy.bundle, settings.trust(), datetime.now(UTC))
    lifetime_s = None
    if expires is not None:
        lifetime_s = duration_s(expires)
        if lifetime_s is None:
            raise ConfigurationError(f"--expires {expires!r} is not a duration", hint="write it like 90s, 15m or 2h")
    with _ledger(settings) as ledger:
        signed = grant_request(
            found, store=store, bundle=bundle, ledger=ledger, key=key, approver=approver, lifetime_s=lifetime_s
        )
    until = signed.statement()["expires"]
    typer.echo(f"{found.id}: granted as {approver} until {until}, record {signed.seq} of stream {signed.stream}")


@app.command()
def reject(
    request: Id,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the model.")] = "",
    key: Annotated[
        Path | None, typer.Option(readable=False, help="The approver's key, to sign the rejection with.")
    ] = None,
    approver: Annotated[str | None, typer.Option("--as", help="Who rejects.")] = None,
) -> None:
    """Say no to one call. Anyone who can write to the ledger may; the rejection is recorded.

    Exit code 0: rejected. 2: there is no such request, or the key is not the approver's.

    Example: cedarbox approve reject 3f9a51c0 --reason "not without an order number"
    """
    settings = load_settings()
    store = _store(settings)
    found, bundle = _find(store, request), load(settings.policy.bundle, settings.trust(), datetime.now(UTC))
    with _ledger(settings) as ledger:
        reject_request(found, store=store, bundle=bundle, ledger=ledger, reason=reason, key=key, approver=approver)
    typer.echo(f"{found.id}: rejected")


def _store(settings: Settings) -> ApprovalStore:
    return ApprovalStore(settings.audit.approvals or settings.audit.directory.parent / "approvals")


def _ledger(settings: Settings) -> Ledger:
    audit = settings.audit
    return Ledger.open(audit.directory, signing_key=audit.signing_key, segment_bytes=audit.segment_bytes)


def _find(store: ApprovalStore, text: str) -> Request:
    # Compared as text and never made part of a path.
    matching = [request for request in store.requests() if text and request.id.startswith(text)]
    if len(matching) != 1:
        problem = "no request" if not matching else f"{len(matching)} requests"
        hint = "cedarbox approve list shows what waits"
        raise ConfigurationError(f"{problem} with an id that begins with {text[:80]!r}", hint=hint)
    return matching[0]


def _shown(text: str) -> str:
    # What a model wrote must not move the cursor of the terminal it is judged on.
    return ascii(text)
