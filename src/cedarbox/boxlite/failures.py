"""What each error of BoxLite means to a user of the Agents SDK.

An error is told by its class, never by the text of its message. :data:`MEANINGS` holds every class of
``boxlite.errors`` of BoxLite 0.10.8; a class that is not in it is taken for the worst: it will not help to repeat the
operation, and a command may have run. The SDK's error of each kind of operation is in :data:`SDK_ERRORS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    ExposedPortUnavailableError,
    SandboxError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceStartError,
    WorkspaceStopError,
)

from cedarbox.boxlite import api

__all__ = [
    "MEANINGS",
    "SDK_ERRORS",
    "UNKNOWN",
    "Meaning",
    "Operation",
    "archive_failure",
    "details",
    "exec_failure",
    "lifecycle_failure",
    "meaning",
    "port_failure",
    "said",
]

_MAX_SAID: Final = 500


class Operation(StrEnum):
    """A kind of operation of a session."""

    START = "start"
    EXEC = "exec"
    TERMINAL = "terminal"
    READ = "read"
    WRITE = "write"
    PERSIST = "persist"
    HYDRATE = "hydrate"
    PORT = "port"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error of BoxLite means.

    Attributes:
        reason: What happened, in one word of the SDK's ``context["reason"]``.
        retryable: Whether the same operation can be expected to succeed when it is repeated; ``None`` when nobody can
            tell. It says nothing about the effects that the first attempt may have had.
        not_started: BoxLite gives this error to a command before it hands the command to the guest.
    """

    reason: str
    retryable: bool | None = None
    not_started: bool = False


UNKNOWN: Final = Meaning("unknown_failure", retryable=False)
"""What a class means that is not in the table."""

_BY_NAME: Final[Mapping[str, Meaning]] = {
    "AlreadyExistsError": Meaning("already_exists", retryable=False),
    "BoxliteError": UNKNOWN,
    # Over REST also 401 and 403 (measured on BoxLite 0.10.8).
    "ConfigError": Meaning("configuration_or_credential_refused", retryable=False, not_started=True),
    "DatabaseError": Meaning("runtime_database_failed"),
    "EngineError": Meaning("virtual_machine_failed"),
    # These three come from BoxLite's convenience classes, which cedarbox does not use.
    "ExecError": Meaning("command_failed", retryable=False),
    "ParseError": Meaning("answer_not_understood", retryable=False),
    "TimeoutError": Meaning("took_too_long"),
    "ExecutionError": Meaning("process_failed"),
    "ImageError": Meaning("image_unavailable"),
    "InternalError": Meaning("runtime_failed"),
    "InvalidArgumentError": Meaning("argument_refused", retryable=False, not_started=True),
    "InvalidStateError": Meaning("not_possible_in_this_state", not_started=True),
    "MetadataError": Meaning("runtime_metadata_failed"),
    # The answer may be lost after the command was started.
    "NetworkError": Meaning("server_unreachable", retryable=True),
    "NotFoundError": Meaning("not_found", retryable=False, not_started=True),
    "ResourceExhaustedError": Meaning("limit_reached", retryable=True, not_started=True),
    "SessionReapedError": Meaning("process_gone", retryable=False),
    "StoppedError": Meaning("microvm_stopped", retryable=False, not_started=True),
    "StorageError": Meaning("storage_failed"),
    "UnsupportedError": Meaning("not_supported", retryable=False, not_started=True),
    # How the death of a guest shows locally (measured on BoxLite 0.10.8): repeating does not bring it back.
    "UpstreamUnavailableError": Meaning("guest_did_not_answer"),
}

_CLASSES: Final = api.error_classes()

MEANINGS: Final[Mapping[type[Exception], Meaning]] = MappingProxyType(
    {_CLASSES[name]: value for name, value in _BY_NAME.items() if name in _CLASSES}
)
"""Every error class of BoxLite and what it means."""

_TIMED_OUT: Final = _CLASSES["TimeoutError"]

