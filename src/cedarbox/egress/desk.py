"""What all connections of one sandbox share: who is asked, what may be used, how names are looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from cedarbox.egress.admission import CONNECTED, Admission, Connect, Outcome
from cedarbox.egress.dial import DialError, Resolve, Server, dial, look_up
from cedarbox.egress.limits import EgressLimits, Sandbox
from cedarbox.egress.secrets import Secret
from cedarbox.egress.targets import Target, spelled
from cedarbox.errors import CedarboxError, PolicyDenied
from cedarbox.policy.canonical import Address, Host

__all__ = ["Account", "Desk", "RevokedError"]

_CUT: Final = "cut"


class RevokedError(CedarboxError):
    """A connection was admitted and is permitted no longer.

    Args:
        denial: Why not.
    """

    def __init__(self, denial: PolicyDenied) -> None:
        super().__init__(denial.message)
        self.denial = denial


class Desk:
    """Asks, looks up and dials for one sandbox.

    Args:
        admission: Answers.
        sandbox: What it uses.
        secrets: By name.
        allow: The list that the sandbox was made with; None for none.
        resolve: Looks names up.
    """

    def __init__(
        self,
        admission: Admission,
        sandbox: Sandbox,
        secrets: Mapping[str, Secret],
        allow: Callable[[Host | Address], bool] | None,
        resolve: Resolve,
    ) -> None:
        self.admission, self.sandbox, self.secrets = admission, sandbox, secrets
        self._allow, self._resolve = allow, resolve
        # What was put into requests to a server could come back in any later answer of it.
        self.given: dict[Target, set[bytes]] = {}

    @property
    def limits(self) -> EgressLimits:
        """What the sandbox may use."""
        return self.sandbox.limits

    async def admit(self, target: Target) -> None:
        """Have a target decided before its name is looked up.

        Raises:
            PolicyDenied: No connection to it could be permitted.
        """
        host, port = target
        if self._allow is not None and not self._allow(host):
            raise await self.admission.refuse(spelled(target), "it is not on the list that this sandbox was made with")
        await self.admission.name(host, port)

    async def addresses(self, target: Target) -> Sequence[Address]:
        """Return the addresses of a target, at least one.

        Raises:
            DialError: There is none.
            PolicyDenied: There are only some that could mean another target.
        """
        host, port = target
        if isinstance(host, Address):
            return (host,)
        found, strange = await look_up(self._resolve, host.name, port, self.limits)
        denied = [await self.admission.refuse(spelled(target), reason) for reason in strange[:1]]
        if not found:
            raise denied[0]
        return found

    async def through(self, connects: Iterable[Connect], act: Callable[[Address, Outcome], Awaitable[None]]) -> None:
        """Have connections decided in order, until one is admitted and reaches its server; the act does the rest.

        Args:
            connects: One for each address.
            act: Dials the address and carries what is to be carried.

        Raises:
            DialError: At least one was admitted, and none reached its server.
            PolicyDenied: None was admitted.
            RevokedError: It was admitted, and is permitted no longer.
        """
        denied: PolicyDenied | None = None
        failed: DialError | None = None
        for connect in connects:
            admitted = False
            try:
                async with self.admission.connection(connect) as outcome:
                    admitted = True
                    try:
                        await act(connect.ip, outcome)
                    except DialError as error:
                        failed = error
                        outcome.set("reason", error.message)
                    else:
                        return
            except PolicyDenied as error:
                if admitted:
                    raise RevokedError(error) from None
                denied = denied or error
        if failed is not None:
            raise failed
        raise denied or DialError("there is no address to try")

    async def reach(self, ip: Address, port: int, outcome: Outcome) -> Server:
        """Dial an address, and note how long it took, once it is reached.

        Raises:
            DialError: It does not answer.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        outcome.set("address", str(ip))
        try:
            server = await dial(ip, port, self.sandbox)
        except asyncio.CancelledError:
            outcome.set("reason", _CUT)
            raise
        outcome.set(CONNECTED, round((clock() - started) * 1000))
        return server


class Account:
    """Notes what one act has carried, however it ends.

    Args:
        outcome: Where to.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._started = asyncio.get_running_loop().time()
        self._out = self._in = 0
        self._server: Server | None = None
        self.reason = _CUT

    def of(self, server: Server) -> None:
        """Count what a server carries from now on."""
        self._server = server
        self._out, self._in = server.meter.bytes_out, server.meter.bytes_in

    def close(self) -> None:
        """Note it."""
        meter = self._server.meter if self._server else None
        self._outcome.set("bytes_out", meter.bytes_out - self._out if meter else 0)
        self._outcome.set("bytes_in", meter.bytes_in - self._in if meter else 0)
        self._outcome.set("milliseconds", round((asyncio.get_running_loop().time() - self._started) * 1000))
        self._outcome.set("reason", self.reason)
