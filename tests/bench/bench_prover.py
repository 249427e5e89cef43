"""Measure the proof that a change of a bundle never widens it, by the number of its policies.

Usage: python tests/bench/bench_prover.py [--sizes 10,100,1000] [--limit SECONDS]

Each bundle has permits of one style for one action; the change is none, another order, one policy more, one less, one
condition edited. For each: the verdict, the milliseconds in all, those of this process's processor, and those that
the solver took, its start included.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from time import perf_counter, process_time

import cedarpy
from tests.unit.bundles import agents

from cedarbox.policy.schema import schema_text
from cedarbox.review.prove import Allows, And, Not, Prover, Side, environments
from cedarbox.review.syntax import schema_json

_HEAD = 'permit (principal in Sandbox::AgentGroup::"agents", action == Sandbox::Action::"connect", resource'
STYLES: dict[str, Callable[[int], str]] = {
    "exact hosts": lambda i: f'{_HEAD} == Sandbox::Host::"h{i}.example.com") when {{ context.port == 443 }};',
    "domains": lambda i: f'{_HEAD} in Sandbox::Domain::"d{i}.example.com") when {{ context.port == 443 }};',
    "like": lambda i: (
        f'{_HEAD} is Sandbox::Host) when {{ resource.fqdn like "*.d{i}.example.com" && context.port == 443 }};'
    ),
    "CIDRs": lambda i: (
        f"{_HEAD} is Sandbox::Host) when {{ context has ip && "
        f'context.ip.isInRange(ip("10.{i % 250}.{i // 250}.0/24")) && context.port == 443 }};'
    ),
}


def side(policies: list[str]) -> Side:
    """Return the side of a bundle with these policies."""
    ests = json.loads(cedarpy.policies_to_json_str("\n".join(policies)))["staticPolicies"]
    return Side(ests, json.loads(agents("agent")), deny_on_error=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10,100,1000")
    parser.add_argument("--limit", type=float, default=20.0)
    given = parser.parse_args()
    (environment,) = (
        each
        for each in environments(schema_json(schema_text()))
        if each.action_id == "connect" and each.resource_type.endswith("::Host")
    )
    goal = And(Allows("new"), Not(Allows("old")))
    with Prover(schema_text(), time_limit_s=given.limit) as prover:
        # The first query starts the solver.
        prover.search(Allows("it"), environment, {"it": side([f"{_HEAD}) when {{ context.port > 1 }};"])})
        for style, make in STYLES.items():
            for size in map(int, given.sizes.split(",")):
                old = [make(number) for number in range(size)]
                edited = [*old[:-1], old[-1].replace("443", "80")]
                changes = {"none": old, "order": old[::-1], "+1": [*old, make(size)], "-1": old[:-1], "edited": edited}
                for change, new in changes.items():
                    sides = {"old": side(old), "new": side(new)}
                    wall, cpu = perf_counter(), process_time()
                    answer = prover.search(goal, environment, sides)
                    wall, cpu = perf_counter() - wall, process_time() - cpu
                    print(
                        f"{style:12} {size:5} {change:7} {answer.verdict:10} {wall * 1e3:7.0f} ms"
                        f"  here {cpu * 1e3:6.0f} ms  solver {answer.solver_seconds * 1e3:6.0f} ms  {answer.solver}"
                    )


if __name__ == "__main__":
    main()
