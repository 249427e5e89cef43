"""An agent that writes and runs a program in a microVM, under the policies of an air-gapped site.

Run it from the root of the checkout: python examples/front_door.py path/to/oci-layout
The model is scripted, so that the example needs no model server; give ``SandboxAgent`` a model of yours instead.
"""

import sys

from agents import Runner
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Shell
from agents.testing import ScriptedModel, assistant_message, function_call

from cedarbox import harden

COMMAND = "echo 'print(sum(range(101)))' > gauss.py && python3 gauss.py"
MODEL = ScriptedModel(
    [
        [function_call("exec_command", {"cmd": COMMAND, "yield_time_ms": 30_000}, call_id="1")],
        [assistant_message("The sum is 5050.")],
    ]
)


def main() -> None:
    """Run the agent once and print what it says."""
    run_config = harden(policies="policies/airgapped", rootfs=sys.argv[1])
    agent = SandboxAgent(name="local-coder", model=MODEL, capabilities=[Shell()])
    result = Runner.run_sync(agent, "Add the numbers from 1 to 100.", run_config=run_config)
    for item in result.new_items:
        if item.type == "tool_call_output_item":
            print(item.output)
    print(result.final_output)


if __name__ == "__main__":
    main()
