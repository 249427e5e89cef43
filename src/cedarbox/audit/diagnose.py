"""What was done where a chain breaks. Slow and thorough: it runs once for a stream that is bad anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cedarbox.audit.merkle import Tree
from cedarbox.audit.record import parse_line
from cedarbox.errors import LedgerError

__all__ = ["Break", "changed_with_its_hash", "name_break"]


class Break(NamedTuple):
    """What was done.

    Args:
        kind: Kind of the finding.
        seq: First bad record.
        message: What is wrong.
    """

    kind: str
    seq: int
    message: str


def name_break(  # noqa: PLR0911  # one return for each thing that can be done
    lines: Callable[[], Iterator[bytes]],
    at: int,
    prev: str,
    elsewhere: Callable[[bytes], str | None],
    heads: Iterable[tuple[int, bytes]],
) -> Break:
    """Say what was done at the first line that is not the next record.

    Args:
        lines: Gives the lines of the stream from its first, with their line feeds.
        at: Number of that line, from 0.
        prev: Hash of the record before it.
        elsewhere: Gives the other stream that has a line, if one has.
        heads: Sizes and roots of the stream that somebody vouches for.
    """
    line = next((each for number, each in enumerate(lines()) if number == at), b"")
    try:
        fields, digest = parse_line(line)
    except LedgerError as error:
        return Break("edited", at, error.message)
    if digest.hex() != fields["hash"]:
        return Break("edited", at, "the record was changed after it was written")
    seq: int = fields["seq"]
    if seq < at and next((each for number, each in enumerate(lines()) if number == seq), b"") == line:
        return Break("replayed", at, f"record {seq} stands here a second time")
    other = elsewhere(line)
    if other is not None:
        return Break("spliced", at, f"the record belongs to {other}")
    after = _after(lines, at)
    following = next(after, None)
    if seq == at:
        if changed_with_its_hash(lines, at, heads):
            return Break("edited", at - 1, f"the record and its hash were changed: record {at} names another hash")
        if following is not None and following["seq"] == at + 1 and following["prev"] != fields["hash"]:
            return Break("spliced", at, "the record is of another stream or ledger")
        return Break("rewritten", max(0, at - 1), f"record {at} does not follow record {at - 1}")
    if seq < at:
        return Break("spliced", at, f"a record {seq} that is not of this stream stands here")
    return _gap(fields, following, after, at, prev)


def _gap(
    fields: dict[str, Any], following: dict[str, Any] | None, after: Iterator[dict[str, Any]], at: int, prev: str
) -> Break:
    seq = fields["seq"]
    replaced = following is not None and following["seq"] == at + 1
    while following is not None:
        if following["seq"] == at and following["prev"] == prev:
            if any(each == fields for each in after):
                return Break("replayed", at, f"record {seq} stands here and in its place")
            return Break("reordered", at, f"record {seq} stands before record {at}")
        following = next(after, None)
    if replaced:
        return Break("spliced", at, f"a record {seq} that is not of this stream stands in the place of record {at}")
    gone = f"record {at} is gone" if seq == at + 1 else f"records {at} to {seq - 1} are gone"
    return Break("deleted", at, gone)


def changed_with_its_hash(lines: Callable[[], Iterator[bytes]], at: int, heads: Iterable[tuple[int, bytes]]) -> bool:
    """Whether the record before line ``at`` is the only bad one.

    Line ``at`` names the hash that the record before it had. When the tree with that hash in its place leads to a
    root that somebody vouches for, everything else is as it was.
    """
    roots = {size: root for size, root in heads if size >= at}
    if not roots or at == 0:
        return False
    tree, last = Tree(), max(roots)
    for number, line in enumerate(lines()):
        try:
            fields, digest = parse_line(line)
        except LedgerError:
            return False
        if number == at:
            tree.append(bytes.fromhex(fields["prev"]))
            if tree.size in roots:
                return roots[tree.size] == tree.root()
        if number != at - 1:
            tree.append(digest)
            if number >= at and tree.size in roots:
                return roots[tree.size] == tree.root()
        if number >= last:
            return False
    return False


def _after(lines: Callable[[], Iterator[bytes]], at: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines()):
        if number > at:
            try:
                yield parse_line(line)[0]
            except LedgerError:
                return
