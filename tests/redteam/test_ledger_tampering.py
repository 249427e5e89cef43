"""Somebody who can write every file of a ledger, on random ledgers; some have stolen a key.

Each attack is tried on ledgers of one to three streams with up to three segments, closed, open, or found dead. The
verifier must name what was done and the first bad record; the stand-alone verifier must come to the same yes or no.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
from hypothesis import assume
from tests.redteam.scenes import LONG, Expected, Scene, alone, outcome, tried
from tests.unit.forging import Stream, Workshop, rechained, rehashed

from cedarbox.audit.checkpoint import Checkpoint, sign_note
from cedarbox.ed25519 import public_pem


def _groups(scene: Scene) -> list[int]:
    """Give the ends of the groups of the index."""
    return [int(note.split(b"\n")[1]) for note in scene.shop.index.notes]


def _begin(scene: Scene, seq: int) -> int:
    """Give the first record of the group that a record of the index is in."""
    return max([0, *(end for end in _groups(scene) if end <= seq)])


def test_edit_a_record() -> None:
    """A field of one record is changed, its hash is left.

    The finding ``edited`` names the record, in every segment and under no note too.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(0, stream.tape.size)
        stream.tape.lines[seq] = stream.tape.lines[seq].replace(b'"call_id":null', b'"call_id":"forged"')
        scene.shop.save()
        return Expected("edited", stream.name, seq)

    tried(attack)


def test_edit_a_record_and_its_hash() -> None:
    """A field of one record is changed and its own hash computed again, so that only the next record disagrees.

    The finding ``edited`` names the changed record, not the next: with the old hash in its place the tree is that of a
    signed note.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(1, min(scene.vouched(stream), stream.tape.size - 1))
        stream.tape.lines[seq] = rehashed(stream.tape.lines[seq], bundle="sha256:forged")
        scene.shop.save()
        return Expected("edited", stream.name, seq)

    tried(attack)


def test_edit_and_compute_the_chain_again() -> None:
    """A record is changed and every hash after it is computed again; the signed notes stay.

    The finding ``rewritten`` names the first record after the last note that still holds.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(1, scene.vouched(stream))
        stream.tape.lines = rechained(stream.tape.lines, {seq: {"bundle": "sha256:forged"}}, begin=seq)
        scene.shop.save()
        return Expected("rewritten", stream.name, scene.below(stream, seq))

    tried(attack)


def test_write_json_in_another_form() -> None:
    """A line gets a space, which changes nothing that it says.

    There is one form of a record, RFC 8785; the finding is ``edited``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(0, stream.tape.size)
        form = scene.pick([(b'"seq":', b'"seq": '), (b'"action"', b'"\\u0061ction"'), (b"{", b" {")])
        stream.tape.lines[seq] = stream.tape.lines[seq].replace(*form, 1)
        scene.shop.save()
        return Expected("edited", stream.name, seq)

    tried(attack)


def test_delete_a_record() -> None:
    """One record is taken out.

    The finding ``deleted`` names it.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(0, stream.tape.size - 1)
        del stream.tape.lines[seq]
        stream.begins = [begin - (begin > seq) for begin in stream.begins]
        scene.shop.save()
        return Expected("deleted", stream.name, seq)

    tried(attack)


def test_delete_a_segment() -> None:
    """The file of a segment is removed, the last one too.

    The finding ``deleted`` names its first record.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        number = scene.number(0, len(stream.begins))
        (scene.shop.directory / f"{stream.name}.{number:06d}.jsonl").unlink()
        return Expected("deleted", stream.name, stream.begins[number])

    tried(attack, segments=2)


def test_delete_a_stream() -> None:
    """All files of a stream are removed, its notes too.

    The index names it: the finding is ``deleted``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        for path in scene.shop.directory.glob(f"{stream.name}.*"):
            path.unlink()
        return Expected("deleted", stream.name, None)

    tried(attack)


