"""What a check is, and the small words that checks are written with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.sandbox.errors import SandboxError

from cedarbox.errors import PolicyDenied

if TYPE_CHECKING:
    from cedarbox.conformance.bench import Bench

__all__ = [
    "REFUSALS",
    "Check",
    "Failure",
    "NotApplicable",
    "checks_of",
    "equal",
    "holds",
    "one_line",
    "refused",
    "shown",
]

REFUSALS: tuple[type[Exception], ...] = (SandboxError, OSError, ValueError, PolicyDenied)
"""What a backend may raise to refuse something where the SDK fixes no type; a ``PolicyDenied`` is a guard's."""

_LINE = 300
_SHOWN_BYTES = 60


class Failure(Exception):
    """A check found that the backend does not do what it should."""


class NotApplicable(Exception):
    """A check found while it ran that it does not apply here, such as a program that the image lacks."""


@dataclass(frozen=True)
class Check:
    """One thing that a sandbox backend should do.

    Attributes:
        name: ``area.what``; stable, so that lists of known failures can name it.
        area: The part of the contract that it belongs to.
        says: What must hold, in one sentence.
        needs: The features without which it does not apply; see :class:`~cedarbox.conformance.backend.Backend`.
        run: Does it; raises when it does not hold.
        limit_s: Seconds it may take on a host that is not emulated.
    """

    name: str
    area: str
    says: str
    needs: frozenset[str]
    run: Callable[[Bench], Awaitable[None]]
    limit_s: float = 180.0


def checks_of(
    area: str,
    *functions: Callable[[Bench], Awaitable[None]],
    needs: frozenset[str] = frozenset(),
    limit_s: float = 180.0,
) -> tuple[Check, ...]:
    """Make checks of functions: the name and the first line of the docstring become those of the check.

    Args:
        area: Their area.
        functions: The functions.
        needs: What all of them need.
        limit_s: Seconds that each may take.
    """
    return tuple(
        Check(
            name=f"{area}.{getattr(function, '__name__', 'check').replace('_', '-')}",
            area=area,
            says=(function.__doc__ or "").strip().splitlines()[0],
            needs=needs,
            run=function,
            limit_s=limit_s,
        )
        for function in functions
    )


def shown(value: object) -> str:
    """Return a value as a failure shows it: a short ``repr``."""
    if isinstance(value, bytes) and len(value) > _SHOWN_BYTES:
        return f"{value[: _SHOWN_BYTES // 2]!r}...{value[-_SHOWN_BYTES // 2 :]!r} ({len(value)} bytes)"
    text = repr(value)
    return text if len(text) <= _LINE // 2 else f"{text[: _LINE // 2]}..."


def one_line(error: BaseException) -> str:
    """Return an exception as one line with its type, unless it is a :class:`Failure`, which speaks for itself."""
    text = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())
    if not isinstance(error, Failure | NotApplicable):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LINE else f"{text[:_LINE]}..."


def holds(condition: object, what: str) -> None:
    """Fail with ``what`` unless the condition is true."""
    if not condition:
        raise Failure(what)


def equal(actual: object, expected: object, what: str) -> None:
    """Fail unless both are equal.

    Args:
        actual: What the backend gave.
        expected: What it should have given.
        what: What the value is, such as ``"the exit code"``.
    """
    if actual != expected:
        raise Failure(f"{what} is {shown(actual)} and should be {shown(expected)}")


async def refused(operation: Awaitable[object], what: str, types: tuple[type[Exception], ...] = REFUSALS) -> Exception:
    """Fail unless the operation raises one of these errors.

    Args:
        operation: What should be refused.
        what: What was tried, such as ``"reading a missing file"``.
        types: The errors that count as a refusal.

    Returns:
        The error.
    """
    try:
        result = await operation
    except types as error:
        return error
    except Exception as error:
        names = ", ".join(sorted(kind.__name__ for kind in types))
        raise Failure(f"{what} raised {one_line(error)}; it should raise {names}") from error
    if hasattr(result, "close"):
        result.close()
    raise Failure(f"{what} was not refused")
