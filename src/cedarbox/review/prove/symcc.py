"""Cedar's own symbolic compiler as a cross-check, where a ``cedar`` program with it is installed.

It is ``cedar symcc implies`` of ``cedar-policy-cli``, built with its feature ``analyze``; it needs a ``cvc5`` program.
Arguments and answers are those of version 4.12. It exits with status 0 whatever it finds, so its text decides.

It speaks of plain Cedar: a policy that fails is skipped, entities are free. What it says of a bundle is about that, not
about what cedarbox enforces. It leaves templates out; here links are filled in before.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cedarbox.review.prove.goals import Environment, Side

__all__ = ["CrossCheck", "implies"]

_PROPERTY: Final = "Policy set 1 implies policy set 2"
_OPEN: Final = "solver returned `unknown`"


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """What it said.

    Attributes:
        verdict: ``verified``, ``refuted``, ``undecided`` when it found neither, or ``unknown`` when it could not
            be asked.
        text: What it printed, or why it could not be asked; one line.
    """

    verdict: Literal["verified", "refuted", "undecided", "unknown"]
    text: str


def implies(
    cedar: Path, schema_text: str, environment: Environment, sides: tuple[Side, Side], *, limit_s: float = 120.0
) -> CrossCheck:
    """Ask whether whatever one side allows, another does too.

    Args:
        cedar: The program.
        schema_text: The schema, in Cedar's own syntax.
        environment: The kind of request.
        sides: The side that may be narrower, and the other.
        limit_s: After how many seconds the program is ended.
    """
    with tempfile.TemporaryDirectory(prefix="cedarbox-symcc-") as name:
        directory = Path(name)
        schema = directory / "schema.cedarschema"
        schema.write_text(schema_text, "utf-8")
        command = [str(cedar), "symcc", "--principal-type", environment.principal_type, "--action", environment.action]
        command += ["--resource-type", environment.resource_type, "--schema", str(schema), "--schema-format", "cedar"]
        command.append("implies")
        for number, side in enumerate(sides, start=1):
            file = directory / f"policies{number}.json"
            file.write_text(json.dumps(_document(side.slot_policies)), "utf-8")
            command += [f"--policies{number}", str(file), f"--policies{number}-format", "json"]
        try:
            status, out, err = _run(command, limit_s)
        except subprocess.TimeoutExpired:
            return CrossCheck("undecided", f"it was ended after {limit_s:g} s")
        except OSError as error:
            return CrossCheck("unknown", f"it cannot be run ({error.strerror})")
    return _read(status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _run(command: Sequence[str], limit_s: float) -> tuple[int, bytes, bytes]:
    # In a group of its own: it starts a solver, which would go on when it alone is ended.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=limit_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, out, err


def _document(policies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"staticPolicies": dict(policies), "templates": {}, "templateLinks": []}


def _read(status: int, out: str, err: str) -> CrossCheck:
    text = " ".join(out.split())
    lines = [line.strip() for line in out.splitlines()]
    verified = any(line.endswith(f"{_PROPERTY}: VERIFIED") for line in lines)
    refuted = any(line.endswith(f"{_PROPERTY}: DOES NOT HOLD") for line in lines)
    if status != 0 and _OPEN in err:
        return CrossCheck("undecided", "its solver found no answer")
    if status != 0 or verified == refuted:
        return CrossCheck("unknown", (" ".join(err.split()) or text or f"exit status {status}")[:500])
    return CrossCheck("verified" if verified else "refuted", text)