def test_delete_the_notes_of_a_stream() -> None:
    """The file with the notes of a stream is removed, or emptied.

    The finding is ``checkpoint``: record 0 is signed before there is a second one.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        path = scene.shop.directory / f"{stream.name}.checkpoints"
        if scene.pick([True, False]):
            path.unlink()
        else:
            path.write_bytes(b"")
        return Expected("checkpoint", stream.name, 0)

    tried(attack)


def test_delete_the_notes_of_the_index() -> None:
    """The notes of the index are removed: all, or all but some at the beginning.

    One group at most can be without a note; the finding ``checkpoint`` names the first record without one.
    """

    def attack(scene: Scene) -> Expected:
        keep = scene.number(0, len(scene.shop.index.notes) - 1)
        size = _groups(scene)[keep - 1] if keep else 0
        del scene.shop.index.notes[keep:]
        scene.shop.save()
        return Expected("checkpoint", "index", size)

    tried(attack)


def test_swap_two_records() -> None:
    """Two records change places.

    The finding ``reordered`` names the first of them.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(0, stream.tape.size - 1)
        lines = stream.tape.lines
        lines[seq], lines[seq + 1] = lines[seq + 1], lines[seq]
        scene.shop.save()
        return Expected("reordered", stream.name, seq)

    tried(attack)


def test_cut_a_stream() -> None:
    """A stream is cut at a line, and its notes with it.

    The index says how many records it had: the finding ``truncated`` names the first that is gone, or ``deleted`` when
    whole segments are.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick([each for each in scene.streams if each.state in {"closed", "recovered"}])
        size = scene.number(1, stream.tape.size)
        stream.tape.notes = [note for note in stream.tape.notes if int(note.split(b"\n")[1]) <= size]
        del stream.tape.lines[size:]
        stream.begins = [begin for begin in stream.begins if begin < size]
        scene.shop.save()
        whole = orjson.loads(stream.tape.lines[-1])["event"] == "segment.sealed"
        return Expected("deleted" if whole else "truncated", stream.name, size)

    tried(attack)


def test_cut_a_stream_below_its_notes() -> None:
    """A stream that nobody closed is cut, and its notes are left.

    A signed note has more records than there are: ``truncated``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        size = scene.number(stream.begins[-1] + 1, stream.signed)
        del stream.tape.lines[size:]
        stream.torn = b""
        scene.shop.save()
        return Expected("truncated", stream.name, size)

    tried(attack)


def test_cut_the_index() -> None:
    """The last records of the index are cut, its notes are left.

    The finding is ``truncated``.
    """

    def attack(scene: Scene) -> Expected:
        size = scene.number(1, scene.shop.index.size)
        del scene.shop.index.lines[size:]
        scene.shop.save()
        return Expected("truncated", "index", size)

    tried(attack)


def test_cut_the_index_and_its_notes() -> None:
    """The index is cut between two groups, its notes with it, so that it does not name a stream that is there.

    The first record of the stream names its record of the index: ``truncated``, of the index.
    """

    def attack(scene: Scene) -> Expected:
        opened = [
            number
            for number, line in enumerate(scene.shop.index.lines)
            if orjson.loads(line)["event"] == "stream.opened"
        ]
        seq = scene.pick(opened)
        size = _begin(scene, seq)
        keep = _groups(scene).index(size) + 1
        del scene.shop.index.lines[size:], scene.shop.index.notes[keep:]
        scene.shop.save()
        return Expected("truncated", "index", size)

    tried(attack)


def test_splice_a_record_of_another_stream() -> None:
    """A record is replaced by one of another stream, or of the index, of the same ledger.

    The finding ``spliced`` names its place, and the message whose it is.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        others = [each.tape for each in scene.streams if each is not stream]
        tape = scene.pick([scene.shop.index, *others])
        seq = scene.number(1, stream.tape.size)
        stream.tape.lines[seq] = tape.lines[scene.number(0, tape.size)]
        scene.shop.save()
        return Expected("spliced", stream.name, seq)

    tried(attack)


def test_splice_a_record_of_another_ledger() -> None:
    """A record is replaced by the record with the same number of another ledger.

    It follows nothing here, and nothing follows it: ``spliced``.
    """

    def attack(scene: Scene) -> Expected:
        other = Workshop(scene.root / "other", "another seed")
        donor = other.open()
        other.write(donor, 40)
        stream = scene.pick(scene.streams)
        seq = scene.number(0, stream.tape.size - 1)
        stream.tape.lines[seq] = donor.tape.lines[seq]
        scene.shop.save()
        return Expected("spliced", stream.name, seq)

    tried(attack)


def test_put_a_stream_in_the_place_of_another() -> None:
    """The files of one stream get the name of another.

    The first record says whose they are: ``spliced``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        donor = scene.pick([each for each in scene.streams if each is not stream])
        for path in scene.shop.directory.glob(f"{stream.name}.*"):
            path.unlink()
        for path in scene.shop.directory.glob(f"{donor.name}.*"):
            shutil.copy(path, path.with_name(path.name.replace(donor.name, stream.name)))
        return Expected("spliced", stream.name, 0)

    tried(attack)


