"""What changed in files beside the policies that no proof covers: ``bundle.toml``, and see settings.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cedarbox.policy.bundle import PolicyBundle

__all__ = ["MetadataChange", "metadata_changes"]


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """One key that changed.

    Attributes:
        key: Its name, such as ``on_denied_tool``, or ``approvers.NAME``.
        old: What it was, in words; empty for nothing.
        new: What it is; empty for nothing.
        told: What that means, in one line.
        widens: Something goes through that did not, whatever the policies say.
        matters: A reviewer should look at it.
        file: Where it stands.
        exact: What it is, where ``new`` is only what is shown of it.
    """

    key: str
    old: str
    new: str
    told: str
    widens: bool = False
    matters: bool = True
    file: str = "bundle.toml"
    exact: str = ""


def metadata_changes(old: PolicyBundle | None, new: PolicyBundle | None) -> tuple[MetadataChange, ...]:
    """Return what changed, those that widen first.

    Args:
        old: The old version; None for none.
        new: The new one; None for none.
    """
    if old is None or new is None:
        return ()
    return tuple(sorted(_changes(old, new), key=lambda change: (not change.widens, change.key)))


def _changes(old: PolicyBundle, new: PolicyBundle) -> Iterator[MetadataChange]:
    if old.on_denied_tool != new.on_denied_tool:
        # "error" ends a turn in which a tool is denied. "remove" lets it go on, so more is run than before.
        widens = new.on_denied_tool == "remove"
        told = "a turn with a tool that is denied goes on without it" if widens else "it ends with an error"
        yield MetadataChange("on_denied_tool", old.on_denied_tool, new.on_denied_tool, told, widens)
    if old.name != new.name:
        told = "a host that keeps the highest revision of a name knows none of this one, and takes any"
        yield MetadataChange("name", old.name, new.name, told)
    if new.revision < old.revision:
        told = "a step back: hosts that keep the highest revision refuse it"
        yield MetadataChange("revision", str(old.revision), str(new.revision), told)
    elif new.revision == old.revision and old.name == new.name and old.digest != new.digest:
        told = "the content changed and the revision did not: hosts that keep the highest revision refuse it"
        yield MetadataChange("revision", str(old.revision), str(new.revision), told)
    elif new.revision > old.revision:
        yield MetadataChange("revision", str(old.revision), str(new.revision), "a step forward", matters=False)
    yield from _approvers(old.approvers, new.approvers)


def _approvers(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[MetadataChange]:
    # What that lets through is found with the policies that name them, see approvals.py; here it is only told.
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, ""), new.get(name, "")
        if before != after:
            told = "the key of the approver is another one" if before and after else "a new approver"
            told = told if after else "no approver any more"
            yield MetadataChange(f"approvers.{name}", before, after, told)
