"""Random ledgers for attacks on them, and what must come of an attack."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tests.unit.forging import Stream, Workshop

from cedarbox.audit import standalone
from cedarbox.audit.verify import verify_ledger

__all__ = ["LONG", "Expected", "Scene", "alone", "by_openssl", "outcome", "plans", "tried"]

T = TypeVar("T")

LONG = os.environ.get("CEDARBOX_LONG") == "1"


class Expected(NamedTuple):
    """The first finding that must come of an attack.

    Args:
        kind: Its kind.
        stream: Its stream.
        seq: The first bad record.
    """

    kind: str
    stream: str
    seq: int | None


class StreamPlan(NamedTuple):
    """How a stream is written.

    Args:
        segments: Records of each segment, without those that a writer adds itself.
        unsigned: Records after the last note.
        ending: ``closed``, ``killed`` or ``open``.
        overlap: Whether it goes on while the next one is open.
    """

    segments: list[int]
    unsigned: int
    ending: str
    overlap: bool


def plans(
    endings: Sequence[str] = ("closed", "killed", "open"), segments: int = 1
) -> st.SearchStrategy[list[StreamPlan]]:
    """Draw plans of ledgers with one to three streams."""
    one = st.builds(
        StreamPlan,
        st.lists(st.integers(2, 7), min_size=segments, max_size=3),
        st.integers(0, 2),
        st.sampled_from(list(endings)),
        st.booleans(),
    )
    return st.lists(one, min_size=1, max_size=3)


class Scene:
    """A ledger that follows a plan.

    Args:
        root: An empty directory.
        plan: The plan.
        seed: Another seed makes another ledger.
    """

    def __init__(
        self, root: Path, plan: list[StreamPlan], pick: Callable[[st.SearchStrategy[Any]], Any], seed: str
    ) -> None:
        self.root, self._pick = root, pick
        self.shop = Workshop(root, seed)
        late: list[tuple[Stream, StreamPlan]] = []
        for each in plan:
            stream = self.shop.open()
            for before, its in late:
                self._end(before, its)
            late.clear()
            for number, count in enumerate(each.segments):
                if number:
                    self.shop.seal(stream)
                self.shop.write(stream, count // 2)
                self.shop.write(stream, count - count // 2)
            late.append((stream, each))
            if not each.overlap:
                self._end(*late.pop())
        for before, its in late:
            self._end(before, its)
        self.anchors: list[Path] = []

    @property
    def streams(self) -> list[Stream]:
        return list(self.shop.streams.values())

    def _end(self, stream: Stream, plan: StreamPlan) -> None:
        if plan.unsigned:
            self.shop.write(stream, plan.unsigned, note=False)
        if plan.ending == "closed":
            self.shop.close(stream)
        elif plan.ending == "killed":
            self.shop.kill(stream, b'{"action":"torn' if plan.unsigned else b"")

    def pick(self, items: Sequence[T]) -> T:
        """Choose one; the example does not count when there is none."""
        assume(items)
        chosen: T = self._pick(st.sampled_from(list(items)))
        return chosen

    def number(self, begin: int, end: int) -> int:
        """Choose a number from ``begin`` to ``end - 1``."""
        assume(begin < end)
        chosen: int = self._pick(st.integers(begin, end - 1))
        return chosen

    def note_sizes(self, stream: Stream) -> list[int]:
        """Give the sizes that the notes of a stream have."""
        return [int(note.split(b"\n")[1]) for note in stream.tape.notes]

    def vouched(self, stream: Stream) -> int:
        """Give the number of records that a note or the index vouches for."""
        return stream.signed if stream.state in {"open", "killed"} else stream.tape.size

    def below(self, stream: Stream, seq: int) -> int:
        """Give the size of the last note that does not cover a record."""
        return max([0, *(size for size in self.note_sizes(stream) if size <= seq)])

    def anchor(self, *notes: bytes) -> None:
        """Keep notes elsewhere."""
        path = self.root / f"anchor{len(self.anchors)}"
        path.write_bytes(b"".join(note + b"\n" for note in notes))
        self.anchors.append(path)


def tried(
    attack: Callable[[Scene], Expected | None],
    *,
    endings: Sequence[str] = ("closed", "killed", "open"),
    segments: int = 1,
    examples: int = 0,
) -> None:
    """Carry out an attack on random ledgers.

    Args:
        attack: Changes the ledger of a scene and says what must be found; None when nothing can be.
        endings: How the streams end.
        segments: How many segments a stream has at least.
        examples: How many ledgers; 0 for the usual number.
    """

    @settings(
        max_examples=examples or (60 if LONG else 3),
        deadline=None,
        database=None,
        derandomize=not LONG,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(plan=plans(endings, segments), data=st.data())
    def run(plan: list[StreamPlan], data: st.DataObject) -> None:
        root = Path(tempfile.mkdtemp(prefix="cedarbox-scene-"))
        try:
            scene = Scene(root, plan, data.draw, "seed")
            scene.shop.save()
            assert outcome(scene.shop, []) is None, "the honest ledger verifies"
            expected = attack(scene)
            assert outcome(scene.shop, scene.anchors) == expected
            assert alone(scene.shop, scene.anchors) == (expected is None)
        finally:
            shutil.rmtree(root)

    run()


def outcome(shop: Workshop, anchors: Sequence[Path]) -> Expected | None:
    """Verify a ledger and give the first finding."""
    report = verify_ledger(shop.directory, public_key=shop.trusted, anchors=anchors)
    assert report.ok == (not report.findings)
    if report.ok:
        return None
    first = report.findings[0]
    assert first.message
    return Expected(first.kind, first.stream, first.seq)


def alone(shop: Workshop, anchors: Sequence[Path] = ()) -> bool:
    """Ask the stand-alone verifier.

    OpenSSL's check of signatures takes the place of its own, which is slow; tests/unit/test_audit_standalone.py
    compares the two.
    """
    original = standalone.verify_signature
    standalone.verify_signature = by_openssl
    try:
        standalone.check_ledger(
            str(shop.directory), standalone.load_key(str(shop.trusted)), [str(path) for path in anchors]
        )
    except standalone.Bad:
        return False
    finally:
        standalone.verify_signature = original
    return True


def by_openssl(key: bytes, message: bytes, signature: bytes) -> bool:
    """Verify an Ed25519 signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