def test_replay_a_record() -> None:
    """A record is put in a second time, later or at the end, after ``ledger.closed`` too.

    The finding ``replayed`` names the second place.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(0, stream.tape.size)
        place = scene.number(seq + 1, stream.tape.size + 1)
        stream.tape.lines.insert(place, stream.tape.lines[seq])
        stream.begins = [begin + (begin > place) for begin in stream.begins]
        scene.shop.save()
        return Expected("replayed", stream.name, place)

    tried(attack)


def test_replay_a_segment() -> None:
    """An earlier segment is put in the place of a later one.

    The finding ``replayed`` names the first record of the later one.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        later = scene.number(1, len(stream.begins))
        earlier = scene.number(0, later)
        paths = [scene.shop.directory / f"{stream.name}.{number:06d}.jsonl" for number in (earlier, later)]
        shutil.copy(*paths)
        return Expected("replayed", stream.name, stream.begins[later])

    tried(attack, segments=2)


def test_replay_a_stream() -> None:
    """The files of a stream are copied under a new name.

    The index does not have that name, and the first record has another: ``replayed``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        name = "20991231T235959000000Z-0123abcd"
        for path in scene.shop.directory.glob(f"{stream.name}.*"):
            shutil.copy(path, path.with_name(path.name.replace(stream.name, name)))
        return Expected("replayed", name, 0)

    tried(attack)


def test_invent_a_stream() -> None:
    """A stream that holds together and is signed with a key of its own is put into the ledger.

    The index does not name it: ``foreign``.
    """

    def attack(scene: Scene) -> Expected:
        other = Workshop(scene.root / "other", "another seed")
        made = other.open()
        other.write(made, 3)
        first = orjson.loads(made.tape.lines[0])
        told = first["attrs"] | {"ledger": scene.shop.ledger, "index": {"seq": 0, "hash": "0" * 64}}
        made.tape.origin = scene.shop.index.origin.replace("index", made.name)
        made.tape.refill(rechained(made.tape.lines, {0: {"attrs": told}}))
        other.resign(made)
        scene.shop.streams[made.name] = made
        scene.shop.save()
        return Expected("foreign", made.name, None)

    tried(attack)


def test_sign_again_with_a_fresh_key() -> None:
    """A record is changed, the chain computed again, and the notes from there on are signed with a new key.

    Chain and tree hold together; the index does not name that key: ``resigned``, from the last good note on.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(1, stream.signed)
        kept = scene.below(stream, seq)
        good = [note for note in stream.tape.notes if int(note.split(b"\n")[1]) <= kept]
        stream.tape.refill(rechained(stream.tape.lines, {seq: {"bundle": "sha256:forged"}}, begin=seq))
        scene.shop.resign(stream, [scene.shop.key()])
        stream.tape.notes[: len(good)] = good
        scene.shop.save()
        return Expected("resigned", stream.name, kept)

    tried(attack)


def test_fork_a_closed_stream_with_its_stolen_keys() -> None:
    """A thief who had the keys of a stream out of memory writes its end again and signs it, after it was closed.

    The index has the root of the true end: ``forked``, after the last place that both have.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick([each for each in scene.streams if each.state in {"closed", "recovered"}])
        assume(scene.vouched(stream) == stream.signed)
        seq = scene.number(1, stream.tape.size)
        agreed = _agreed(scene, stream, seq)
        stream.tape.refill(rechained(stream.tape.lines, {seq: {"bundle": "sha256:forged"}}, begin=seq))
        scene.shop.resign(stream)
        scene.shop.save()
        # A seal that changed names another hash, and so another root, than the index has.
        return Expected("forked", stream.name, agreed)

    tried(attack, endings=["closed"])


def _agreed(scene: Scene, stream: Stream, seq: int) -> int:
    sizes = [0]
    for line in scene.shop.index.lines:
        attrs = orjson.loads(line)["attrs"]
        told = [attrs, *attrs.get("live", ())]
        sizes += [
            each["size"] for each in told if each.get("stream") == stream.name and each.get("size", seq + 1) <= seq
        ]
    return max(sizes)


def test_fork_an_open_stream_against_an_anchor() -> None:
    """A thief in the process of the writer writes what its stream had and signs it with the key in memory.

    A note that was kept elsewhere has another root at the same size: ``forked``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick([each for each in scene.streams if each.state == "open"])
        seq = scene.number(stream.begins[-1] + 1, stream.signed)
        assume(_agreed(scene, stream, stream.signed) <= seq)
        scene.anchor(stream.tape.notes[-1])
        agreed = _agreed(scene, stream, seq)
        stream.tape.refill(rechained(stream.tape.lines, {seq: {"bundle": "sha256:forged"}}, begin=seq))
        scene.shop.resign(stream)
        scene.shop.save()
        assert outcome(scene.shop, []) is None, "without an anchor nothing tells the two apart"
        return Expected("forked", stream.name, agreed)

    tried(attack, endings=["open"])


