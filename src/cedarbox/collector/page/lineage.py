"""Which snapshot came from which, from the records about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cedarbox.collector.page.records import Seen

__all__ = ["ACTIONS", "Node", "lineage"]

ACTIONS: Final = ("snapshot", "restore", "fork", "export")
"""Cedar actions about snapshots: a denial of one stands in the tree too."""

_MAX_DEPTH: Final = 40
_PARENTS: Final = ("snapshot.parent", "snapshot.from", "parent")


@dataclass(slots=True)
class Node:
    """A snapshot, or what was tried where none is known.

    Attributes:
        kind: ``snapshot``; ``refused`` when all that is known is a denial.
        snapshot: Its id; empty when a record names none.
        session: The sandbox that was saved in it, or started from it.
        records: In order of time.
        children: What came from it.
    """

    kind: str
    snapshot: str
    session: str | None = None
    records: list[Seen] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether it is only what was refused."""
        return self.kind == "refused"


def lineage(records: Iterable[Seen]) -> Sequence[Node]:
    """Return the tree; the newest root comes first.

    Args:
        records: ``snapshot.*`` records, and denials of `ACTIONS`, in any order.
    """
    ordered = sorted(records, key=lambda record: (record.row.time_ns, record.seq or 0))
    nodes: dict[str, Node] = {}
    saved_in: dict[str, str] = {}
    above: dict[str, str] = {}
    alone: list[Node] = []
    for record in ordered:
        name = _snapshot(record)
        if not name:
            node = Node("refused" if record.adverse else "snapshot", "", record.session, [record])
            alone.append(node)
            continue
        node = nodes.setdefault(name, Node("snapshot", name))
        node.records.append(record)
        if record.event == "snapshot.created" and record.session:
            node.session = record.session
            saved_in[record.session] = name
        elif record.event == "snapshot.forked":
            node.session = node.session or record.session
        parent = _parent(record, saved_in)
        if parent and parent != name:
            above.setdefault(name, parent)
    for name, node in nodes.items():
        if all(record.adverse for record in node.records):
            node.kind = "refused"
        parent = above.get(name, "")
        if parent in nodes and not _leads_to(parent, name, above):
            nodes[parent].children.append(node)
        else:
            alone.append(node)
    return sorted(alone, key=lambda node: node.records[0].row.time_ns, reverse=True)


def _snapshot(record: Seen) -> str:
    value = record.attrs.get("snapshot.id")
    if isinstance(value, str):
        return value
    kind, _, rest = (record.resource or "").partition('::"')
    return rest.removesuffix('"') if kind == "Snapshot" else ""


def _parent(record: Seen, saved_in: dict[str, str]) -> str:
    for name in _PARENTS:
        if isinstance(value := record.attrs.get(name), str) and value:
            return value
    of = record.attrs.get("snapshot.of")
    return saved_in.get(of, of) if isinstance(of, str) else ""


def _leads_to(start: str, wanted: str, above: dict[str, str]) -> bool:
    """Whether going up from one leads to the other, or never ends: records may say that they are in a circle."""
    at: str | None = start
    for _ in range(_MAX_DEPTH):
        if at == wanted:
            return True
        at = above.get(at or "")
        if at is None:
            return False
    return True