SDK_ERRORS: Final[Mapping[Operation, type[SandboxError]]] = MappingProxyType(
    {
        Operation.START: WorkspaceStartError,
        Operation.EXEC: ExecTransportError,
        Operation.TERMINAL: ExecTransportError,
        Operation.READ: WorkspaceArchiveReadError,
        Operation.WRITE: WorkspaceArchiveWriteError,
        Operation.PERSIST: WorkspaceArchiveReadError,
        Operation.HYDRATE: WorkspaceArchiveWriteError,
        Operation.PORT: ExposedPortUnavailableError,
        Operation.STOP: WorkspaceStopError,
    }
)
"""The SDK's error of each kind of operation. A command or terminal that BoxLite itself timed out is the only
exception: it is an ``ExecTimeoutError``."""


def meaning(error: BaseException) -> Meaning:
    """Return what an error means, by its exact class; :data:`UNKNOWN` when it is not in the table."""
    return MEANINGS.get(type(error), UNKNOWN)  # type: ignore[arg-type]  # any class may be looked up


def said(error: BaseException) -> str:
    """Return the message of an error in one line of at most 500 characters, the class's name when it has none."""
    text = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split()).rstrip(".")
    return (text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]} …") or type(error).__name__


def details(error: BaseException) -> dict[str, object]:
    """Return what goes into the context of the SDK's error: ``reason``, ``boxlite_error`` and ``detail``."""
    if not isinstance(error, api.BoxliteError):
        return {"detail": said(error)}
    return {"reason": meaning(error).reason, "boxlite_error": type(error).__name__, "detail": said(error)}


def _retryable(error: BaseException) -> bool | None:
    return meaning(error).retryable if isinstance(error, api.BoxliteError) else None


def exec_failure(
    error: Exception, command: Sequence[str | Path], *, handed_over: bool, user: str | None = None
) -> ExecTransportError | ExecTimeoutError:
    """Return the SDK's error for a command or a terminal that could not be run.

    Args:
        error: What went wrong: an error of BoxLite, or why cedarbox did not even ask it.
        command: The command.
        handed_over: Whether BoxLite had already taken the command when this went wrong.
        user: Who should have run it.

    Returns:
        The error. ``context["retry_safe"]`` is true only when the command certainly did not start, which is what the
        SDK's shell tool relies on when it tries another way.
    """
    if isinstance(error, _TIMED_OUT):
        return ExecTimeoutError(command=command, timeout_s=None, context=details(error), cause=error)
    context = {"user": user, **details(error)}
    if not handed_over and (not isinstance(error, api.BoxliteError) or meaning(error).not_started):
        context["retry_safe"] = True
    message = f"the command could not be run: {said(error)}"
    return ExecTransportError(
        command=command, context=context, cause=error, message=message, retryable=_retryable(error)
    )


def archive_failure(
    operation: Operation, error: Exception, path: Path
) -> WorkspaceArchiveReadError | WorkspaceArchiveWriteError:
    """Return the SDK's error for a file or an archive.

    Args:
        operation: ``READ``, ``WRITE``, ``PERSIST`` or ``HYDRATE``.
        error: What went wrong.
        path: The file, or the root of the workspace.
    """
    if operation in (Operation.READ, Operation.PERSIST):
        return WorkspaceArchiveReadError(path=path, context=details(error), cause=error, retryable=_retryable(error))
    return WorkspaceArchiveWriteError(path=path, context=details(error), cause=error, retryable=_retryable(error))


def lifecycle_failure(operation: Operation, error: Exception, root: Path) -> WorkspaceStartError | WorkspaceStopError:
    """Return the SDK's error for a start or a stop.

    Args:
        operation: ``START`` or ``STOP``.
        error: What went wrong.
        root: The root of the workspace.
    """
    if operation is Operation.START:
        message = f"the sandbox could not be started: {said(error)}"
        return WorkspaceStartError(
            path=root, context=details(error), cause=error, message=message, retryable=_retryable(error)
        )
    return WorkspaceStopError(path=root, context=details(error), cause=error, retryable=_retryable(error))


def port_failure(error: Exception, port: int, exposed: Sequence[int]) -> ExposedPortUnavailableError:
    """Return the SDK's error for a port whose address BoxLite does not tell."""
    reason = meaning(error).reason if isinstance(error, api.BoxliteError) else "not_published_on_loopback"
    return ExposedPortUnavailableError(
        port=port,
        exposed_ports=exposed,
        reason=reason,
        context={key: value for key, value in details(error).items() if key != "reason"},
        cause=error,
        retryable=_retryable(error),
    )