def test_fork_the_index_with_its_stolen_key() -> None:
    """A thief of the key file signs another next group than the true one, and goes on from there.

    A note that was kept elsewhere has another root at the same size: ``forked``. Every group before is out of reach.
    """

    def attack(scene: Scene) -> Expected:
        shop = scene.shop
        lines, notes, keys = list(shop.index.lines), list(shop.index.notes), list(shop.index_keys)
        shop.group(("key.rotated", {"reason": "the true one"}))
        scene.anchor(notes[-1], shop.index.notes[-1])
        shop.index.refill(lines)
        shop.index.notes, shop.index_keys = notes, keys
        shop.group(("key.rotated", {"reason": "the thief's"}))
        shop.save()
        assert outcome(shop, []) is None, "without an anchor nothing tells the two apart"
        return Expected("forked", "index", len(lines))

    tried(attack)


def test_rewrite_the_past_of_the_index_with_its_stolen_key() -> None:
    """A thief of the key file changes an old record of the index and signs every note again with the key he has.

    That key was not handed over to yet then: ``resigned``, from the group of the record on.
    """

    def attack(scene: Scene) -> Expected:
        shop = scene.shop
        seq = scene.number(1, shop.index.size)
        begin, attrs = _begin(scene, seq), orjson.loads(shop.index.lines[seq])["attrs"]
        sizes = _groups(scene)
        shop.index.refill(rechained(shop.index.lines, {seq: {"attrs": attrs | {"forged": True}}}, begin=seq))
        for number, size in enumerate(sizes):
            if size > seq:
                head = Checkpoint(shop.index.origin, size, shop.index.root_at(size))
                shop.index.notes[number] = sign_note(head, shop.index_keys[-1])
        shop.save()
        return Expected("resigned", "index", begin)

    tried(attack)


def test_swap_the_key_of_a_stream_in_the_index() -> None:
    """The index names the key of a forger for a stream, and its chain is computed again.

    No note of the index has that root: ``rewritten``, from the group of the record on.
    """

    def attack(scene: Scene) -> Expected:
        shop = scene.shop
        opened = [number for number, line in enumerate(shop.index.lines) if b'"stream.opened"' in line]
        seq = scene.pick(opened)
        attrs = orjson.loads(shop.index.lines[seq])["attrs"]
        key = orjson.loads(shop.index.lines[0])["attrs"]["public_key"]
        shop.index.lines = rechained(shop.index.lines, {seq: {"attrs": attrs | {"public_key": key}}}, begin=seq)
        shop.save()
        return Expected("rewritten", "index", _begin(scene, seq))

    tried(attack)


def test_hand_over_with_the_wrong_key() -> None:
    """A group of the index is signed with the first key again, or with the key that it hands over to.

    Each key signs the one group that comes next: ``resigned``.
    """

    def attack(scene: Scene) -> Expected:
        shop = scene.shop
        number = scene.number(1, len(shop.index.notes))
        size = _groups(scene)[number]
        key = scene.pick([shop.index_keys[0], shop.index_keys[number + 1]])
        shop.index.notes[number] = sign_note(Checkpoint(shop.index.origin, size, shop.index.root_at(size)), key)
        shop.save()
        return Expected("resigned", "index", _groups(scene)[number - 1])

    tried(attack)


