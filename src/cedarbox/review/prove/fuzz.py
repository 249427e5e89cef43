"""Hold the encoder against Cedar: ``python -m cedarbox.review.prove.fuzz --cases N --seed S``.

Random policies decide random requests twice, by Cedar and by the formulas; half of them under a schema in which all
that is hard to encode meets, half of them requests that the builders of cedarbox made, of which every fact that is told
to the prover is checked, too. With ``--pairs`` random changes are put to the solvers as well, with
``--bundle-pairs`` small changes of bundles, half of them also without the steps that make a formula smaller. The exit
status is 1 when anything disagrees.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cedarbox.policy.schema import schema_text
from cedarbox.review.prove.fuzzing.bundle_pairs import run_bundle_pairs
from cedarbox.review.prove.fuzzing.pairs import run_pairs
from cedarbox.review.prove.fuzzing.runs import run_bundle, run_free
from cedarbox.review.prove.fuzzing.schemas import NASTY
from cedarbox.review.prove.solvers import installed
from cedarbox.review.syntax import schema_json

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it.

    Args:
        arguments: The command line without the name of the program; None for that of this process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m cedarbox.review.prove.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="requests that are decided twice")
    parser.add_argument("--pairs", type=int, default=0, help="random changes that are put to the solvers")
    parser.add_argument("--bundle-pairs", type=int, default=0, help="small changes of bundles that are put to them")
    parser.add_argument("--bundles", type=Path, default=Path("policies"), help="directory of those bundles")
    parser.add_argument("--seed", type=int, default=0, help="of the randomness")
    given = parser.parse_args(arguments)
    nasty = schema_json(NASTY)
    wrong: list[str] = []
    half = (given.cases + 1) // 2
    for name, run, schema in (("any schema", run_free, NASTY), ("bundles", run_bundle, schema_text())):
        begun = time.monotonic()
        tally = run(schema, schema_json(schema), half, given.seed)
        _say(f"{name}: {tally}; {time.monotonic() - begun:.1f} s")
        wrong += tally.unlike
    if given.pairs:
        begun = time.monotonic()
        pairs = run_pairs(NASTY, nasty, given.pairs, given.seed, solvers=installed())
        _say(f"changes: {pairs}; {time.monotonic() - begun:.1f} s")
        for why, count in pairs.why.most_common():
            _say(f"  undecided {count} times: {why}")
        wrong += pairs.wrong
    if given.bundle_pairs:
        begun = time.monotonic()
        bundles = sorted(path.parent for path in given.bundles.glob("*/bundle.toml"))
        if not bundles:
            parser.error(f"no bundles in {given.bundles}; name a directory of bundles with --bundles")
        found = run_bundle_pairs(bundles, given.bundle_pairs, given.seed, solvers=installed())
        _say(f"bundles: {found}; {time.monotonic() - begun:.1f} s")
        wrong += found.wrong
    for each in wrong[:10]:
        _say(each)
    return 1 if wrong else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
