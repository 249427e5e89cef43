"""Attacks on the way out of a sandbox, made inside it: ``python3 -m tests.microvm.probes '{"only": ["tcpraw"]}'``.

Standard library only, and nothing of cedarbox: these files go into the guest by themselves. Each attack carries a mark
of its own, which the listeners outside look for. What is printed, one JSON object, tells of each attack what came back
(``answer``, empty when nothing did) and whether there was the proxy that it needs (``proxy``).
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.microvm.probes import outward
from tests.microvm.probes.through import HOSTILE
from tests.microvm.probes.tools import ATTACKS, PROXIED, WHERE, proxied

__all__ = ["main", "run"]

# The attacks add themselves when their module is imported.
assert outward.permitted in ATTACKS.values()


def run(attack: str, *, proxy: bool) -> dict[str, object]:
    """Make one attack; tell what came back."""
    begun = time.monotonic()
    told: dict[str, object] = {"answer": "", "error": "", "proxy": proxy or attack not in PROXIED}
    if told["proxy"]:
        try:
            told["answer"] = ATTACKS[attack]()[:300]
        except (OSError, ValueError) as error:
            told["error"] = f"{type(error).__name__}: {error}"[:200]
    return told | {"seconds": round(time.monotonic() - begun, 2)}


def main() -> None:
    """Make the attacks side by side, the one that ends the relay last, and print what came back."""
    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    WHERE.update(given.get("where", {}))
    chosen = given.get("only") or list(ATTACKS)
    proxy = proxied()
    with ThreadPoolExecutor(12) as pool:
        pending = {name: pool.submit(run, name, proxy=proxy) for name in chosen if name != HOSTILE}
        told = {name: future.result() for name, future in pending.items()}
    if HOSTILE in chosen:
        told[HOSTILE] = run(HOSTILE, proxy=proxy)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
