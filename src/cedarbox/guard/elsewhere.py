"""Ways of the SDK that do not go through its runner: refused while the guard is in force.

A realtime session holds one connection to a vendor and runs tools on its own account; a voice pipeline sends audio to
a vendor before any run begins. Neither resolves a model or calls a tool where the guard could ask.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Final, NoReturn

from cedarbox.errors import ConfigurationError
from cedarbox.guard.identity import current_run
from cedarbox.guard.question import Impossible

__all__ = ["around_the_runner"]

_WAYS: Final = (
    ("agents.realtime.runner", "RealtimeRunner", "run"),
    ("agents.realtime.session", "RealtimeSession", "__aenter__"),
    ("agents.realtime.openai_realtime", "OpenAIRealtimeWebSocketModel", "connect"),
    ("agents.voice.pipeline", "VoicePipeline", "run"),
)


@cache
def around_the_runner() -> tuple[tuple[Any, str, Any], ...]:
    """Return the ways that can be gone in this installation: the class, the method, what is to stand there.

    What cannot be imported, for want of a package that it needs, cannot be used either.
    """
    found = []
    for module, kind, name in _WAYS:
        try:
            owner = getattr(importlib.import_module(module), kind)
        except ImportError:
            continue
        found.append((owner, name, _refused))
    return tuple(found)


async def _refused(way: object, *_: object, **__: object) -> NoReturn:
    kind, run = type(way).__name__, current_run()
    reason = f"{kind} goes around the guard: no decision can be made about what it sends and runs"
    if run is not None:
        raise await run.gate.refuse(Impossible("useModel", f'ModelEndpoint::"{kind}"', reason))
    raise ConfigurationError(reason, hint="use Runner, or a process in which cedarbox is not in force")
