"""The tree of snapshots as the ledger tells it, also when what it tells does not fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cedarbox.audit import Entry, Record
from cedarbox.audit.lineage import Lineage, lineage_of
from cedarbox.audit.record import GENESIS, format_time, seal
from cedarbox.cli.audit_lineage import draw_lineage
from cedarbox.errors import ConfigurationError


def told(*events: tuple[str, dict[str, Any]]) -> Lineage:
    records: list[tuple[str, Record]] = []
    for number, (event, facts) in enumerate(events):
        attrs = {name if name in {"destination", "reason"} else f"snapshot.{name}": v for name, v in facts.items()}
        entry = Entry(event=event, principal="agent", session=f"session-{number}", attrs=attrs)
        records.append(("2-aaaaaaaa", seal(entry, number, format_time(number), GENESIS)[0]))
    return lineage_of(records)


def made(name: str, parent: str = "", **facts: Any) -> tuple[str, dict[str, Any]]:
    return "snapshot.created", {"name": name, "parent": parent, **facts}


def drawn(lineage: Lineage, name: str = "", *, terminal: bool = False, width: int = 200) -> list[str]:
    console = Console(force_terminal=terminal, width=width, highlight=False, markup=False, color_system=None)
    with console.capture() as capture:
        draw_lineage(lineage, name, console, as_json=False)
    return capture.get().splitlines()


TREE = (
    made("a", sha256="1" * 64, size_bytes=10240, kind="tar", of="session-a"),
    ("snapshot.forked", {"name": "a"}),
    ("snapshot.restored", {"name": "a"}),
    made("b", "a"),
    ("snapshot.exported", {"name": "b", "destination": "/srv/out.tar"}),
    ("snapshot.refused", {"name": "b", "reason": "it was changed"}),
    ("snapshot.deleted", {"name": "b"}),
    made("c", "b"),
    made("z"),
)


def test_a_tree_is_drawn_with_all_that_happened() -> None:
    lines = drawn(told(*TREE))
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 2, 2, 4, 4, 4, 4, 0]
    words = [line.split()[0] for line in lines]
    assert words == ["a", "forked", "restored", "b", "exported", "REFUSED", "deleted", "c", "z"]
    assert "DELETED, REFUSED" in lines[3]
    assert "/srv/out.tar" in lines[4]
    assert "it was changed" in lines[5]
    boxed = drawn(told(*TREE), terminal=True, width=80)
    assert any("└── " in line for line in boxed)
    assert max(map(len, boxed)) <= 80


def test_one_snapshot_brings_the_tree_that_it_is_in() -> None:
    lineage = told(*TREE)
    words = [line.split()[0] for line in drawn(lineage, "c")]
    assert words[0] == "a"
    assert "z" not in words
    assert any(line.split()[:2] == ["a", "<"] for line in drawn(lineage, "11111"))
    with pytest.raises(ConfigurationError, match="no snapshot nope"):
        drawn(lineage, "nope")


def test_json_has_nodes_and_edges(capsys: pytest.CaptureFixture[str]) -> None:
    draw_lineage(told(*TREE), "b", Console(), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [node["name"] for node in found["nodes"]] == ["a", "b", "c"]
    saves = [(edge["source"], edge["target"]) for edge in found["edges"] if edge["event"] == "saved"]
    assert saves == [("", "a"), ("a", "b"), ("b", "c")]
    assert found["nodes"][1]["deleted"] is True


def test_a_parent_that_nothing_made_is_shown_as_such() -> None:
    lines = drawn(told(made("b", "gone")))
    assert lines[0].startswith("gone  no record of its making")
    assert lines[1].startswith("  b")


@pytest.mark.parametrize("chain", [("a",), ("a", "b"), ("a", "b", "c")])
def test_a_chain_that_goes_round_is_drawn_once(chain: tuple[str, ...]) -> None:
    links = [made(name, chain[number - 1]) for number, name in enumerate(chain)]
    lines = drawn(told(*links))
    assert len(lines) == len(chain) + 1
    assert "see above" in lines[-1]
    assert drawn(told(*links), chain[-1])


def test_a_save_that_is_told_twice_otherwise_is_doubtful() -> None:
    lineage = told(made("a"), made("x"), made("b", "a", sha256="1" * 64), made("b", "x", sha256="2" * 64))
    (line, _) = (line for line in drawn(lineage) if line.strip().startswith("b"))
    assert "DOUBTFUL" in line
    assert lineage.nodes["b"].doubts[0].startswith("its sha256 is told to be")
    # Told twice alike, it is one save.
    assert len(told(made("a"), made("a")).edges) == 1


def test_a_long_chain_and_strange_values() -> None:
    links = [made(str(number), str(number - 1) if number else "") for number in range(300)]
    assert len(drawn(told(*links))) == 300
    assert drawn(told(*links), terminal=True)
    strange = told(made("a"), ("snapshot.created", {"name": {"x": 1}, "id": ["y"]}), ("snapshot.restored", {}))
    assert list(strange.nodes) == ["a"]
    assert "\x1b" not in "".join(drawn(told(made("a\x1b[31m"))))


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert drawn(told()) == ["the ledger tells of no snapshots"]
