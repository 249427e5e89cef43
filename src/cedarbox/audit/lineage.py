"""Where snapshots come from and what became of them, as the ledger tells it.

A snapshot is a node, and so is each sandbox that was started from one and each file that one was written to. The
records are taken at their word: what does not fit together (a parent that nothing made, a save that was made twice, a
chain that goes round) is shown as what it is, and is no reason to show less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cedarbox.audit.record import Record

__all__ = ["EVENTS", "Edge", "Lineage", "Node", "Row", "lineage_of"]

EVENTS: Final = ("snapshot.*",)
"""Patterns of the events that lineage is made of."""

_FACTS: Final = ("id", "type", "kind", "sha256", "size_bytes", "image_digest", "bundle", "of")
_MAX_DEPTH: Final = 24
"""Deepest level that is drawn; what is deeper is drawn at this one."""


@dataclass(slots=True)
class Node:
    """A snapshot.

    Attributes:
        name: Its name, unique; of a save of which nothing was written down, the id of the snapshot.
        made: A record tells of its making. When none does it was made elsewhere, or the record is gone.
        deleted: A record tells of its removal.
        refused: How often it was not restored although it was asked for.
        facts: What the records tell of it.
        doubts: What does not fit together, in words.
    """

    name: str
    made: bool = False
    deleted: bool = False
    refused: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Edge:
    """Something that happened to a snapshot.

    Attributes:
        event: ``saved``, ``restored``, ``forked``, ``exported``, ``deleted`` or ``refused``.
        source: Name of the snapshot.
        target: Of ``saved`` the name of the snapshot that was made later; of others a sandbox or a file; else empty.
        stream: Stream of the record.
        seq: Its number.
        time: Its time.
        by: Who asked: principal, tool and call, as far as they are known.
        note: Why, of a refusal.
    """

    event: str
    source: str
    target: str
    stream: str
    seq: int
    time: str
    by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the drawing.

    Attributes:
        depth: Its level, from 0.
        node: The snapshot that the line is; None for a line about something that happened to one.
        edge: What happened; of a snapshot, how it was made; None when no record tells.
        again: The snapshot stands above already, so what is below it is not drawn again: its chain goes round, or it
            has several parents.
    """

    depth: int
    node: Node | None
    edge: Edge | None
    again: bool = False


