"""A witness: a program that is shown a checkpoint, and may answer with signatures of its own.

What it protects: when the program keeps the checkpoints elsewhere, or signs only what is consistent with what it saw
before (https://c2sp.org/tlog-witness), a ledger that was cut back or written again no longer agrees with it. A program
on the same host under the same user protects nothing against who has that user.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from base64 import b64decode
from contextlib import suppress
from typing import Final

from cedarbox.audit.anchoring import Anchored, AnchorError

__all__ = ["WitnessAnchor"]

_MOST: Final = 64 * 1024
_LINE: Final = re.compile("\N{EM DASH} ([^\\s+]{1,256}) ([A-Za-z0-9+/]+={0,2})").fullmatch
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
"""All that the program sees of the environment: the one of this process may hold tokens."""


class WitnessAnchor:
    """Runs a program with a note on its standard input. Exit code 0 means that it took the note.

    What it prints is nothing, or signature lines of a C2SP signed note, which are kept with the note in
    ``<stream>.cosigned``. The signatures are not checked here: only who has the key of the witness can do that.

    Args:
        command: The program by its absolute path, and its arguments. No shell is involved.
        every_s: Seconds between two calls for a stream.
        timeout_s: Seconds after which the program, and what it started, is killed.
    """

    kind = "witness"
    suffix = ".cosigned"

    def __init__(self, command: tuple[str, ...], *, every_s: float, timeout_s: float) -> None:
        self.every_s = every_s
        self._command, self._timeout = command, timeout_s

    def take(self, note: bytes) -> Anchored:
        """Show a note to the program.

        Raises:
            AnchorError: It cannot be run, takes too long, fails, or prints something else.
        """
        lines = _signatures(self._run(note), note)
        if not lines:
            return Anchored(b"", {"signatures": 0, "signers": []})
        content = note + "".join(f"{line}\n" for line in lines).encode() + b"\n"
        return Anchored(content, {"signatures": len(lines), "signers": [line.split(" ")[1] for line in lines]})

    def _run(self, note: bytes) -> bytes:
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise AnchorError(f"{self._command[0]} cannot be run: {error}") from None
        with process:
            try:
                output, _ = process.communicate(note, self._timeout)
            except subprocess.TimeoutExpired:
                raise AnchorError(f"{self._command[0]} did not end within {self._timeout:g} s") from None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it left running
        if process.returncode != 0:
            raise AnchorError(f"{self._command[0]} ended with code {process.returncode}")
        return output


def _signatures(output: bytes, note: bytes) -> list[str]:
    """Take signature lines only: anything else, appended to a note, could pass for another note."""
    if len(output) > _MOST:
        raise AnchorError("the witness printed too much")
    try:
        lines = output.decode().split("\n")
        known = note.decode().split("\n")
    except UnicodeDecodeError:
        raise AnchorError("the witness printed something that is not UTF-8") from None
    if lines.pop() != "":
        raise AnchorError("the last line of the witness has no end")
    for line in lines:
        found = _LINE(line)
        if found is None or not _is_signature(found[2]):
            raise AnchorError(f"the witness printed a line that is no signature: {line[:80]!a}")
    return [line for line in dict.fromkeys(lines) if line not in known]


def _is_signature(text: str) -> bool:
    try:
        return len(b64decode(text, validate=True)) > 4  # the id of a key and something
    except ValueError:
        return False
