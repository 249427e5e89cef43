"""Where requests and grants are kept: files beside the ledger, so that they outlive the process that asked.

For a request with the id ``R`` (64 hexadecimal digits) there are:

* ``R.request.json``: the call with its arguments, while it waits. Carrying the call out, or refusing it, removes it;
* ``R.D.grant.json``: a signed statement with the digest ``D``;
* ``R.rejected.json``: a person said no;
* ``D.used``: the statement was used, and never will be again.

Nothing in a file is trusted for being there: a grant counts by its signature, under a key of the policies in force.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from cedarbox.files import open_regular, write_new
from cedarbox.guard.approvals import Grant, Request, ToolCall, Unapproved, request_id, verify
from cedarbox.policy import Approval, Decision, PolicyBundle
from cedarbox.times import in_utc

__all__ = ["ApprovalStore"]

_MAX_BYTES: Final = 1024 * 1024
"""Longest file, in bytes. Nobody judges more than that by eye."""

_REQUEST: Final = re.compile(r"([0-9a-f]{64})\.request\.json")
_GRANT: Final = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{64})\.grant\.json")


class ApprovalStore:
    """The approvals of one ledger.

    Args:
        directory: Made with mode 0700 when the first call waits.
        clock: Gives the time, in UTC.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.directory, self.clock = directory, clock
        # Beside the files, so that whoever can take those away wins nothing in this process.
        self._used: set[str] = set()

    def ask(self, call: ToolCall, *, principal: str, decision: Decision, approval: Approval) -> tuple[Request, bool]:
        """Return the request of a call that waits already, or a new one that is not on disk yet; and whether it is new.

        Raises:
            Unapproved: The call cannot be asked about.
        """
        if not call.call_id:
            raise Unapproved("the call has no id")
        identity = request_id(call, principal, decision.bundle)
        if os.path.lexists(self._path(f"{identity}.request.json")):
            return self._request(identity), False
        request = Request(
            call=call,
            principal=principal,
            bundle=decision.bundle,
            policies=decision.policies,
            approvers=approval.approvers,
            expires_s=approval.expires_s,
            nonce=secrets.token_hex(16),
            requested=in_utc(self.clock()),
        )
        if len(request.to_json()) > _MAX_BYTES:
            raise Unapproved(f"the arguments are longer than the {_MAX_BYTES} bytes that a person can be asked about")
        return request, True

    def put(self, request: Request) -> None:
        """Make a request visible to the approvers.

        Raises:
            Unapproved: It cannot be written.
        """
        self._write(f"{request.id}.request.json", request.to_json())

    def put_grant(self, request: Request, grant: Grant) -> None:
        """Keep a grant.

        Raises:
            Unapproved: It cannot be written.
        """
        self._write(f"{request.id}.{grant.digest}.grant.json", grant.to_json())

    def put_rejection(self, request: Request, reason: str) -> None:
        """Keep a rejection until the program that waits collects it.

        Raises:
            Unapproved: It cannot be written.
        """
        self._write(f"{request.id}.rejected.json", orjson.dumps({"reason": reason}))

    def requests(self) -> list[Request]:
        """Return what waits, oldest first; files that cannot be read are left out, as nobody could approve them."""
        found = []
        for name in self._names():
            if match := _REQUEST.fullmatch(name):
                try:
                    found.append(self._request(match[1]))
                except Unapproved:
                    continue
        return sorted(found, key=lambda request: (request.requested, request.id))

    def rejection(self, request: Request) -> str | None:
        """Return why a request was rejected; None when it was not."""
        name = f"{request.id}.rejected.json"
        if not os.path.lexists(self._path(name)):
            return None
        try:
            reason = orjson.loads(self._read(name))["reason"]
        except (Unapproved, ValueError, KeyError, TypeError):
            return ""
        return reason if isinstance(reason, str) else ""

    def granted(self, request: Request, *, bundle: PolicyBundle, approval: Approval) -> Grant:
        """Return a grant that holds now and was never used.

        Raises:
            Unapproved: There is none; the message says what is wrong with those there are.
        """
        if self.rejection(request) is not None:
            raise Unapproved("it was rejected")
        wrong = []
        for name in self._grant_names(request.id):
            try:
                grant = Grant.from_json(self._read(name))
                verify(grant, request, bundle=bundle, approval=approval, now=self.clock())
                if grant.digest in self._used or os.path.lexists(self._path(f"{grant.digest}.used")):
                    raise Unapproved("it was used before")  # noqa: TRY301  # one of the reasons that are collected
            except Unapproved as error:
                wrong.append(error.message)
            else:
                return grant
        if wrong:
            raise Unapproved(f"the approval does not hold: {'; '.join(wrong)}")
        raise Unapproved(f"nobody has signed an approval; {' or '.join(approval.approvers)} may")

    def claim(
        self, call: ToolCall, *, principal: str, bundle: PolicyBundle, decision: Decision, approval: Approval
    ) -> Grant:
        """Use an approval up, in the moment before the call is carried out.

        Whatever the answer, the request is over: a call is carried out once or refused.

        Args:
            call: What is about to be carried out.
            principal: The agent as ``entities.json`` declares it.
            bundle: The policies in force.
            decision: Their decision.
            approval: What it asks for.

        Raises:
            Unapproved: There is no approval of this call that holds and was never used.
        """
        identity = request_id(call, principal, decision.bundle)
        if bundle.digest != decision.bundle:
            raise Unapproved("the policies changed while it was decided")
        name = f"{identity}.request.json"
        if not os.path.lexists(self._path(name)):
            raise Unapproved(self._why_unknown(call, principal, decision.bundle))
        try:
            request = self._request(identity)
            grant = self.granted(request, bundle=bundle, approval=approval)
            # The name is taken in one step, by one process only, and stays taken.
            if not self._write(f"{grant.digest}.used", b""):
                raise Unapproved("the approval was used before")
            self._used.add(grant.digest)
            return grant
        finally:
            self.forget(identity)

    def forget(self, identity: str) -> None:
        """Take a request and its rejection away; grants stay, as evidence."""
        for ending in ("request", "rejected"):
            try:
                self._path(f"{identity}.{ending}.json").unlink(missing_ok=True)
            except OSError as error:
                raise Unapproved(f"the request cannot be taken away ({error.strerror})") from None

    def _why_unknown(self, call: ToolCall, principal: str, bundle: str) -> str:
        asked = call.bound() | {"principal": principal, "bundle": bundle}
        for request in self.requests():
            if request.call.call_id == call.call_id:
                known = request.call.bound() | {"principal": request.principal, "bundle": request.bundle}
                differing = sorted(field for field, value in asked.items() if known[field] != value)
                return f"an approval was asked for another call: {', '.join(differing)} changed since"
        return "no approval was asked for this call, or it is over"

    def _grant_names(self, identity: str) -> Iterator[str]:
        return (name for name in self._names() if (match := _GRANT.fullmatch(name)) and match[1] == identity)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.directory))  # noqa: PTH208  # names are matched, never followed
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unapproved(f"{self.directory}: cannot be read ({error.strerror})") from None

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _request(self, identity: str) -> Request:
        request = Request.from_json(self._read(f"{identity}.request.json"))
        if request.id != identity:
            raise Unapproved("the file of the request was changed")
        return request

    def _read(self, name: str) -> bytes:
        self._check_directory()
        try:
            with open_regular(self._path(name)) as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise Unapproved(f"{name} cannot be read ({error.strerror})") from None
        if len(data) > _MAX_BYTES:
            raise Unapproved(f"{name} is longer than {_MAX_BYTES} bytes")
        return data

    def _write(self, name: str, data: bytes) -> bool:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_directory()
            return write_new(self._path(name), data, 0o600)
        except OSError as error:
            raise Unapproved(f"{self.directory}: cannot be written ({error.strerror})") from None

    def _check_directory(self) -> None:
        try:
            status = self.directory.lstat()
        except OSError as error:
            raise Unapproved(f"{self.directory}: cannot be used ({error.strerror})") from None
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022 or status.st_uid not in {0, os.geteuid()}:
            hint = "it must be a directory of this user that others cannot write to"
            raise Unapproved(f"{self.directory}: cannot be trusted", hint=hint)
