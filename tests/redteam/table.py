"""The table of attacks, from the tests that carry them out.

Run it: python -m tests.redteam.table > compliance/RED-TEAM.md
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Attack", "attacks", "rendered"]

_HERE = Path(__file__).parent
_HEAD = """\
# Attacks

Each line is a test in `tests/redteam`, which `make test` runs: what is tried, and what happens. Where a denial can be
on record, the test reads it in the ledger. Many tests try one attack in several ways; tests are counted, not ways.
What is not covered stands in `NOT-COVERED.md`. This file is written by `python -m tests.redteam.table`, and a test
fails when it is not up to date.
"""


@dataclass(frozen=True, slots=True)
class Attack:
    """One test.

    Attributes:
        name: Its name, as words.
        told: What its docstring says.
    """

    name: str
    told: str


def attacks() -> Iterator[tuple[str, str, list[Attack]]]:
    """Yield each module with attacks: its file, what it says of itself, and its attacks in order.

    Raises:
        ValueError: A test has no docstring.
    """
    for path in sorted(_HERE.glob("test_*.py")):
        module = ast.parse(path.read_text("utf-8"))
        found = []
        for node in module.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                told = ast.get_docstring(node)
                if not told:
                    raise ValueError(f"{path.name}: {node.name} does not say what is tried and what happens")
                found.append(Attack(node.name.removeprefix("test_").replace("_", " "), _line(told)))
        yield path.name, _line((ast.get_docstring(module) or "").partition("\n\n")[0]), found


def rendered() -> str:
    """Return the table as Markdown."""
    modules = list(attacks())
    lines = [_HEAD, f"{sum(len(found) for _, _, found in modules)} tests in {len(modules)} files.\n"]
    for name, about, found in modules:
        lines += [f"## {name}\n", f"{about}\n", "| attack | what is tried, what happens |", "|---|---|"]
        lines += [f"| {attack.name} | {attack.told} |" for attack in found]
        lines.append("")
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    print(rendered(), end="")