def test_tamper_with_a_record_of_the_index() -> None:
    """A record of the index is edited, deleted or moved.

    The finding names what was done and the record, as in a stream.
    """

    def attack(scene: Scene) -> Expected:
        lines = scene.shop.index.lines
        seq = scene.number(1, len(lines) - 1)
        kind = scene.pick(["edited", "deleted", "reordered", "replayed"])
        if kind == "edited":
            lines[seq] = lines[seq].replace(b'"tool":null', b'"tool":"forged"')
        elif kind == "deleted":
            del lines[seq]
        elif kind == "reordered":
            lines[seq], lines[seq + 1] = lines[seq + 1], lines[seq]
        else:
            lines.insert(seq, lines[seq - 1])
        scene.shop.save()
        return Expected(kind, "index", seq)

    tried(attack)


def test_tear_the_last_note_of_a_closed_stream() -> None:
    """The last note of a stream that was closed is cut, or removed.

    The index says that it was closed, which was signed before: ``unsealed``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick([each for each in scene.streams if each.state == "closed"])
        sizes = scene.note_sizes(stream)
        path = scene.shop.directory / f"{stream.name}.checkpoints"
        whole = path.read_bytes()
        cut = scene.number(1, len(stream.tape.notes[-1]) + 2)
        path.write_bytes(whole[:-cut])
        return Expected("unsealed", stream.name, sizes[-2])

    tried(attack, endings=["closed"])


def test_damage_a_note() -> None:
    """The root or the signature of a note is changed.

    The finding is ``checkpoint``: it is not the note of these records, or its signature is false.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        number = scene.number(0, len(stream.tape.notes))
        note = bytearray(stream.tape.notes[number])
        place = scene.pick([note.index(b"\n", note.index(b"\n") + 1) + 5, len(note) - 20])
        note[place] = ord("A") if note[place] != ord("A") else ord("B")
        sizes = scene.note_sizes(stream)
        stream.tape.notes[number] = bytes(note)
        scene.shop.save()
        return Expected("checkpoint", stream.name, sizes[number - 1] if number else 0)

    tried(attack)


def test_set_the_clock_back() -> None:
    """A record gets a time before that of the record before it, and the chain is computed again.

    Times of a stream never go back: ``time``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick(scene.streams)
        seq = scene.number(1, scene.vouched(stream))
        before = "2026-01-01T00:00:00.000000000Z"
        stream.tape.lines = rechained(stream.tape.lines, {seq: {"time": before}}, begin=seq)
        scene.shop.save()
        return Expected("time", stream.name, seq)

    tried(attack)


def test_append_after_the_end() -> None:
    """A record that follows the last one is appended to a stream that was closed or recovered, or bytes are.

    Nothing comes after the end: ``spliced``, or ``torn`` when it is no whole line.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick([each for each in scene.streams if each.state in {"closed", "recovered"}])
        size, lines = stream.tape.size, stream.tape.lines
        if scene.pick([True, False]):
            stream.tape.lines = rechained([*lines, lines[-1]], {}, begin=size)
            kind = "spliced"
        else:
            stream.torn, kind = b"junk", "torn"
        scene.shop.save()
        return Expected(kind, stream.name, size)

    tried(attack)


