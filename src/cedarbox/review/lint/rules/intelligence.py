"""Rules about tools, models, capabilities, secrets and content: S030 to S036."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Host
from cedarbox.review.arguments import arguments_of
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Hit, LintRule
from cedarbox.review.lint.walk import samples

__all__ = ["LOCAL_KINDS", "RULES", "local_only", "tools"]

LOCAL_KINDS: Final = frozenset({"function", "custom", "mcp", "apply_patch", "shell", "local_shell"})
"""What runs on this side: functions of the process, tools of its MCP servers, and what works in the sandbox."""
_PRELOAD: Final = ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV")
_MAX_NAMES: Final = 40


def _names(context: Context, action: str, kind: str, *free: str, guarded: bool = False) -> list[str]:
    """Return the ids of a kind that permits of an action name, their texts, and some that nobody would name."""
    found: dict[str, None] = {}
    for policy in context.permits(action):
        if action == "invokeTool" and local_only(policy.est) and not guarded:
            continue
        found |= {literal.id: None for literal in context.literals(policy) if literal.kind == kind}
        found |= dict.fromkeys(samples(policy.est))
    return [*free, *list(found)[: None if guarded else _MAX_NAMES]]


def local_only(est: Mapping[str, Any]) -> bool:
    """Whether a policy plainly asks for kinds of tools that run on this side, so that there is nothing to try."""
    kind = {".": {"left": {"Var": "resource"}, "attr": "kind"}}
    for condition in est.get("conditions", ()):
        body = condition["body"]
        if condition["kind"] != "when" or len(body) != 1:
            continue
        ((operator, given),) = body.items()
        sides = [given["left"], given["right"]] if operator in {"==", "in", "contains"} else []
        if kind not in sides:
            continue
        other = sides[1 - sides.index(kind)]
        members = other.get("Set", [other])
        names = [member.get("Value", {}) for member in members]
        if all(isinstance(name, Mapping) and name.get("__entity", {}).get("id") in LOCAL_KINDS for name in names):
            return True
    return False


def tools(context: Context, kind: str, *, guarded: bool = False) -> Iterator[Action]:
    """Yield calls of tools of a kind, by names that permits know and by one that nobody knows.

    Args:
        context: What is looked at.
        kind: The kind.
        guarded: Names of permits that plainly ask for kinds of this side as well.
    """
    servers = [None]
    named = _names(context, "invokeTool", "Tool", "cedarbox-lint", guarded=guarded)
    toolsets: list[str | None] = (
        [*servers, *_names(context, "invokeTool", "Toolset", guarded=guarded)] if kind == "mcp" else [None]
    )
    for base in context.bases("invokeTool"):
        for name in named:
            server, _, plain = name.rpartition("/")
            for toolset in dict.fromkeys([server or None, *toolsets]):
                yield from context.made(actions.invoke_tool, base, name=plain, kind=kind, server=toolset)


def _hosted(context: Context) -> Iterator[Hit]:
    if all(local_only(policy.est) for policy in context.permits("invokeTool")):
        return
    kinds = sorted(arguments_of("invokeTool")["kind"].members - LOCAL_KINDS)
    asked = (action for kind in kinds for action in tools(context, kind))
    yield from context.first_hits(asked, "invokeTool", "permits a tool that runs where nobody here sees it")


def _any_server(context: Context) -> Iterator[Hit]:
    asked = (
        action
        for base in context.bases("invokeTool")
        for action in context.made(actions.invoke_tool, base, name="cedarbox-lint", kind="mcp", server="cedarbox-lint")
    )
    yield from context.first_hits(asked, "invokeTool", "permits the tools of any MCP server")


def _capabilities(context: Context) -> Iterator[Hit]:
    untrusted = [agent for agent in context.agents if agent.trust == "untrusted"]
    if not untrusted:
        return
    asked = (
        action
        for capability in context.options.sensitive_capabilities
        for base in context.bases("useCapability")
        for action in context.made(actions.use_capability, base, capability=capability)
    )
    yield from context.first_hits(
        asked, "useCapability", "gives an untrusted agent a sensitive capability", agents=untrusted
    )


def _any_model(context: Context) -> Iterator[Hit]:
    asked = (
        action
        for base in context.bases("useModel")
        for model in _names(context, "useModel", "", "cedarbox-lint")
        for action in context.made(actions.use_model, base, model=model, host=Host("cedarbox-lint.vendor.example"))
    )
    yield from context.first_hits(asked, "useModel", "lets a conversation go to a model server of anybody")


def _any_secret(context: Context) -> Iterator[Hit]:
    asked = (
        action
        for base in context.bases("useSecret")
        for name in _names(context, "useSecret", "Secret", "cedarbox-lint")
        for port in (443, 80)
        for action in context.made(
            actions.use_secret, base, name=name, host=Host("cedarbox-lint.evil.example"), port=port
        )
    )
    yield from context.first_hits(asked, "useSecret", "lets a secret of the host go to any host")


def _preloading(context: Context) -> Iterator[Hit]:
    asked = (
        action
        for base in context.bases("setEnvironment")
        for name in _PRELOAD
        for action in context.made(actions.set_environment, base, name=name)
    )
    yield from context.first_hits(asked, "setEnvironment", "permits a variable that runs code before every command")


def _content(context: Context) -> Iterator[Hit]:
    for policy in context.permits("captureContent"):
        yield Hit("permits content of conversations or commands on spans, which go to the collector", policy)


RULES: Final = (
    LintRule(
        "S030",
        "permits-hosted-tool",
        "error",
        "A permit of tools that run at a vendor, or of tools of any kind",
        'add when { [Sandbox::ToolKind::"function", Sandbox::ToolKind::"custom"].contains(resource.kind) }',
        "prover",
        _hosted,
    ),
    LintRule(
        "S031",
        "sensitive-capability",
        "error",
        "A permit of a sensitive capability for untrusted agents",
        "list the capabilities that are needed",
        "prover",
        _capabilities,
    ),
    LintRule(
        "S032",
        "any-mcp-server",
        "warning",
        "A permit of the tools of any MCP server",
        'name the server: resource in Sandbox::Toolset::"…"',
        "meaning",
        _any_server,
    ),
    LintRule(
        "S033",
        "any-model-server",
        "error",
        "A permit to send conversations to any model server",
        'name the server: resource == Sandbox::ModelEndpoint::"…", or its locality',
        "meaning",
        _any_model,
    ),
    LintRule(
        "S034",
        "secret-for-any-host",
        "error",
        "A permit to put a secret into requests to any host",
        'add when { context.host == Sandbox::Host::"…" && context.port == 443 }',
        "meaning",
        _any_secret,
    ),
    LintRule(
        "S035",
        "preloads-code",
        "warning",
        "A permit of environment variables that run code before every command",
        "list the variables that are needed, or forbid LD_PRELOAD and its like",
        "meaning",
        _preloading,
    ),
    LintRule(
        "S036",
        "captures-content",
        "warning",
        "A permit to put content on spans",
        "permit the one kind of content that is needed, for as long as it is needed",
        "text",
        _content,
    ),
)
"""The rules."""
