"""A baseline: the findings of a day, so that a bundle can be linted from now on without correcting all of it first.

A baseline holds fingerprints, not lines. Each of its entries takes one finding away, no more, so a second finding of
the same kind is told. Entries that take nothing away any more are told as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.files import open_regular, write_file
from cedarbox.review.finding import Finding

__all__ = ["Baseline", "Known", "baseline_of", "read_baseline", "write_baseline"]

_FORMAT: Final = "cedarbox lint baseline 1"
_MAX_FILE: Final = 16 * 1024 * 1024
_HINT: Final = "write one with --write-baseline"
_KEYS: Final = ("fingerprint", "rule", "file", "policy", "message")


@dataclass(frozen=True, slots=True)
class Known:
    """A finding of that day.

    Attributes:
        fingerprint: Of the finding.
        rule: Its rule.
        file: Its file.
        policy: Its policy.
        message: Its message.
    """

    fingerprint: str
    rule: str
    file: str
    policy: str
    message: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline.

    Attributes:
        path: Where it was read.
        known: Its entries.
    """

    path: Path
    known: tuple[Known, ...] = ()

    def split(self, findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding], list[Known]]:
        """Return the findings that are new, those that are known, and the entries that match none."""
        left = Counter(entry.fingerprint for entry in self.known)
        new, old = [], []
        for finding in findings:
            if left[finding.fingerprint] > 0:
                left[finding.fingerprint] -= 1
                old.append(finding)
            else:
                new.append(finding)
        stale = []
        for entry in self.known:
            if left[entry.fingerprint] > 0:
                left[entry.fingerprint] -= 1
                stale.append(entry)
        return new, old, stale


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        BundleError: It cannot be read, or is none.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise BundleError(f"larger than {_MAX_FILE} bytes", path=path, hint="correct some findings first")
    except FileNotFoundError:
        raise BundleError("no such baseline", path=path, hint=_HINT) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "a path with a NUL"
        raise BundleError(f"cannot read it ({why})", path=path, hint="check its owner and mode") from None
    return baseline_of(path, data)


def baseline_of(path: Path, data: bytes) -> Baseline:
    """Return the baseline that the content of a file is.

    Args:
        path: What to call the file.
        data: Its content.

    Raises:
        BundleError: It is none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise BundleError("not a baseline: it is not JSON", path=path, hint=_HINT) from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise BundleError("not a baseline of this version", path=path, hint=_HINT)
    entries = document.get("findings")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in _KEYS) for entry in entries
    ):
        raise BundleError("a baseline with findings that cannot be read", path=path, hint=_HINT)
    return Baseline(path, tuple(Known(**{key: entry[key] for key in _KEYS}) for entry in entries))


def write_baseline(path: Path, findings: Sequence[Finding]) -> None:
    """Write the findings of today. What is there is replaced in one step.

    Raises:
        BundleError: It cannot be written.
    """
    entries = [
        {
            "fingerprint": finding.fingerprint,
            "rule": finding.rule,
            "file": finding.place.file if finding.place else "",
            "policy": finding.policy,
            "message": finding.message,
        }
        for finding in findings
    ]
    document = {"format": _FORMAT, "findings": entries}
    try:
        write_file(path, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n", 0o644)
    except (OSError, ValueError) as error:
        shown = getattr(error, "strerror", None) or str(error)
        raise BundleError(f"cannot write it ({shown})", path=path, hint="check the path and its directory") from None
