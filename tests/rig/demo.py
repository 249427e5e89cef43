"""What ``make demo`` runs: the demonstration where boxes boot, then the auditor's check on this host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rig.cache import CHECKOUT
from tests.rig.place import choose
from tests.rig.trouble import RigError, run_program, say

__all__ = ["main"]

_RECORDS = CHECKOUT / ".cedarbox" / "demo"
_LIMIT_SECONDS = 1800

# The records are written on the machine's own disk, because SQLite and fsync want a real file system, and copied out
# whatever the demonstration's exit code is: a failed run is audited too.
_IN_RIG = """
import pathlib, shutil, subprocess, sys
records = pathlib.Path("/root/records")
code = subprocess.run([*sys.argv[2:], "--directory", str(records)]).returncode
if records.is_dir():
    shutil.copytree(records, sys.argv[1], symlinks=True)
sys.exit(code)
"""


def main() -> int:
    """Runs the demonstration with the arguments given, and verifies its ledger."""
    place = choose()
    demo = ["-m", "cedarbox", "demo", *sys.argv[1:], "--rootfs", place.layout]
    shutil.rmtree(_RECORDS, ignore_errors=True)
    _RECORDS.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=_RECORDS.parent) as directory:
        output = Path(directory)
        if place.native:
            code = place.run([*demo, "--directory", "{output}/records"], output=output)
        else:
            arguments = ["-c", _IN_RIG, "{output}/records", "/opt/venv/bin/python", *demo]
            code = place.run(arguments, output=output, timeout=_LIMIT_SECONDS)
        if not (output / "records").is_dir():
            raise RigError(f"the demonstration ended with exit code {code} and left no records", code=code or 1)
        (output / "records").rename(_RECORDS)
    ledger = _RECORDS / "ledger"
    say(f"an auditor who was not there: cedarbox audit verify {ledger.relative_to(CHECKOUT)}")
    command = [sys.executable, "-m", "cedarbox", "audit", "verify", str(ledger.relative_to(CHECKOUT))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    verified = subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode
    say("an auditor who trusts no code of ours but one file: cedarbox audit verifier > verify.py")
    verified = _alone(ledger, environment) or verified
    result = "passed" if code == 0 and verified == 0 else "FAILED"
    say(f"demo {result}: demonstration exit code {code}, audit exit code {verified}; records in .cedarbox/demo")
    say("look at it: cd .cedarbox/demo; ../../.venv/bin/cedarbox collector serve --directory collector --ledger ledger")
    return code or verified


def _alone(ledger: Path, environment: dict[str, str]) -> int:
    """Verifies the ledger with the stand-alone verifier, in an interpreter that sees no installed package."""
    with tempfile.TemporaryDirectory() as directory:
        verifier = Path(directory) / "verify.py"
        made = [sys.executable, "-m", "cedarbox", "audit", "verifier", "--output", str(verifier)]
        subprocess.run(made, cwd=CHECKOUT, env=environment, check=True)
        key = ["--public-key", str(ledger.with_suffix(".pub"))]
        alone = [sys.executable, "-I", "-S", str(verifier), "ledger", str(ledger), *key]
        return subprocess.run(alone, cwd=CHECKOUT, env=environment, check=False).returncode


if __name__ == "__main__":
    run_program(main)
