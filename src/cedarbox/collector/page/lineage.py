"""Which snapshot came from which, from the records about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cedarbox.collector.page.records import Seen

__all__ = ["ACTIONS", "Node", "lineage"]

ACTIONS: Final = ("snapshot", "restore", "fork", "export")
"""Cedar actions about snapshots: a denial of one stands in the tree too."""

_MAX_DEPTH: Final = 40
_PARENTS: Final = ("snapshot.parent", "snapshot.native.parent", "snapshot.from")


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
    names = _names(ordered)
    nodes: dict[str, Node] = {}
    saved_in: dict[str, str] = {}
    above: dict[str, str] = {}
    alone: list[Node] = []
    for record in ordered:
        name = _snapshot(record, names)
        if not name:
            kind = "refused" if record.adverse else "snapshot"
            alone.append(Node(kind, "", record.session, [record]))
            continue
        node = nodes.setdefault(name, Node("snapshot", name))
        node.records.append(record)
        if record.event == "snapshot.created" and record.session:
            node.session = record.session
            saved_in[record.session] = name
        elif record.event == "snapshot.forked":
            node.session = node.session or record.session
        parent = _parent(record, names, saved_in)
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


def _names(records: Iterable[Seen]) -> dict[str, str]:
    """Return, by the id of a snapshot, the name of what was first saved under it: several saves may have one id."""
    names: dict[str, str] = {}
    for record in records:
        own, name = _text(record, "snapshot.id"), _text(record, "snapshot.name")
        if record.event == "snapshot.created" and own and name:
            names.setdefault(own, name)
    return names


def _snapshot(record: Seen, names: Mapping[str, str]) -> str:
    if name := _text(record, "snapshot.name"):
        return name
    kind, _, rest = (record.resource or "").partition('::"')
    own = _text(record, "snapshot.id") or (rest.removesuffix('"') if kind == "Snapshot" else "")
    return names.get(own, own)


def _parent(record: Seen, names: Mapping[str, str], saved_in: Mapping[str, str]) -> str:
    for key in _PARENTS:
        if value := _text(record, key):
            return names.get(value, value)
    of = _text(record, "snapshot.of") if record.event == "snapshot.forked" else ""
    return saved_in.get(of, of)


def _text(record: Seen, key: str) -> str:
    value = record.attrs.get(key)
    return value if isinstance(value, str) else ""


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
