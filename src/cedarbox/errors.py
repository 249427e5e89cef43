"""The errors of cedarbox: one small tree.

Every error is one line that says what is wrong and, after a semicolon, what to do about it. The class says who is at
fault: the caller's settings, a policy bundle, the host, an image, the ledger, or nobody (a policy said no).
"""

from __future__ import annotations

from pathlib import Path

from cedarbox.text import printable

__all__ = [
    "BundleError",
    "CanonicalizationError",
    "CedarboxError",
    "ConfigurationError",
    "HostError",
    "ImageError",
    "LedgerError",
    "PolicyDenied",
    "SealError",
    "SnapshotError",
    "UnsupportedToolError",
]


class CedarboxError(Exception):
    """Base of every error that cedarbox raises on purpose.

    Args:
        message: What is wrong, in one line without a final full stop.
        hint: What the reader can do about it; empty when the message says it all.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message, self.hint = _one_line(message), _one_line(hint)
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)


def _one_line(text: str) -> str:
    # Text of a guest, of a model or the name of a file may hold unpaired surrogates, which no stream could print, and
    # control characters, which would drive the terminal of whoever reads it.
    return printable(" ".join(text.encode("utf-8", "backslashreplace").decode().split()))


class ConfigurationError(CedarboxError):
    """The caller's fault: an option, a setting or an argument that cannot be used."""


class BundleError(ConfigurationError):
    """A policy bundle that cannot be loaded.

    Args:
        message: What is wrong.
        path: The file or directory at fault.
        line: 1-based line in that file, when known.
        column: 1-based column in that line, when known.
        hint: What to do about it.
    """

    def __init__(
        self, message: str, *, path: Path, line: int | None = None, column: int | None = None, hint: str = ""
    ) -> None:
        self.path, self.line, self.column = path, line, column
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {message}", hint=hint)


class UnsupportedToolError(ConfigurationError):
    """An agent has a tool or capability that the wire protocol of its model cannot carry."""


class CanonicalizationError(CedarboxError, ValueError):
    """A host, address or path that has no single canonical form. The guard turns it into a denial."""


class HostError(CedarboxError):
    """The host lacks something: usable KVM, a program, a permission."""


class ImageError(CedarboxError):
    """An image or OCI layout is missing, malformed, or does not match its digests."""


class SnapshotError(CedarboxError):
    """A snapshot is missing, is of another sandbox's making, or does not hold what its digest says."""


class LedgerError(CedarboxError):
    """The ledger cannot take a record. Whatever waited for that record must not happen.

    Args:
        message: What is wrong.
        hint: What to do about it.
        told: The same without naming a file of the host, for a guest or a model.
    """

    def __init__(self, message: str, *, hint: str = "", told: str = "the ledger takes no records") -> None:
        self.told = told
        super().__init__(message, hint=hint)


class SealError(CedarboxError):
    """Something tried to open the sealed tracing of the Agents SDK towards a vendor."""


class PolicyDenied(CedarboxError):
    """A policy, or the lack of one, said no. Nobody is at fault.

    Args:
        action: The Cedar action that was asked for, such as ``connect``.
        resource: The canonical resource, such as ``Host::"example.com"``.
        reason: Why, in one line, fit to be shown to a model.
        policies: Ids of the policies that determined the answer; empty when nothing permitted it.
        seq: Sequence number of the ledger record that holds the decision, when it was recorded.
    """

    def __init__(
        self, action: str, resource: str, *, reason: str, policies: tuple[str, ...] = (), seq: int | None = None
    ) -> None:
        self.action, self.resource, self.reason, self.policies, self.seq = action, resource, reason, policies, seq
        super().__init__(f"denied by policy: {action} {resource}: {reason}")
