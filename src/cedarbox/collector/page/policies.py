"""The texts of policies, shown only where they are exactly those of the bundle that decided."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle
from cedarbox.policy.reading import read_bundle, utf8_text
from cedarbox.policy.source import statements

__all__ = ["BundleTexts", "PolicyText", "PolicyTexts"]

_AGAIN_SECONDS: Final = 5.0
"""A bundle is read again when a digest is not known, and not more often than this."""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One policy.

    Attributes:
        text: From its first token to the semicolon; tabs are blanks.
        effect: ``permit`` or ``forbid``.
        file: Where it stands in the bundle.
        line: 1-based line of its first token.
    """

    text: str
    effect: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class BundleTexts:
    """The policies of one bundle, by id."""

    name: str
    revision: int
    policies: Mapping[str, PolicyText]


class PolicyTexts:
    """The bundles that the collector was given. A bundle that is replaced is read again; the old texts stay known.

    Args:
        directories: Directories of bundles.

    Raises:
        BundleError: One cannot be used.
    """

    def __init__(self, directories: Sequence[Path] = ()) -> None:
        self._directories = tuple(directories)
        self._lock = threading.Lock()
        self._known: dict[str, BundleTexts] = dict(_read(path) for path in self._directories)
        self._read_at = monotonic()

    def of(self, digest: str | None) -> BundleTexts | None:
        """Return the texts of the bundle with a digest; None when they are not at hand."""
        if not digest or not self._directories:
            return None
        with self._lock:
            if digest not in self._known and monotonic() - self._read_at >= _AGAIN_SECONDS:
                self._read_at = monotonic()
                for path in self._directories:
                    try:
                        found, texts = _read(path)
                    except BundleError:
                        continue
                    self._known[found] = texts
            return self._known.get(digest)


def _read(path: Path) -> tuple[str, BundleTexts]:
    """Read a bundle, and its files for their texts.

    Raises:
        BundleError: It cannot be used, or was replaced in between.
    """
    bundle = PolicyBundle.load(path)
    files = read_bundle(path, with_signature=False).deciding
    if {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} != bundle.files:
        raise BundleError("it was changed while it was read", path=path, hint="start again")
    policies: dict[str, PolicyText] = {}
    for name, data in files.items():
        if name.endswith(".cedar"):
            own = [policy for policy in bundle.policies if policy.file == name]
            for policy, statement in zip(own, statements(utf8_text(path / name, data)), strict=True):
                text = statement.text.expandtabs(2)
                policies[policy.id] = PolicyText(text, policy.effect, policy.file, policy.line)
    return bundle.digest, BundleTexts(bundle.name, bundle.revision, policies)
