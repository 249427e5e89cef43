"""Drawing where snapshots come from and what became of them."""

from __future__ import annotations

from typing import Any

import orjson
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from cedarbox.audit.lineage import Edge, Lineage, Node, Row
from cedarbox.errors import ConfigurationError
from cedarbox.text import printable

__all__ = ["draw_lineage"]


def draw_lineage(lineage: Lineage, name: str, console: Console, *, as_json: bool) -> None:
    """Print the tree of all snapshots, or the one that a snapshot is in: guide lines on a terminal, else indented.

    Args:
        lineage: What the ledger tells.
        name: Name of a snapshot, or the beginning of its name, id, session or digest; empty for all.
        console: Where to.
        as_json: Print nodes and edges instead.

    Raises:
        ConfigurationError: There is no such snapshot, or there are several.
    """
    only = lineage.find(name) if name else None
    if name and only is None:
        raise ConfigurationError(
            f"the ledger tells of no snapshot {name}, or of several", hint="cedarbox audit show --lineage shows all"
        )
    if as_json:
        console.print(orjson.dumps(lineage.as_json(only)).decode(), soft_wrap=True)
        return
    rows = list(lineage.rows(only))
    if not rows:
        console.print("the ledger tells of no snapshots")
        return
    if not console.is_terminal:
        for row in rows:
            console.print("  " * row.depth + _text(row, only).plain, soft_wrap=True)
        return
    # Printed when they are whole.
    root: Tree | None = None
    path: list[Tree] = []
    for row in rows:
        branch = Tree(_text(row, only))
        if row.depth == 0:
            if root is not None:
                console.print(root)
            root, path = branch, [branch]
            continue
        del path[row.depth :]
        path[-1].children.append(branch)
        path.append(branch)
    if root is not None:
        console.print(root)


def _text(row: Row, only: Node | None) -> Text:
    if row.node is None:
        return _happened(row.edge) if row.edge is not None else Text("")
    node, facts = row.node, row.node.facts
    marks = [word for word, holds in (("DELETED", node.deleted), ("REFUSED", node.refused)) if holds]
    if not node.made:
        marks.append("no record of its making")
    if row.again:
        marks.append("see above")
    said = [f"{facts[key]}" for key in ("kind", "type") if key in facts]
    if "size_bytes" in facts:
        said.append(f"{facts['size_bytes']} bytes")
    said += [f"{key} {_short(facts[key])}" for key in ("sha256", "bundle", "image_digest") if key in facts]
    if "of" in facts:
        said.append(f"of session {str(facts['of'])[:8]}")
    when = "" if row.edge is None else f"  {row.edge.time[:19]}Z {_place(row.edge)}"
    chosen = " <" if only is node else ""
    return Text.assemble(
        (f"{printable(node.name)}{chosen}", "bold"),
        (f"  {', '.join(marks)}" if marks else "", "bold red"),
        printable(f"  {', '.join(said)}" if said else ""),
        (printable(when), "dim"),
        *((f"  DOUBTFUL: {printable(doubt)}", "bold yellow") for doubt in node.doubts),
        overflow="fold",
    )


def _happened(edge: Edge) -> Text:
    where = {"exported": "to", "deleted": "", "refused": "for"}.get(edge.event, "into")
    verb = "REFUSED" if edge.event == "refused" else edge.event
    target = f" {where} {edge.target}" if edge.target and where else ""
    return Text.assemble(
        (verb, "bold red" if verb == "REFUSED" else ""),
        printable(target),
        printable(f"  {edge.note}" if edge.note else ""),
        (printable(f"  {edge.time[:19]}Z {_place(edge)}{f' by {edge.by}' if edge.by else ''}"), "dim"),
        overflow="fold",
    )


def _place(edge: Edge) -> str:
    return f"{edge.stream.rpartition('-')[2]}/{edge.seq}"


def _short(value: Any) -> str:
    text = str(value)
    start = 7 if text.startswith("sha256:") else 0
    return f"{text[: start + 12]}…" if len(text) > start + 13 else text
