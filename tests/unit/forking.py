"""Forks children that can take every lock."""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path

__all__ = ["fork"]

_WAIT_S = 0.25
_native: set[int] = set()
"""Threads that are not Python's and do not end."""


def fork() -> int:
    """Fork when the threads that ended are gone; gives what `os.fork` gives.

    OpenSSL forgets a thread at its very end, when Python has let go of it already, and holds a lock for that. In a
    child that is forked at that moment the lock stays held, and the first new thread that makes a key waits for ever.
    """
    until = time.monotonic() + _WAIT_S
    while ending := _ending():
        if time.monotonic() > until:
            _native.update(ending)
            break
        time.sleep(0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn where other threads are
        return os.fork()


def _ending() -> set[int]:
    there = {int(task.name) for task in Path("/proc/self/task").iterdir()}
    return there - {thread.native_id for thread in threading.enumerate()} - _native - {os.getpid()}
