"""Approving calls that a policy wants a person to approve: ``@requires_approval``.

The SDK interrupts the run, and the program goes on from its ``RunState`` once every call was approved or rejected:

    result = await Runner.run(agent, "Pay the invoice.", run_config=config)
    while result.interruptions:
        state = result.to_state()
        if await approvals.wait(state, client=client, timeout_s=900):
            break  # nobody has answered
        result = await Runner.run(agent, state, run_config=config)

Meanwhile an approver, in another terminal, reads what is asked and signs it:

    cedarbox approve list
    cedarbox approve grant 3f9a --key security-desk.key --as security-desk

A state may be kept as JSON and taken up by another process: the grants are files beside the ledger. A program that has
the approver in front of it calls :func:`approve` or :func:`reject` itself. ``state.approve()`` alone carries out
nothing that a policy wants approved.

An agent as a tool may not need an approval itself if its own tools need some: the SDK carries it out twice.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from agents import RunState
from agents.items import ToolApprovalItem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cedarbox.audit import Entry, JsonValue, Ledger
from cedarbox.ed25519 import load_private_key, raw_key
from cedarbox.errors import ConfigurationError
from cedarbox.guard import GuardedClient
from cedarbox.guard.approval_store import ApprovalStore
from cedarbox.guard.approvals import Grant, Request, Unapproved, sign, verify
from cedarbox.guard.waiting import exact_arguments
from cedarbox.policy import Approval, PolicyBundle
from cedarbox.telemetry.redaction import digest

__all__ = [
    "ApprovalStore",
    "Grant",
    "Request",
    "Unapproved",
    "approve",
    "collect",
    "grant_request",
    "reject",
    "reject_request",
    "wait",
]

_POLL_S = 0.5
_REJECTED = "A person rejected this call."


async def approve(
    state: RunState[Any, Any],
    item: ToolApprovalItem,
    *,
    client: GuardedClient,
    key: Path | Ed25519PrivateKey,
    approver: str,
    lifetime_s: int | None = None,
) -> Grant:
    """Sign one interrupted call, record the grant, and approve the call in the state.

    Args:
        state: The state of the interrupted run.
        item: One of its interruptions.
        client: The guarded client of the run.
        key: The approver's Ed25519 key, or its PEM file (PKCS #8, no password, mode 0600).
        approver: The approver's name in ``bundle.toml``.
        lifetime_s: How long the approval holds, in seconds; None for as long as the policy allows.

    Raises:
        ConfigurationError: The approver may not approve this call, the key is not theirs, or no policy asks for it.
        LedgerError: The grant cannot be recorded; nothing was approved.
        Unapproved: The grant cannot be kept; nothing was approved.
    """
    store, bundle, ledger = _parts(client)
    request = _request_of(store, item)
    grant = await asyncio.to_thread(
        grant_request,
        request,
        store=store,
        bundle=bundle,
        ledger=ledger,
        key=key,
        approver=approver,
        lifetime_s=lifetime_s,
    )
    state.approve(item)
    return grant


async def reject(
    state: RunState[Any, Any],
    item: ToolApprovalItem,
    *,
    client: GuardedClient,
    reason: str = "",
    key: Path | Ed25519PrivateKey | None = None,
    approver: str | None = None,
) -> None:
    """Record that one interrupted call was rejected, and reject it in the state.

    Args:
        state: The state of the interrupted run.
        item: One of its interruptions.
        client: The guarded client of the run.
        reason: Why, for the model; not recorded.
        key: The approver's key, with which the rejection is signed. Rejecting needs no signature.
        approver: Who rejects.

    Raises:
        ConfigurationError: A key was given and is not the approver's, or no policy asks for an approval.
        LedgerError: The rejection cannot be recorded; the call was not approved either.
    """
    store, bundle, ledger = _parts(client)
    request = _request_of(store, item)
    await asyncio.to_thread(
        reject_request, request, store=store, bundle=bundle, ledger=ledger, reason=reason, key=key, approver=approver
    )
    state.reject(item, rejection_message=reason or _REJECTED)
    store.forget(request.id)


def collect(state: RunState[Any, Any], *, client: GuardedClient) -> list[ToolApprovalItem]:
    """Approve and reject in a state whatever approvers have answered so far, and return the calls that still wait.

    Args:
        state: The state of the interrupted run; it is changed.
        client: The guarded client of the run.
    """
    store, bundle, _ = _parts(client)
    waiting = []
    for item in state.get_interruptions():
        request = _find(store, item)
        if request is None:
            waiting.append(item)
            continue
        if (reason := store.rejection(request)) is not None:
            state.reject(item, rejection_message=reason or _REJECTED)
            store.forget(request.id)
            continue
        try:
            store.granted(request, bundle=bundle, approval=Approval(request.approvers, request.expires_s))
        except Unapproved:
            waiting.append(item)
        else:
            state.approve(item)
    return waiting


async def wait(
    state: RunState[Any, Any], *, client: GuardedClient, timeout_s: float, poll_s: float = _POLL_S
) -> list[ToolApprovalItem]:
    """Do what :func:`collect` does until nothing waits or the time is over, and return what still waits.

    Args:
        state: The state of the interrupted run; it is changed.
        client: The guarded client of the run.
        timeout_s: Longest wait, in seconds.
        poll_s: How often to look, in seconds.
    """
    end = monotonic() + timeout_s
    while True:
        waiting = await asyncio.to_thread(collect, state, client=client)
        left = end - monotonic()
        if not waiting or left <= 0:
            return waiting
        await asyncio.sleep(min(poll_s, left))


def grant_request(
    request: Request,
    *,
    store: ApprovalStore,
    bundle: PolicyBundle,
    ledger: Ledger,
    key: Path | Ed25519PrivateKey,
    approver: str,
    lifetime_s: int | None = None,
) -> Grant:
    """Sign a request, record the grant, and keep it where the program that waits finds it.

    Args:
        request: What waits.
        store: Where it waits.
        bundle: The policies in force.
        ledger: Remembers.
        key: The approver's Ed25519 key, or its PEM file.
        approver: The approver's name in ``bundle.toml``.
        lifetime_s: How long the approval holds, in seconds; None for as long as the policy allows.

    Raises:
        ConfigurationError: The approver may not approve this call, or the key is not theirs.
        LedgerError: The grant cannot be recorded.
        Unapproved: The grant cannot be kept.
    """
    if request.bundle != bundle.digest:
        hint = "start the run again under the policies in force"
        raise ConfigurationError("the policies changed since this approval was asked for", hint=hint)
    if approver not in request.approvers:
        raise ConfigurationError(
            f"{approver[:80]!r} may not approve this call", hint=f"{' or '.join(request.approvers)} may"
        )
    longest = request.expires_s
    if lifetime_s is not None and not 0 < lifetime_s <= longest:
        raise ConfigurationError(f"an approval of {lifetime_s} s", hint=f"the policy allows 1 to {longest} s")
    if store.rejection(request) is not None:
        raise ConfigurationError("this call was rejected already", hint="the model has to make it again")
    now = store.clock()
    grant = sign(request.statement("granted", approver, now, lifetime_s or longest), _key(key))
    try:
        verify(grant, request, bundle=bundle, approval=Approval(request.approvers, longest), now=now)
    except Unapproved as error:
        raise ConfigurationError(f"that approval would not hold: {error.message}") from None
    recorded = ledger.append(_entry("approval.granted", request, approver, grant))
    grant = replace(grant, stream=ledger.stream, seq=recorded.seq)
    store.put_grant(request, grant)
    return grant


def reject_request(
    request: Request,
    *,
    store: ApprovalStore,
    bundle: PolicyBundle,
    ledger: Ledger,
    reason: str = "",
    key: Path | Ed25519PrivateKey | None = None,
    approver: str | None = None,
) -> None:
    """Record that a request was rejected, and tell the program that waits.

    Args:
        request: What waits.
        store: Where it waits.
        bundle: The policies in force.
        ledger: Remembers.
        reason: Why, for the model; not recorded.
        key: The approver's key, with which the rejection is signed; None for no signature.
        approver: Who rejects.

    Raises:
        ConfigurationError: A key was given and is not the approver's.
        LedgerError: The rejection cannot be recorded.
        Unapproved: The rejection cannot be kept.
    """
    signed = None
    if key is not None:
        private = _key(key)
        signed = sign(request.statement("rejected", approver, store.clock(), request.expires_s), private)
        if bundle.approvers.get(approver or "") != _public(private):
            raise ConfigurationError(f"the key is not that of the approver {approver!r}", hint="see bundle.toml")
    ledger.append(_entry("approval.rejected", request, approver, signed))
    store.put_rejection(request, reason)


def _entry(event: str, request: Request, approver: str | None, signed: Grant | None) -> Entry:
    attrs: dict[str, JsonValue] = {"request": request.id, "approver": approver}
    if signed is not None:
        attrs |= {**signed.facts(), "statement": dict(signed.statement())}
    return Entry(
        event=event,
        principal=request.principal,
        tool=request.call.tool,
        call_id=request.call.call_id,
        action="invokeTool",
        policies=request.policies,
        bundle=request.bundle,
        attrs=attrs,
    )


def _parts(client: GuardedClient) -> tuple[ApprovalStore, PolicyBundle, Ledger]:
    gate = client.gate
    if gate.approvals is None:
        raise ConfigurationError("this client keeps no approvals", hint="make it with PolicySandboxClient or harden()")
    return gate.approvals, gate.engine.bundle, gate.ledger


def _request_of(store: ApprovalStore, item: ToolApprovalItem) -> Request:
    request = _find(store, item)
    if request is None:
        raise ConfigurationError(
            f"no policy asks for an approval of the call {item.call_id!r}, or it is over",
            hint="an interruption that only the program asked for is answered with state.approve()",
        )
    return request


def _find(store: ApprovalStore, item: ToolApprovalItem) -> Request | None:
    exact = digest(exact_arguments(item.raw_item).encode("utf-8", "surrogatepass"))
    wanted = (item.agent.name, item.tool_name, item.call_id, exact)
    for request in store.requests():
        call = request.call
        if (call.agent, call.tool, call.call_id, call.arguments_digest) == wanted:
            return request
    return None


def _key(key: Path | Ed25519PrivateKey) -> Ed25519PrivateKey:
    if isinstance(key, Ed25519PrivateKey):
        return key
    return load_private_key(key)[0]


def _public(key: Ed25519PrivateKey) -> str:
    return b64encode(raw_key(key.public_key())).decode()
