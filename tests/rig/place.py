"""Where a command that boots boxes runs: on this host if its KVM boots them, else in the rig."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rig.cache import CHECKOUT
from tests.rig.disk import machine_disk
from tests.rig.image import image_layout
from tests.rig.machine import Job, run_job
from tests.rig.probe import probe
from tests.rig.trouble import say

__all__ = ["Place", "choose"]


class Place:
    """This host or the rig, behind one way to run a Python module.

    Args:
        native: True for this host.
    """

    def __init__(self, *, native: bool) -> None:
        self.native = native
        self.layout = str(image_layout()) if native else "/oci"

    def run(
        self,
        argv: Sequence[str],
        *,
        output: Path,
        env: Mapping[str, str] | None = None,
        shares: Mapping[str, Path] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Runs ``python argv...`` in the checkout, with output and exit code passed on.

        ``{output}`` in an argument stands for the directory of that name as the command sees it.

        Args:
            argv: Arguments of the interpreter.
            output: Directory of this host in which the command may write.
            env: Additions to the environment.
            shares: Directories of this host that the command may read. Each is named to it by the environment variable
                that is its key.
            timeout: Seconds, in the rig only; None means no limit.
        """
        seen = str(output) if self.native else "/output"
        arguments = [argument.replace("{output}", seen) for argument in argv]
        places = {name: str(path) if self.native else f"/{name.lower()}" for name, path in (shares or {}).items()}
        added = {"CEDARBOX_MICROVM": "1", "CEDARBOX_TEST_LAYOUT": self.layout, **places, **(env or {})}
        if self.native:
            command = [sys.executable, *arguments]
            # Without the tools' own search path: a test must import what the tree holds, as it does in the rig.
            around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            return subprocess.run(command, cwd=CHECKOUT, env={**around, **added}, check=False).returncode
        disk, layout = machine_disk(), image_layout()
        command = ["python", *arguments]
        return run_job(
            Job(
                argv=command,
                disk=disk,
                checkout=CHECKOUT,
                env=added,
                oci=layout,
                output=output,
                shares={name.lower(): path for name, path in (shares or {}).items()},
                timeout=timeout,
            )
        )


def choose() -> Place:
    """Asks the probe and says what it chose and why."""
    answer = probe()
    say(f"boxes boot {'on this host' if answer.boots else 'in the rig'}: {answer.reason}")
    return Place(native=answer.boots)
