"""Every error of the installed BoxLite has a meaning, and every kind of operation its own error of the SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from agents.sandbox.errors import ExecTimeoutError, SandboxError

from cedarbox.boxlite import api
from cedarbox.boxlite.failures import (
    MEANINGS,
    SDK_ERRORS,
    UNKNOWN,
    Operation,
    archive_failure,
    exec_failure,
    lifecycle_failure,
    meaning,
    port_failure,
    said,
)
from cedarbox.boxlite.marked import GuestFailure

ROOT = Path("/workspace")
CLASSES = sorted(api.error_classes().values(), key=lambda each: each.__name__)
MAKE: dict[Operation, Callable[[Exception], SandboxError]] = {
    Operation.START: lambda error: lifecycle_failure(Operation.START, error, ROOT),
    Operation.EXEC: lambda error: exec_failure(error, ("true",), handed_over=True),
    Operation.TERMINAL: lambda error: exec_failure(error, ("true",), handed_over=False),
    Operation.READ: lambda error: archive_failure(Operation.READ, error, ROOT / "x"),
    Operation.WRITE: lambda error: archive_failure(Operation.WRITE, error, ROOT / "x"),
    Operation.PERSIST: lambda error: archive_failure(Operation.PERSIST, error, ROOT),
    Operation.HYDRATE: lambda error: archive_failure(Operation.HYDRATE, error, ROOT),
    Operation.PORT: lambda error: port_failure(error, 80, (80,)),
    Operation.STOP: lambda error: lifecycle_failure(Operation.STOP, error, ROOT),
}


def subclasses(of: type[Exception]) -> set[type[Exception]]:
    found = set(of.__subclasses__())
    return found.union(*map(subclasses, found))


def made(of: type[Exception], text: str = "said\nin two lines.") -> Exception:
    return of("true", 1, text) if of.__name__ == "ExecError" else of(text)


def test_the_table_is_complete() -> None:
    # A new class in BoxLite fails here until somebody has decided what it means.
    public = {each for each in subclasses(api.BoxliteError) if each.__module__.startswith("boxlite")}
    assert {each for each in public if not each.__name__.startswith("_")} | {api.BoxliteError} == set(MEANINGS)
    assert set(CLASSES) == set(MEANINGS)
    assert len(MEANINGS) == 22
    assert set(SDK_ERRORS) == set(Operation) == set(MAKE)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("of", CLASSES, ids=lambda each: each.__name__)
def test_the_class_decides(of: type[Exception], operation: Operation) -> None:
    cause = made(of)
    error = MAKE[operation](cause)
    timed_out = of.__name__ == "TimeoutError" and operation in (Operation.EXEC, Operation.TERMINAL)
    assert type(error) is (ExecTimeoutError if timed_out else SDK_ERRORS[operation])
    assert error.context["reason"] == meaning(cause).reason
    assert error.context["boxlite_error"] == of.__name__
    assert error.cause is cause
    # The SDK says of a timeout that it is not to be repeated.
    assert error.retryable is (False if timed_out else meaning(cause).retryable)
    for text in (str(error), error.context["detail"]):
        assert isinstance(text, str)
        assert "\n" not in text
    # The text of a message decides nothing.
    same = MAKE[operation](made(of, "not found: unauthorized, timed out, transport error"))
    assert (type(same), same.retryable, same.context["reason"]) == (type(error), error.retryable, meaning(cause).reason)


def test_an_unknown_class_is_taken_for_the_worst() -> None:
    new = type("NewError", (api.BoxliteError,), {})
    # Also where its base means less: what a new class means is not known.
    milder = type("NewLimitError", (api.error_classes()["ResourceExhaustedError"],), {})
    for of in (new, milder):
        error = exec_failure(of("x"), ("true",), handed_over=False)
        assert (error.retryable, error.context.get("retry_safe")) == (False, None)
        assert meaning(of("x")) is UNKNOWN


def test_repeating_is_safe_only_when_the_command_certainly_did_not_start() -> None:
    refused, lost = made(api.MissingError), made(api.error_classes()["NetworkError"])
    assert exec_failure(refused, ("x",), handed_over=False).context["retry_safe"] is True
    assert "retry_safe" not in exec_failure(refused, ("x",), handed_over=True).context
    assert "retry_safe" not in exec_failure(lost, ("x",), handed_over=False).context
    assert exec_failure(GuestFailure("not started"), ("x",), handed_over=False).context["retry_safe"] is True
    assert "retry_safe" not in exec_failure(GuestFailure("it ended"), ("x",), handed_over=True).context


def test_what_was_said_is_one_short_line() -> None:
    assert said(ValueError(" a\n b\tc. ")) == "a b c"
    assert said(ValueError()) == "ValueError"
    assert len(said(ValueError("x" * 10_000))) < 510
    assert said(ValueError("\udcff")).isascii()
