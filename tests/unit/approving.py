"""An agent with a tool that a policy wants approved, and the keys of two approvers."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from agents import Agent, FunctionTool, Runner, RunState, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.unit.bundles import write_bundle
from tests.unit.guarded import Guarded

from cedarbox import approvals
from cedarbox.guard.approval_store import ApprovalStore
from cedarbox.guard.approvals import sign

__all__ = ["ASKS", "DESK", "EVERY_TOOL", "INVOKE", "OFFICER", "Scene", "metadata", "outputs", "pem", "public"]

DESK, OFFICER = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))

PERMITS = (
    '@id("rest") permit (principal, action, resource) unless '
    '{ action == Sandbox::Action::"invokeTool" && resource is Sandbox::Tool && resource.name == "pay" };\n'
)
ASKS = (
    PERMITS + '@id("pay") @requires_approval("desk") @approval_expires("15m")\n'
    'permit (principal, action == Sandbox::Action::"invokeTool", resource == Sandbox::Tool::"pay");\n'
)

INVOKE = 'permit (principal, action == Sandbox::Action::"invokeTool", resource);'
EVERY_TOOL = (
    '@id("rest") permit (principal, action, resource) unless { action == Sandbox::Action::"invokeTool" };\n'
    f'@id("tools") @requires_approval("desk") {INVOKE}\n'
)


def outputs(result: Any) -> str:
    """Return what the model was given for its calls."""
    return str([item.output for item in result.new_items if item.type == "tool_call_output_item"])


def public(key: Ed25519PrivateKey) -> str:
    """Return a public key as bundle.toml has it."""
    return b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def pem(path: Path, key: Ed25519PrivateKey) -> Path:
    """Write a private key to a file."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def metadata() -> str:
    """Return a bundle.toml that declares two approvers."""
    return f'name = "test"\nschema = 1\n[approvers]\ndesk = "{public(DESK)}"\nofficer = "{public(OFFICER)}"\n'


class Scene:
    """A guarded client, and an agent whose model calls the tool ``pay``.

    ``pay`` notes the amounts in :attr:`paid`. The clock of the approvals is the host's, moved by :attr:`late`.
    """

    again: ClassVar[list[Any]] = [assistant_message("done")]

    def __init__(self, directory: Path, policies: str = ASKS) -> None:
        self.directory, self.late = directory, timedelta(0)
        bundle = write_bundle(directory / "bundle", policies, metadata=metadata())
        self.guarded = Guarded(directory, policies, bundle=bundle)
        self.client = self.guarded.client
        self.store = ApprovalStore(directory / "approvals", clock=lambda: datetime.now(UTC) + self.late)
        self.client.gate.approvals = self.store
        self.paid: list[int] = []

    @property
    def pay(self) -> FunctionTool:
        @function_tool
        def pay(amount: int) -> str:
            """Pay an amount."""
            self.paid.append(amount)
            return f"paid {amount}"

        return pay

    def agent(self, *turns: list[Any], tools: list[Any] | None = None) -> Agent[None]:
        """Return an agent whose model plays these turns, or calls ``pay`` with 5, and then says that it is done."""
        script = list(turns) or [[function_call("pay", {"amount": 5}, call_id="c1")]]
        return Agent(name="clerk", model=ScriptedModel([*script, self.again]), tools=tools or [self.pay])

    async def run(self, agent: Agent[None], given: Any = "go") -> Any:
        return await Runner.run(agent, given, run_config=self.guarded.config)

    async def interrupted(self, agent: Agent[None]) -> RunState[Any, Any]:
        """Run until the approval is asked for, and return the state."""
        result = await self.run(agent)
        assert [item.tool_name for item in result.interruptions] == ["pay"]
        assert self.paid == []
        state: RunState[Any, Any] = result.to_state()
        return state

    def forge(self, key: Ed25519PrivateKey, approver: str = "desk", **changes: Any) -> None:
        """Put a grant of the waiting call into the directory, signed as told, past all that approve() checks."""
        (request,) = self.store.requests()
        statement = request.statement("granted", approver, self.store.clock(), 900) | changes
        self.store.put_grant(request, replace(sign(statement, key), stream="none", seq=0))

    async def carry_on(self, agent: Agent[None], state: RunState[Any, Any]) -> None:
        """Approve in the SDK's own way, without a signature, and go on."""
        for item in state.get_interruptions():
            state.approve(item)
        result = await self.run(agent, state)
        assert result.final_output == "done"

    async def sign(self, state: RunState[Any, Any]) -> None:
        """Have the desk approve all that waits."""
        for item in state.get_interruptions():
            await approvals.approve(state, item, client=self.client, key=DESK, approver="desk")

    def denials(self) -> list[str]:
        """Return the reasons of the denied calls of ``pay``, from the ledger."""
        entries = [record.entry for record in self.guarded.records("decision")]
        return [
            str(entry.attrs["reason"])
            for entry in entries
            if entry.decision == "deny" and entry.resource == 'Tool::"pay"'
        ]

    def events(self) -> list[str]:
        """Return the events about approvals, in order."""
        found = [record.entry.event for record in self.guarded.records()]
        return [event for event in found if event.startswith("approval.")]

    def used(self) -> list[dict[str, Any]]:
        """Return what the ledger says about the approvals that calls were carried out with."""
        entries = [record.entry for record in self.guarded.records("decision")]
        return [dict(entry.attrs["approval"]) for entry in entries if "approval" in entry.attrs]  # type: ignore[arg-type]