@dataclass(slots=True)
class Lineage:
    """All snapshots that the records tell of.

    Attributes:
        nodes: By name, in the order in which they were first told of.
        edges: In the order of the records.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    def find(self, text: str) -> Node | None:
        """Return the one snapshot with this name, or whose name, id, session or digest begins so."""
        if text in self.nodes:
            return self.nodes[text]
        found = [
            node
            for node in self.nodes.values()
            if any(
                str(value).startswith(text)
                for value in (node.name, *map(node.facts.get, ("id", "of", "sha256")))
                if value
            )
        ]
        # Of several saves of one session, the last is meant.
        same = {node.facts.get("of") for node in found}
        return found[-1] if found and (len(found) == 1 or (len(same) == 1 and None not in same)) else None

    def rows(self, only: Node | None = None) -> Iterator[Row]:
        """Yield the drawing line by line.

        Args:
            only: Draw the tree that this snapshot is in; None draws all.
        """
        below: dict[str, list[Edge]] = {}
        made: dict[str, Edge] = {}
        for edge in self.edges:
            below.setdefault(edge.source, []).append(edge)
            if edge.event == "saved":
                made.setdefault(edge.target, edge)
        drawn: set[str] = set()
        roots = [name for name in self.nodes if name not in made or not made[name].source]
        for name in [self._root(only, made)] if only else [*roots, *self.nodes]:
            # What no root leads to goes round; it is drawn from where it was first told of.
            if name in drawn:
                continue
            stack = [Row(0, self.nodes[name], made.get(name))]
            while stack:
                row = stack.pop()
                if row.node is None:
                    yield row
                    continue
                again = row.node.name in drawn
                yield Row(row.depth, row.node, row.edge, again)
                if again:
                    continue
                drawn.add(row.node.name)
                depth = min(row.depth + 1, _MAX_DEPTH)
                stack += [
                    Row(depth, self.nodes[edge.target] if edge.event == "saved" else None, edge)
                    for edge in reversed(below.get(row.node.name, []))
                ]

    def as_json(self, only: Node | None = None) -> dict[str, Any]:
        """Return nodes and edges as plain values; of one tree when ``only`` is given."""
        shown = {row.node.name for row in self.rows(only) if row.node is not None}
        return {
            "nodes": [asdict(node) for node in self.nodes.values() if node.name in shown],
            "edges": [asdict(edge) for edge in self.edges if edge.source in shown or edge.target in shown],
        }

    def _root(self, node: Node, made: Mapping[str, Edge]) -> str:
        name, seen = node.name, {node.name}
        while (edge := made.get(name)) is not None and edge.source and edge.source not in seen:
            name = edge.source
            seen.add(name)
        return name


def lineage_of(records: Iterable[tuple[str, Record]]) -> Lineage:
    """Put together what records tell of snapshots.

    Args:
        records: Streams and records in the order of time; those of other events are left out.
    """
    found = Lineage()
    for stream, record in records:
        if record.entry.event.startswith("snapshot."):
            _add(found, stream, record)
    return found


def _add(found: Lineage, stream: str, record: Record) -> None:
    entry, attrs = record.entry, record.entry.attrs
    name = _text(attrs, "snapshot.name", "snapshot.native.id", "native.id", "snapshot.from", "snapshot.id")
    if not name:
        return
    event = entry.event.removeprefix("snapshot.")
    node = found.nodes.setdefault(name, Node(name))
    facts = {key: value for key in _FACTS if (value := _plain(attrs.get(f"snapshot.{key}"))) is not None}
    _compare(node, facts, event)
    by = " ".join(filter(None, (entry.principal, entry.tool, entry.call_id)))
    place = {"stream": stream, "seq": record.seq, "time": record.time, "by": by}
    if event == "created":
        parent = _text(attrs, "snapshot.parent", "snapshot.native.parent", "native.parent")
        saved = Edge("saved", parent, name, **place)  # type: ignore[arg-type]  # the names above
        earlier = [edge for edge in found.edges if edge.event == "saved" and edge.target == name] if node.made else []
        node.made = True
        if parent:
            found.nodes.setdefault(parent, Node(parent))
        if any(edge.source == parent for edge in earlier):
            return  # Stopped again without a command in between: the same save.
        if earlier:
            node.doubts.append(f"{stream}/{record.seq} gives it another parent")
        found.edges.append(saved)
        return
    note = str(attrs.get("reason", "")) if event == "refused" else ""
    node.deleted |= event == "deleted"
    node.refused += event == "refused"
    target = _text(attrs, "destination") if event == "exported" else entry.session or ""
    edge = Edge(event, name, "" if event == "deleted" else target, note=note, **place)  # type: ignore[arg-type]
    found.edges.append(edge)


def _compare(node: Node, facts: Mapping[str, Any], event: str) -> None:
    # A fork lies in a place of its own, so its id and its type differ from those of the save.
    for key, value in facts.items():
        known = node.facts.setdefault(key, value)
        if known != value and key in {"sha256", "size_bytes", "bundle", "image_digest", "kind"}:
            node.doubts.append(f"its {key} is told to be {known} and, when it was {event}, {value}")


def _plain(value: Any) -> str | int | None:
    # A record may hold anything under these names.
    return value if isinstance(value, str | int) and value != "" else None


def _text(attrs: Mapping[str, Any], *names: str) -> str:
    return next((str(value) for name in names if (value := _plain(attrs.get(name))) is not None), "")
