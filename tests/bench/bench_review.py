"""What a review of a bundle takes: whole commands, from the start of the program to its end.

Run it: python -m tests.bench.bench_review [--runs N] [SIZE …]     (22, 200 and 1000 when none is given)
The 22 policies are a bundle that ships; the others are made. Each command runs N times in turns with a program
that only lets cedarpy parse and validate the same text, so that the load of the machine shows. Wall and processor time
(children included) are medians; the ratio is that of the processor times. Modules are compiled before, as they are in
an installation.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.review_bundle import changed, write_large

import cedarbox

_SHIPPED = Path("policies/internal-mirror")
_RAW = """\
import sys, cedarpy
text = "\\n".join(open(name).read() for name in sys.argv[2:])
cedarpy.PolicySet.from_str(text)
assert cedarpy.validate_policies(text, open(sys.argv[1]).read()).validation_passed
"""
_CEDARBOX = "-m", "cedarbox", "policy"


def _once(environment: dict[str, str], arguments: list[str]) -> tuple[float, float, int, str]:
    before, started = os.times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        env=environment,
    )
    wall, after = time.monotonic() - started, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return wall, spent, done.returncode, said[-1] if said else ""


def _prepared(root: Path, count: int) -> tuple[Path, list[tuple[str, list[str]]]]:
    if count == 22:
        base = root / "base"
        shutil.copytree(_SHIPPED, base)
        edits = (
            ("context.memoryMib <= 8192", "context.memoryMib <= 8193"),
            ("context.copies <= 8", "context.copies <= 7"),
        )
    else:
        base = write_large(root / "base", count)
        edits = ('"*.l2.example"', '"*l2.example"'), ("context.copies <= 8", "context.copies <= 7")
    same = changed(base, root / "same", "permit (", "// Moved.\npermit (")
    wider = changed(base, root / "wider", *edits[0])
    narrower = changed(base, root / "narrower", *edits[1])
    commands = [
        ("check", ["check", str(base)]),
        ("fmt --check", ["fmt", "--check", str(base)]),
        ("lint", ["lint", str(base)]),
        ("lint --no-prover", ["lint", "--no-prover", str(base)]),
        ("test", ["test", str(base)]),
        ("test --no-mutate", ["test", "--no-mutate", str(base)]),
        ("diff, a comment", ["diff", str(base), str(same)]),
        ("diff, widened", ["diff", str(base), str(wider)]),
        ("diff, narrowed", ["diff", str(base), str(narrower)]),
        ("prove", ["prove", str(base)]),
    ]
    return base, commands


def measured(root: Path, count: int, runs: int, environment: dict[str, str]) -> None:
    """Print the figures of a bundle with ``count`` policies."""
    base, commands = _prepared(root, count)
    schema = Path(cedarbox.__file__).with_name("policy") / "schema.cedarschema"
    raw = ["-c", _RAW, str(schema), *map(str, sorted(base.glob("*.cedar")))]
    print(f"{count} policies; load {os.getloadavg()[0]:.2f}", flush=True)
    # The modules are compiled here, and files come into the cache of the disk.
    _once(environment, raw)
    for name, arguments in commands:
        whole = [*_CEDARBOX, *arguments]
        _once(environment, whole)
        pairs = [(_once(environment, whole), _once(environment, raw)) for _ in range(runs)]
        wall, cpu, below = (
            statistics.median(values)
            for values in ([a[0] for a, _ in pairs], [a[1] for a, _ in pairs], [b[1] for _, b in pairs])
        )
        _, _, code, said = pairs[-1][0]
        print(
            f"  {name:17} {wall:7.2f} s wall  {cpu:7.2f} s CPU  {cpu / below:6.1f} times cedarpy's {below:.2f} s"
            f"  exit {code}  {said[:70]}",
            flush=True,
        )
    print(f"  load {os.getloadavg()[0]:.2f}", flush=True)


def main() -> None:
    """Measure each command for each number of policies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[22, 200, 1000])
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        environment = os.environ | {"PYTHONPYCACHEPREFIX": str(root / "compiled")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for count in given.sizes:
            (root / str(count)).mkdir()
            measured(root / str(count), count, given.runs, environment)


if __name__ == "__main__":
    main()
