"""What a person approves, and what their signature says.

A *request* is one call of a tool that waits. A *grant* is a statement about exactly that call, signed by an approver
with Ed25519. It is kept as a DSSE envelope, so that other programs can check it too. The statement is canonical JSON
(RFC 8785); it holds the digest of the arguments, never the arguments.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cedarbox.audit import JsonValue
from cedarbox.ed25519 import pae, raw_key
from cedarbox.errors import CedarboxError
from cedarbox.policy import Approval, PolicyBundle
from cedarbox.telemetry.redaction import digest
from cedarbox.times import in_utc

__all__ = ["HELD_KINDS", "PAYLOAD_TYPE", "Grant", "Request", "ToolCall", "Unapproved", "sign", "verify"]

PAYLOAD_TYPE: Final = "application/vnd.cedarbox.approval+json"
"""Part of what is signed, so that a signature made for something else is never an approval."""

HELD_KINDS: Final = frozenset({"function", "mcp", "custom", "shell", "apply_patch"})
"""Kinds of tools that openai-agents 0.24 can interrupt a run for.

It has no approval for ``local_shell`` and ``computer``, and what is hosted runs at the vendor.
"""

_FORMAT: Final = "cedarbox.approval/1"


class Unapproved(CedarboxError):
    """There is no valid approval of a call; the message says why."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as it would be carried out.

    Attributes:
        agent: Name of the SDK's agent.
        tool: Name of the tool.
        kind: A member of ``Sandbox::ToolKind``.
        server: Name of its MCP server; None for other tools.
        call_id: The model's id of the call.
        arguments: The exact text of the arguments; of a call that has none, the sorted JSON of the whole call.
    """

    agent: str | None
    tool: str
    kind: str
    server: str | None
    call_id: str
    arguments: str

    @property
    def arguments_digest(self) -> str:
        """``sha256:…`` of the exact text."""
        return digest(self.arguments.encode("utf-8", "surrogatepass"))

    def bound(self) -> dict[str, Any]:
        """Return what a signature binds of the call."""
        fields = asdict(self)
        del fields["arguments"]
        return fields | {"arguments_digest": self.arguments_digest}


@dataclass(frozen=True, slots=True)
class Request:
    """A call that waits for an approval.

    Attributes:
        call: The call.
        principal: The agent as ``entities.json`` declares it.
        bundle: Digest of the policy bundle that asks for the approval.
        policies: Ids of the policies that permit the call.
        approvers: Whose signature will do.
        expires_s: Longest time that a signature may hold, in seconds.
        nonce: Tells this request from another one for an equal call.
        requested: When, in UTC.
    """

    call: ToolCall
    principal: str
    bundle: str
    policies: tuple[str, ...]
    approvers: tuple[str, ...]
    expires_s: int
    nonce: str
    requested: str

    @property
    def id(self) -> str:
        """SHA-256 in hex of what has to be the same when the call is carried out.

        Raises:
            Unapproved: A name in it is not Unicode.
        """
        return request_id(self.call, self.principal, self.bundle)

    def to_json(self) -> bytes:
        """Return the content of the request's file: the arguments too, for those who have to judge them."""
        # The arguments may hold unpaired surrogates, which only escapes can carry.
        return json.dumps(asdict(self), ensure_ascii=True, sort_keys=True, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Request:
        """Read a request's file.

        Raises:
            Unapproved: It is not one.
        """
        try:
            fields = json.loads(data)
            fields |= {name: tuple(fields[name]) for name in ("policies", "approvers")}
            request = cls(**fields | {"call": ToolCall(**fields["call"])})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Unapproved("the file of the request is damaged") from None
        call = request.call
        texts = (call.tool, call.kind, call.call_id, call.arguments, request.principal, request.bundle, request.nonce)
        names = (*request.policies, *request.approvers, request.requested)
        if not all(isinstance(text, str) for text in (*texts, *names)) or type(request.expires_s) is not int:
            raise Unapproved("the file of the request is damaged")
        return request

    def statement(self, verdict: str, approver: str | None, now: datetime, lifetime_s: int) -> dict[str, JsonValue]:
        """Return what is signed.

        Args:
            verdict: ``granted`` or ``rejected``.
            approver: Who says so.
            now: When.
            lifetime_s: How long it holds, in seconds.
        """
        return {
            "format": _FORMAT,
            "verdict": verdict,
            "approver": approver,
            "request": self.nonce,
            "principal": self.principal,
            **self.call.bound(),
            "bundle": self.bundle,
            "policies": list(self.policies),
            "granted": in_utc(now),
            "expires": in_utc(now + timedelta(seconds=lifetime_s)),
        }


@dataclass(frozen=True, slots=True)
class Grant:
    """A signed statement.

    Attributes:
        payload: The statement, canonical JSON.
        signature: Ed25519 over the payload and its type (DSSE).
        key: ``sha256:…`` of the public key, as the envelope claims it.
        stream: Stream of the ledger that holds the record of the grant, as the file claims it.
        seq: Its sequence number there.
    """

    payload: bytes
    signature: bytes
    key: str
    stream: str | None = None
    seq: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the payload, in hex."""
        return sha256(self.payload).hexdigest()

    def statement(self) -> Mapping[str, Any]:
        """Read the payload.

        Raises:
            Unapproved: It is not the canonical JSON of a statement.
        """
        try:
            statement = json.loads(self.payload)
            canonical = rfc8785.dumps(statement)
        except (ValueError, RecursionError):
            raise Unapproved("the statement is not JSON") from None
        if not isinstance(statement, dict) or canonical != self.payload or statement.get("format") != _FORMAT:
            raise Unapproved(f"the statement is not canonical JSON of {_FORMAT}")
        return statement

    def facts(self) -> dict[str, JsonValue]:
        """Return what the ledger keeps of it: with the statement, enough to check the signature again."""
        facts: dict[str, JsonValue] = {
            "digest": f"sha256:{self.digest}",
            "key": self.key,
            "signature": b64encode(self.signature).decode(),
        }
        return facts if self.seq is None else facts | {"stream": self.stream, "seq": self.seq}

    def to_json(self) -> bytes:
        """Return the content of the grant's file: a DSSE envelope, and where the ledger has it."""
        signature = {"keyid": self.key, "sig": b64encode(self.signature).decode()}
        envelope = {
            "payloadType": PAYLOAD_TYPE,
            "payload": b64encode(self.payload).decode(),
            "signatures": [signature],
            "recorded": {"stream": self.stream, "seq": self.seq},
        }
        return json.dumps(envelope, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Grant:
        """Read a grant's file.

        Raises:
            Unapproved: It is not one.
        """
        try:
            envelope = json.loads(data)
            (signature,) = envelope["signatures"]
            recorded = envelope["recorded"]
            grant = cls(
                payload=b64decode(envelope["payload"], validate=True),
                signature=b64decode(signature["sig"], validate=True),
                key=signature["keyid"],
                stream=recorded["stream"],
                seq=recorded["seq"],
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Unapproved("the file of the grant is damaged") from None
        texts = (grant.key, grant.stream)
        sound = all(isinstance(text, str) for text in texts) and type(grant.seq) is int
        if envelope["payloadType"] != PAYLOAD_TYPE or not sound:
            raise Unapproved("the file of the grant is damaged")
        return grant


def request_id(call: ToolCall, principal: str, bundle: str) -> str:
    """Return :attr:`Request.id` for a call that is about to be carried out.

    Raises:
        Unapproved: A name in it is not Unicode.
    """
    try:
        return sha256(rfc8785.dumps(call.bound() | {"principal": principal, "bundle": bundle})).hexdigest()
    except ValueError:
        raise Unapproved("a name or an id of the call is not Unicode, so nobody could sign it") from None


def sign(statement: Mapping[str, JsonValue], key: Ed25519PrivateKey) -> Grant:
    """Sign a statement."""
    payload = rfc8785.dumps(statement)
    return Grant(payload, key.sign(pae(PAYLOAD_TYPE, payload)), digest(raw_key(key.public_key())))


def verify(grant: Grant, request: Request, *, bundle: PolicyBundle, approval: Approval, now: datetime) -> str:
    """Check a grant against the call that it is used for, and return the approver.

    Args:
        grant: The grant.
        request: What is about to be done, with the nonce of the request that is on disk.
        bundle: The policies in force: its keys count, whatever the grant says.
        approval: What the decision that was just taken asks for.
        now: The time.

    Raises:
        Unapproved: It is no approval of this call, now; the message says why.
    """
    statement = grant.statement()
    if statement.get("verdict") != "granted":
        raise Unapproved("what was signed is no grant")
    expected = request.call.bound() | {
        "principal": request.principal,
        "bundle": request.bundle,
        "request": request.nonce,
    }
    if differing := sorted(name for name, value in expected.items() if statement.get(name, ...) != value):
        raise Unapproved(f"what was signed is another call: {', '.join(differing)} differ")
    approver = statement.get("approver")
    if approver not in approval.approvers:
        raise Unapproved(f"{approver!r} may not approve it, only {' or '.join(approval.approvers)}")
    try:
        public = Ed25519PublicKey.from_public_bytes(b64decode(bundle.approvers[approver], validate=True))
        public.verify(grant.signature, pae(PAYLOAD_TYPE, grant.payload))
    except (InvalidSignature, KeyError, ValueError):
        raise Unapproved(f"the signature is not by the key of {approver!r} in the policy bundle") from None
    try:
        granted, expires = (datetime.fromisoformat(statement[name]) for name in ("granted", "expires"))
        latest = min(expires, granted + timedelta(seconds=approval.expires_s))
        valid = granted <= now < latest
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Unapproved("the statement does not say when it holds") from None
    if not valid:
        raise Unapproved(f"it holds from {in_utc(granted)} until {in_utc(latest)}, and it is {in_utc(now)}")
    return str(approver)
