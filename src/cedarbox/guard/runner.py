"""In force: from the first hardened run on, every run of this process passes the guard.

The SDK has a few places through which all runs go, whatever agent, handoff, nested agent or memory job started them.
Each is wrapped once. The names are private to the SDK, so their presence is checked at import and the SDK is pinned.

1. The default runner: which sandbox client a run may use, and whose gate is in force for it.
2. The resolver of models: every model call, after the last tool was added.
3. The invoker of function tools, and 4. the executor of custom tools: whose tool call an operation comes from.
5. The executors of the other tools of this host, the resolver of names that tools share, and the maker of sandboxes
   (see `executors`).
6. The SDK's own runner class, so that an instance that the program made is under guard as well.
7. What does not go through the runner at all, which is refused (see `elsewhere`).

What has to wait for an approval waits by wraps of its own, in ``guard.waiting``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from agents import Agent, RunConfig
from agents._tool_identity import get_mapping_or_attr
from agents.models.interface import Model
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.run_internal import run_loop, tool_actions, tool_execution
from agents.run_internal.items import apply_patch_rejection_item
from agents.tool import _FunctionToolInvocationResult

from cedarbox.errors import ConfigurationError, PolicyDenied, SealError
from cedarbox.guard import waiting
from cedarbox.guard.capture import capture_call
from cedarbox.guard.elsewhere import around_the_runner
from cedarbox.guard.executors import SEAMS, check_sandbox
from cedarbox.guard.identity import Caller, RunIdentity, current_run, within
from cedarbox.guard.identity import current_gate as _gate
from cedarbox.guard.model import GuardedModel
from cedarbox.guard.nesting import refuse_another_guard
from cedarbox.guard.server_state import hold_session
from cedarbox.guard.tools import invocation
from cedarbox.telemetry import attributes
from cedarbox.telemetry.redaction import clip
from cedarbox.telemetry.spans import OperationSpan
from cedarbox.telemetry.tracing import is_sealed, is_switched_off

__all__ = ["GuardRunner", "enforce", "is_in_force", "seams"]

_Invoke = Callable[..., Awaitable[Any]]
_INVOKER = "_invoke_function_tool_with_metadata"

_get_model: Callable[[Agent[Any], RunConfig], Model] = run_loop.get_model
_invoke_function_tool: _Invoke = getattr(tool_execution, _INVOKER)
_execute_custom_tool: _Invoke = tool_actions.CustomToolAction.execute


class GuardRunner(AgentRunner):
    """The SDK's runner, that runs nothing unguarded."""

    async def run(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:  # noqa: A002  # the SDK's name
        """Run under guard, or refuse."""
        with _guarded(input, options), _untraced(starting_agent, options) as span, span.current():
            return await super().run(starting_agent, input, **options)

    def run_sync(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:  # noqa: A002  # the SDK's name
        """Run under guard, or refuse."""
        with _guarded(input, options), _untraced(starting_agent, options) as span, span.current():
            return super().run_sync(starting_agent, input, **options)

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:  # noqa: A002  # the SDK's
        """Run under guard, or refuse; the task that the SDK starts inherits the guard."""
        with _guarded(input, options), ExitStack() as ends:
            span = ends.enter_context(_untraced(starting_agent, options))
            with span.current():
                result = super().run_streamed(starting_agent, input, **options)
            if (task := result.run_loop_task) is not None:
                # The run goes on in a task of its own, and the span with it.
                task.add_done_callback(partial(_ended, ends.pop_all()))
            return result


def _through_the_guard(name: str) -> Any:
    original = getattr(AgentRunner, name)

    def method(runner: AgentRunner, *given: Any, **options: Any) -> Any:
        # A runner of the program's own making is one more way around, and leads back here.
        if isinstance(runner, GuardRunner):
            return original(runner, *given, **options)
        return getattr(GuardRunner(), name)(*given, **options)

    return method


_DIRECT = tuple((AgentRunner, name, _through_the_guard(name)) for name in ("run", "run_sync", "run_streamed"))


def seams() -> tuple[tuple[Any, str, Any], ...]:
    """Return where the SDK is wrapped besides: the owner, the name, and what stands there in force."""
    return (*SEAMS, *_DIRECT, *waiting.WRAPPED, *around_the_runner())


def enforce() -> None:
    """Put the guard in force for this process. Doing it twice changes nothing; there is no way back.

    Raises:
        ConfigurationError: The program has set a default runner of its own.
    """
    if is_in_force():
        return
    current = get_default_agent_runner()
    if type(current) is not AgentRunner:
        hint = "call harden() before anything else sets a default runner"
        raise ConfigurationError(f"the SDK's default runner is already a {type(current).__name__}", hint=hint)
    run_loop.get_model = _guarded_model
    setattr(tool_execution, _INVOKER, _guarded_function_tool)
    tool_actions.CustomToolAction.execute = _guarded_custom_tool  # type: ignore[method-assign]  # a static stand-in
    for owner, name, wrap in seams():
        setattr(owner, name, wrap)
    set_default_agent_runner(GuardRunner())


def is_in_force() -> bool:
    """Whether all wraps are in place."""
    return (
        type(get_default_agent_runner()) is GuardRunner
        and run_loop.get_model is _guarded_model
        and getattr(tool_execution, _INVOKER) is _guarded_function_tool
        and tool_actions.CustomToolAction.execute is _guarded_custom_tool
        and all(vars(owner).get(name) is wrap for owner, name, wrap in seams())
    )


def _guarded(given: Any, options: dict[str, Any]) -> AbstractContextManager[None]:
    if not is_in_force() or not is_sealed():
        raise SealError("a wrap of the guard or the seal on tracing was undone", hint="find what replaced it")
    config = options.get("run_config")
    if isinstance(config, dict):
        raise ConfigurationError("run_config is a dict", hint="pass the RunConfig that harden() returned")
    sandbox = config.sandbox if config is not None else None
    guard = check_sandbox(sandbox)
    if sandbox is not None and sandbox.client is not None and sandbox.snapshot is None:
        sandbox.snapshot = sandbox.client.default_snapshot  # The SDK's own would be in clear below the home directory.
    if config is not None:
        config.trace_include_sensitive_data = False
    run = current_run()
    gate = guard or (run.gate if run is not None else None)
    if gate is None:
        hint = "pass run_config=harden(...), or set run_config.sandbox.client to a PolicySandboxClient"
        raise ConfigurationError("cedarbox is in force in this process and this run has no guard", hint=hint)
    if run is not None:
        refuse_another_guard(run.gate, gate)
    if options.get("session") is not None:
        hold_session(options["session"], gate)
    chained = bool(options.get("auto_previous_response_id") or getattr(given, "_auto_previous_response_id", False))
    return within(run=RunIdentity(run.id if run else uuid.uuid4().hex, gate, chained=chained))


@contextmanager
def _untraced(agent: Any, options: dict[str, Any]) -> Iterator[OperationSpan | _NoSpan]:
    """Make the span of a run for which the SDK makes none, because its tracing was switched off."""
    config = options.get("run_config")
    if not (is_switched_off() or (config is not None and config.tracing_disabled)):
        yield _NoSpan()
        return
    name = clip(str(getattr(agent, "name", "agent")))
    known = {attributes.GEN_AI_OPERATION_NAME: "invoke_agent", attributes.GEN_AI_AGENT_NAME: name}
    with _gate().telemetry.aside(f"invoke_agent {name}", known) as span:
        yield span


class _NoSpan:
    """Stands for the span that the SDK makes."""

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()


def _ended(ends: ExitStack, task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    with suppress(BaseException):
        ends.__exit__(*((type(error), error, error.__traceback__) if error is not None else (None, None, None)))


def _guarded_model(agent: Agent[Any], run_config: RunConfig) -> Model:
    model = _get_model(agent, run_config)
    return model if isinstance(model, GuardedModel) else GuardedModel(model, _gate(), agent)


async def _guarded_function_tool(*, function_tool: Any, context: Any, arguments: str) -> Any:
    agent = context.agent.name if context.agent is not None else None
    call = waiting.call_of(function_tool, agent, context.tool_call_id, arguments)
    with within(caller=Caller(agent, function_tool.name, context.tool_call_id)):
        try:
            async with _gate().operation(invocation(function_tool, call)) as operation:
                operation.set("arguments_digest", call.arguments_digest)
                result = await _invoke_function_tool(function_tool=function_tool, context=context, arguments=arguments)
                await capture_call(_gate(), operation.span, arguments, result.output)
                return result
        except PolicyDenied as denial:
            return _FunctionToolInvocationResult(str(denial))


async def _guarded_custom_tool(*, agent: Agent[Any], call: Any, **options: Any) -> Any:
    try:
        return await waiting.through_gate(_execute_custom_tool, call.custom_tool, agent=agent, call=call, **options)
    except PolicyDenied as denial:
        request = call.tool_call
        return apply_patch_rejection_item(
            agent,
            str(get_mapping_or_attr(request, "call_id") or ""),
            tool_call=request,
            output_type="custom_tool_call_output",
            rejection_message=str(denial),
        )