def test_move_the_border_between_segments() -> None:
    """The first record of a segment is moved to the end of the one before, or the last one to the next.

    The segment ends where it says so: ``spliced``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick([each for each in scene.streams if len(each.begins) > 1])
        number = scene.number(1, len(stream.begins))
        seq = stream.begins[number]
        assume(seq + 1 < [*stream.begins, stream.tape.size][number + 1])
        by = scene.pick([1, -1])
        stream.begins[number] += by
        scene.shop.save()
        return Expected("spliced", stream.name, min(seq, seq + by))

    tried(attack, segments=2)


def test_put_another_ledger_in_its_place() -> None:
    """The whole directory is replaced by a ledger that verifies with the key inside it.

    The key that the auditor has is none of it: ``key``.
    """

    def attack(scene: Scene) -> Expected:
        other = Workshop(scene.root / "other", "another seed")
        other.write(other.open(), 3)
        other.save(scene.shop.directory)
        return Expected("key", "index", None)

    tried(attack)


def test_swap_the_public_key_inside() -> None:
    """``ledger.pub`` inside the ledger is replaced.

    Who trusts that copy would trust another ledger: ``key``.
    """

    def attack(scene: Scene) -> Expected:
        (scene.shop.directory / "ledger.pub").write_bytes(public_pem(scene.shop.key().public_key()))
        return Expected("key", "ledger.pub", None)

    tried(attack)


def test_put_back_an_old_copy() -> None:
    """The whole directory is replaced by a copy that was taken earlier.

    Nothing in it can tell; a note of the index that was kept elsewhere can: ``truncated``.
    """

    def attack(scene: Scene) -> Expected:
        shop, size = scene.shop, scene.shop.index.size
        later = shop.open()
        shop.write(later, 3)
        scene.anchor(shop.index.notes[-1])
        assert outcome(shop, []) is None, "the old copy is whole"
        return Expected("truncated", "index", size)

    tried(attack)


def test_put_back_an_old_copy_of_an_open_stream() -> None:
    """A stream that is open is cut at an earlier note, and its notes with it.

    Nothing says that it was longer but a note that was kept elsewhere: ``truncated``.
    """

    def attack(scene: Scene) -> Expected:
        stream = scene.pick([each for each in scene.streams if each.state == "open"])
        sizes = [size for size in scene.note_sizes(stream) if size > stream.begins[-1]]
        assume(len(sizes) > 1 and _agreed(scene, stream, stream.signed) <= sizes[0])
        scene.anchor(stream.tape.notes[-1])
        size = scene.pick(sizes[:-1])
        del stream.tape.lines[size:]
        stream.tape.notes = [note for note in stream.tape.notes if int(note.split(b"\n")[1]) <= size]
        scene.shop.save()
        assert outcome(scene.shop, []) is None, "an open stream may end at any note"
        return Expected("truncated", stream.name, size)

    tried(attack, endings=["open"])


def test_delete_the_newest_stream_with_its_records_in_the_index() -> None:
    """The newest stream is removed, and the index is cut where it begins, notes and all.

    What is left is an honest ledger of earlier; an anchor of the index, or of the stream, tells: ``truncated``.
    """

    def attack(scene: Scene) -> Expected:
        shop, size, count = scene.shop, scene.shop.index.size, len(scene.shop.index.notes)
        newest = shop.open()
        shop.write(newest, 2)
        shop.close(newest)
        scene.anchor(shop.index.notes[-1])
        del shop.streams[newest.name], shop.index.lines[size:], shop.index.notes[count:]
        shop.save()
        assert outcome(shop, []) is None, "nothing that is left names it"
        return Expected("truncated", "index", size)

    tried(attack, endings=["closed"])


def test_change_what_no_note_covers() -> None:
    """The records after the last note of a stream that is open, or dead and not yet recovered, are written anew.

    Nobody has vouched for them: nothing is found, and the report says how many they are. A note a second is the limit.
    """

    def attack(scene: Scene) -> None:
        stream = scene.pick([each for each in scene.streams if each.state in {"open", "killed"}])
        seq = scene.number(stream.signed, stream.tape.size)
        stream.tape.lines = rechained(stream.tape.lines, {seq: {"bundle": "sha256:forged"}}, begin=seq)
        scene.shop.save()

    tried(attack, endings=["open", "killed"])


@pytest.mark.long
def test_an_honest_ledger_gives_no_alarm() -> None:
    """Nothing is done to a thousand random ledgers.

    Nothing is found.
    """
    tried(lambda scene: None, examples=1000 if LONG else 20)


def test_a_crash_at_any_point_of_an_append_gives_no_alarm(tmp_path: Path) -> None:
    """The machine stops while the index grows: records without a note, half a line, half a note, an empty stream.

    All of that is what a writer leaves behind that was killed; nothing is found.
    """
    shop = Workshop(tmp_path)
    stream = shop.open()
    shop.write(stream, 3)
    shop.open()
    shop.save()
    index, notes = shop.directory / "index.jsonl", shop.directory / "index.checkpoints"
    lines, whole = shop.index.lines, notes.read_bytes()
    last = len(shop.index.notes[-1]) + 1
    opened = [path for path in shop.directory.glob("*") if path.name.startswith(list(shop.streams)[-1])]
    for path in opened:
        path.write_bytes(b"")
    for cut in range(0, last + 1, 9):
        notes.write_bytes(whole[: len(whole) - cut])
        assert outcome(shop, []) is None
        assert alone(shop)
    notes.write_bytes(whole[:-last])
    for cut in range(0, len(lines[-1]), 37):
        index.write_bytes(b"".join(lines)[: -cut or None])
        assert outcome(shop, []) is None
        assert alone(shop)
