"""A call that a policy wants approved: the run stops, a person signs, and the run goes on.

Run it from anywhere: python examples/approvals.py DIRECTORY
Everything is written below the directory. The approver's key is made there too, so that the example needs nobody; at a
site it is the approver's own, and they answer from their terminal: cedarbox approve list, cedarbox approve grant.
The model is scripted and the backend is the SDK's unix-local one, so that the example needs no model server and no
microVM.
"""

import asyncio
import json
import sys
from base64 import b64encode
from pathlib import Path

from agents import Agent, Runner, function_tool
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.testing import ScriptedModel, assistant_message, function_call
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cedarbox import approvals, harden
from cedarbox.settings import load_settings

POLICIES = """
@id("scripted-model") permit (principal, action == Sandbox::Action::"useModel", resource);

@id("wire") @requires_approval("security-desk") @approval_expires("10m")
permit (principal, action == Sandbox::Action::"invokeTool", resource == Sandbox::Tool::"wire");
"""
ENTITIES = [
    {"uid": {"type": "Sandbox::Tenant", "id": "site"}, "attrs": {}, "parents": []},
    {
        "uid": {"type": "Sandbox::Agent", "id": "agent"},
        "attrs": {
            "tenant": {"__entity": {"type": "Sandbox::Tenant", "id": "site"}},
            "trust": {"__entity": {"type": "Sandbox::Trust", "id": "internal"}},
        },
        "parents": [],
    },
]


@function_tool
def wire(amount: int) -> str:
    """Wire money."""
    print(f"wired {amount}")
    return "done"


async def main(directory: Path) -> None:
    """Run the agent, sign what it asks for, and let it finish."""
    key = Ed25519PrivateKey.generate()
    shown = b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    bundle = directory / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "bundle.toml").write_text(f'name = "wires"\nschema = 1\n[approvers]\nsecurity-desk = "{shown}"\n')
    (bundle / "policies.cedar").write_text(POLICIES)
    (bundle / "entities.json").write_text(json.dumps(ENTITIES))
    settings = load_settings(audit={"directory": directory / "ledger"})
    settings = settings.model_copy(update={"otlp": settings.otlp.model_copy(update={"endpoint": None})})

    config = harden(policies=bundle, client=UnixLocalSandboxClient(), settings=settings)
    model = ScriptedModel(
        [[function_call("wire", {"amount": 250}, call_id="call-1")], [assistant_message("The money is on its way.")]]
    )
    agent = Agent(name="clerk", model=model, tools=[wire])
    result = await Runner.run(agent, "Wire 250 to the supplier.", run_config=config)
    while result.interruptions:
        state = result.to_state()
        for item in state.get_interruptions():
            print(f"waiting: {item.tool_name} {json.loads(item.arguments or '{}')}")
            await approvals.approve(state, item, client=config.sandbox.client, key=key, approver="security-desk")
        result = await Runner.run(agent, state, run_config=config)
    print(result.final_output)
    config.sandbox.client.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
