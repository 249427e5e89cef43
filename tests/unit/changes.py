"""Changes of policy bundles whose verdict is known, kept as data in ``corpus/*.yaml``.

Each was written by a person, with its verdict, before anything could compute one. An entry has:

* ``id`` and ``why``: what is changed, and why a reviewer misses it or takes it for something else;
* ``base``: the bundle that is changed, below ``corpus`` or a shipped one (``policies/…``);
* ``edits``: exact texts of a file, each there once, with what is put in their place; or ``create`` for a new file;
* ``widened``, ``narrowed``, ``both``: the actions of which that is true, as ``agent/action``, or ``action`` for every
  agent of the base. Of all others nothing changes;
* ``wider`` and ``narrower``: requests that show it, with the arguments that a test case of a bundle has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from cedarbox.policy.actions import ACTION_GROUPS, Action
from cedarbox.review.arguments import build
from cedarbox.review.subject import Subject

__all__ = ["CORPUS", "Change", "Example", "Verdict", "changes"]

CORPUS: Final = Path(__file__).parent / "corpus"
_ROOT: Final = Path(__file__).parents[2]
_KEYS: Final = frozenset({"id", "base", "why", "edits", "widened", "narrowed", "both", "wider", "narrower"})

Verdict = Literal["widened", "narrowed", "both", "unchanged"]


@dataclass(frozen=True, slots=True)
class Example:
    """A request that shows what a change does."""

    principal: str
    action: Action


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        id: What it is called.
        why: Why a reviewer misses it.
        before: The bundle.
        files: The files of the changed bundle, by name.
        verdicts: By agent and action; what is not in it is unchanged.
        wider: Requests that only the second bundle allows.
        narrower: Requests that only the first one allows.
    """

    id: str
    why: str
    before: Subject
    files: Mapping[str, bytes]
    verdicts: Mapping[tuple[str, str], Verdict]
    wider: tuple[Example, ...]
    narrower: tuple[Example, ...]

    @property
    def verdict(self) -> Verdict:
        """What it does over all agents and actions."""
        found = set(self.verdicts.values())
        if "both" in found or {"widened", "narrowed"} <= found:
            return "both"
        return next(iter(found), "unchanged")

    @cached_property
    def after(self) -> Subject:
        """The changed bundle, checked."""
        return Subject.of_bundle(self.id, Path(self.id), self.files)

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write both bundles, and return their directories."""
        roots = directory / "before", directory / "after"
        for root, files in zip(roots, (self.before.files, self.files), strict=True):
            root.mkdir(parents=True)
            for name, data in files.items():
                (root / name).write_bytes(data)
        return roots


def changes() -> tuple[Change, ...]:
    """Read every change, in the order of file names and then of the text."""
    found = [change for path in sorted(CORPUS.glob("*.yaml")) for change in _read(path)]
    names = [change.id for change in found]
    assert len(set(names)) == len(names), "two changes have one id"
    return tuple(found)


def _read(path: Path) -> Iterator[Change]:
    for entry in yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader):
        assert entry.keys() <= _KEYS, (path, entry["id"], entry.keys() - _KEYS)
        base = entry["base"]
        before = _base(_ROOT / base if base.startswith("policies/") else CORPUS / base)
        after = dict(before.files)
        for edit in entry["edits"]:
            _edit(after, edit, f"{path.name}: {entry['id']}")
        agents = sorted(before.bundle.principals) if before.bundle else []
        yield Change(
            id=entry["id"],
            why=entry["why"],
            before=before,
            files=after,
            verdicts=dict(_verdicts(entry, agents)),
            wider=_examples(entry.get("wider", ())),
            narrower=_examples(entry.get("narrower", ())),
        )


def _edit(files: dict[str, bytes], edit: Mapping[str, str], where: str) -> None:
    name = edit["file"]
    if "create" in edit:
        assert name not in files, f"{where}: {name} is there already"
        files[name] = edit["create"].encode()
        return
    text = files[name].decode()
    # YAML takes the indentation of a block away; what begins in the middle of a line has none of its own to compare.
    assert text.count(edit["find"]) == 1, f"{where}: found {text.count(edit['find'])} times: {edit['find']}"
    files[name] = text.replace(edit["find"], edit["put"]).encode()


@cache
def _base(root: Path) -> Subject:
    return Subject.load(root)


def _verdicts(entry: Mapping[str, Any], agents: Sequence[str]) -> Iterator[tuple[tuple[str, str], Verdict]]:
    verdicts: tuple[Verdict, ...] = ("widened", "narrowed", "both")
    for verdict in verdicts:
        for name in entry.get(verdict, ()):
            agent, _, action = name.rpartition("/")
            assert action in ACTION_GROUPS, (entry["id"], name)
            for each in (agent,) if agent else agents:
                yield (each, action), verdict


def _examples(requests: Sequence[Mapping[str, Any]]) -> tuple[Example, ...]:
    return tuple(_example(dict(request)) for request in requests)


def _example(request: dict[str, Any]) -> Example:
    principal, action = request.pop("principal"), request.pop("action")
    if "command" in request:
        request["command"] = tuple(request["command"])
    return Example(principal, build(action, request))
