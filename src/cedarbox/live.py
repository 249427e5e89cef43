"""Policies that change while sandboxes run: loaded, checked whole and swapped, or left as they are."""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from cedarbox.audit import Entry
from cedarbox.errors import BundleError, CedarboxError, ConfigurationError
from cedarbox.guard import Gate
from cedarbox.guard.change import Change, change_policies
from cedarbox.policy import PolicyBundle, PolicyEngine

__all__ = ["LivePolicies"]

_JOIN_SECONDS: Final = 60.0

_logger = logging.getLogger(__name__)


class LivePolicies:
    """Brings a bundle into force again and again.

    A bundle that cannot be loaded, verified or validated changes nothing: what is in force stays in force, and
    ``policy.rejected`` is recorded with the reason.

    Args:
        gate: Where the policies are in force.
        path: The directory of the bundle, which is watched.
        load: Loads and checks it.
    """

    def __init__(self, gate: Gate, path: Path, load: Callable[[], PolicyBundle]) -> None:
        self._gate, self._path, self._load = gate, path, load
        self._one_at_a_time = threading.Lock()
        self._wanted, self._over = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._former: Any = None

    def reload(self) -> Change:
        """Load the bundle and put it in force; end what it denies. Blocks until that has ended.

        Returns:
            What changed; nothing when the bundle is the one that is in force.

        Raises:
            BundleError: It cannot be used. The policies in force stay in force.
            LedgerError: The change cannot be recorded, so it did not happen.
        """
        with self._one_at_a_time:
            try:
                bundle = self._load()
                if bundle == (current := self._gate.engine.bundle):
                    return Change(current.digest, current.digest, 0, ())
                engine = PolicyEngine(bundle)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                # A panic in the engine derives from BaseException, not Exception.
                known = error if isinstance(error, CedarboxError) else None
                reason = str(known) if known else f"{type(error).__name__}: {error}"
                self._rejected(reason)
                if known is not None:
                    raise
                raise BundleError(f"cannot be used ({reason})", path=self._path) from error
            return change_policies(self._gate, engine)

    def start(self, *, watch_s: float | None, sighup: bool) -> None:
        """Reload by itself from now on.

        Args:
            watch_s: Seconds between two looks at the directory; None does not look. A change is taken up when two
                looks in a row see the same.
            sighup: On SIGHUP.

        Raises:
            ConfigurationError: SIGHUP is asked for outside the main thread, where Python cannot handle signals.
        """
        if sighup:
            try:
                self._former = signal.signal(signal.SIGHUP, self._on_signal)
            except ValueError:
                hint = "make the client in the main thread, or set policy.sighup = false"
                raise ConfigurationError("policy.sighup needs the main thread", hint=hint) from None
        if sighup or watch_s is not None:
            # What stands there now is taken for what was loaded; had it changed since, the digests would differ.
            self._wanted.set()
            self._thread = threading.Thread(target=self._run, args=(watch_s,), name="cedarbox-policies", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop reloading, and give SIGHUP back. Doing it twice changes nothing."""
        self._over = True
        self._wanted.set()
        if self._former is not None and signal.getsignal(signal.SIGHUP) == self._on_signal:
            # In another thread than the main one it stays; a signal then finds nothing to do.
            with suppress(ValueError):
                signal.signal(signal.SIGHUP, self._former)
        if (thread := self._thread) is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._wanted.set()

    def _run(self, watch_s: float | None) -> None:
        taken, last = None, _look(self._path)
        while True:
            asked = self._wanted.wait(watch_s)
            self._wanted.clear()
            if self._over:
                return
            now = _look(self._path)
            settled, last = now == last, now
            if asked or (settled and now != taken):
                taken = now
                try:
                    self.reload()
                except CedarboxError as error:
                    # It is on record, or nothing can be; either way the last good policies stay.
                    _logger.warning("the policies in force stay: %s", error)
                except Exception:
                    # Whatever it was, the next change must be seen.
                    _logger.exception("the policies could not be changed")

    def _rejected(self, reason: str) -> None:
        entry = Entry(
            event="policy.rejected",
            principal=self._gate.principal,
            bundle=self._gate.engine.bundle.digest,
            errors=(" ".join(reason.encode("utf-8", "backslashreplace").decode().split()),),
        )
        self._gate.ledger.append(entry)


def _look(path: Path) -> object:
    """Return what tells one state of a bundle's directory from another, without reading its files."""
    try:
        directory = path.stat()
        seen = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(path)]
    except OSError as error:
        return error.errno
    files = sorted(
        (name, found.st_ino, found.st_size, found.st_mtime_ns, stat.S_IFMT(found.st_mode)) for name, found in seen
    )
    return directory.st_ino, directory.st_dev, files
