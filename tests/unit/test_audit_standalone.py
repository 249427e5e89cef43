"""Proofs of single records, and the verifier that needs Python alone."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pymerkle import InmemoryTree, verify_inclusion  # type: ignore[import-untyped]
from tests.redteam.scenes import by_openssl
from tests.unit.forging import Stream, Workshop
from typer.testing import CliRunner

from cedarbox.audit import standalone
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.merkle import Tree, inclusion_path, root_from_path
from cedarbox.audit.prove import prove_record
from cedarbox.audit.record import Entry, parse_line
from cedarbox.audit.verify import verify_ledger
from cedarbox.cli import app
from cedarbox.ed25519 import raw_key
from cedarbox.errors import LedgerError

# RFC 8032 §7.1: secret key is left out; public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
            "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"
        ),
    ),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Three streams: closed with two segments, recovered with records after its last note, and open."""
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    closed = shop.open()
    shop.write(closed, 5)
    shop.seal(closed)
    shop.write(closed, 6)
    shop.close(closed)
    dead = shop.open()
    shop.write(dead, 3)
    shop.write(dead, 3, note=False)
    shop.kill(dead)
    living = shop.open()
    shop.write(living, 4)
    shop.write(living, 2, note=False)
    shop.save()
    return shop


def streams(shop: Workshop) -> list[Stream]:
    return list(shop.streams.values())


def run(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_signatures_by_the_vectors_of_rfc_8032(key: str, message: str, signature: str) -> None:
    given = [bytes.fromhex(text) for text in (key, message, signature)]
    assert standalone.verify_signature(*given)
    for number in range(3):
        for place in (0, len(given[number]) - 1):
            if not given[number]:
                continue
            changed = list(given)
            byte = bytearray(given[number])
            byte[place] ^= 1
            changed[number] = bytes(byte)
            assert not standalone.verify_signature(*changed)
    assert not standalone.verify_signature(given[0], given[1] + b"x", given[2])
    # RFC 8032 §5.1.7: s must be below the order of the base point, or one signature would have several forms.
    s = int.from_bytes(given[2][32:], "little") + standalone.ORDER
    assert not standalone.verify_signature(given[0], given[1], given[2][:32] + s.to_bytes(32, "little"))
    assert not standalone.verify_signature(given[0], given[1], given[2][:63])


def test_signatures_as_openssl_sees_them() -> None:
    for number in range(12):
        message = sha256(b"%d" % number).digest() * (number % 4)
        key = Ed25519PrivateKey.from_private_bytes(sha256(b"key %d" % number).digest())
        given = [raw_key(key.public_key()), message, key.sign(message)]
        assert standalone.verify_signature(*given)
        for place, at in ((0, number % 32), (2, number % 64)):
            changed = bytearray(given[place])
            changed[at] ^= 1 << number % 8
            wrong = [*given[:place], bytes(changed), *given[place + 1 :]]
            assert standalone.verify_signature(*wrong) == by_openssl(*wrong)


def test_inclusion_proofs_against_another_implementation() -> None:
    leaves, tree, other = [], Tree(), InmemoryTree(algorithm="sha256")
    for number in range(70):
        data = b"%d" % number
        other.append_entry(data)
        leaves.append(other.get_leaf(number + 1))
        tree.append(leaves[-1])
        assert tree.root() == other.get_root()
    for size in (1, 2, 3, 7, 8, 33, 64, 70):
        root = other.get_root(size)
        for index in range(size):
            path = inclusion_path(iter(leaves), index, size)
            assert root_from_path(leaves[index], index, size, path) == root
            assert standalone.path_root(leaves[index], index, size, path) == root
            proof = other.prove_inclusion(index + 1, size)
            verify_inclusion(other.get_leaf(index + 1), root, proof)
            assert set(path) <= set(proof.path)
            for wrong in [path[:-1], [*path, leaves[0]]] if path else [[leaves[0]]]:
                assert root_from_path(leaves[index], index, size, wrong) is None
                with pytest.raises(standalone.Bad):
                    standalone.path_root(leaves[index], index, size, wrong)


def test_a_tree_grows_alike_leaf_by_leaf_and_all_at_once() -> None:
    leaves = [sha256(b"%d" % number).digest() for number in range(700)]
    single = Tree()
    for begin, end in ((0, 5), (5, 5), (5, 64), (64, 300), (300, 301), (301, 640), (640, 700)):
        whole, parts = Tree(), single.copy()
        parts.extend(leaves[begin:end])
        whole.extend(leaves[:end])
        for leaf in leaves[begin:end]:
            single.append(leaf)
        assert single.root() == parts.root() == whole.root()
        assert single.size == parts.size == whole.size == end


def test_every_record_that_is_signed_for_can_be_proved_and_no_other(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "verify_signature", by_openssl)  # the others use its own, which is slow
    key = standalone.load_key(str(shop.trusted))
    counts = {"closed": 0, "recovered": 0, "open": 0}
    for stream in streams(shop):
        for seq in range(stream.tape.size):
            if stream.state == "open" and seq >= stream.signed:
                with pytest.raises(LedgerError, match=f"nothing signed covers record {seq} yet"):
                    prove_record(shop.directory, seq, stream=stream.name, public_key=shop.trusted)
                continue
            proof: Any = prove_record(shop.directory, seq, stream=stream.name, public_key=shop.trusted)
            assert proof["record"] == stream.tape.lines[seq].decode().removesuffix("\n")
            assert (proof["note"] is None) == (stream.state == "recovered" and seq >= stream.signed)
            assert f"record {seq} of stream {stream.name}" in standalone.check_proof(proof, key)
            counts[stream.state] += 1
        with pytest.raises(LedgerError, match=f"no record {stream.tape.size}"):
            prove_record(shop.directory, stream.tape.size, stream=stream.name, public_key=shop.trusted)
    assert min(counts.values()) >= 5


def test_a_proof_needs_the_name_of_the_stream_when_there_are_several(shop: Workshop) -> None:
    with pytest.raises(LedgerError, match="the ledger has 3 streams"):
        prove_record(shop.directory, 1, public_key=shop.trusted)
    with pytest.raises(LedgerError, match="has no stream"):
        prove_record(shop.directory, 1, stream="none", public_key=shop.trusted)


@pytest.mark.parametrize("number", [0, 1])
def test_no_field_of_a_proof_can_be_changed(shop: Workshop, number: int) -> None:
    key = standalone.load_key(str(shop.trusted))
    stream, other = streams(shop)[number], streams(shop)[1 - number]
    seq = stream.tape.size - 2
    proof: Any = prove_record(shop.directory, seq, stream=stream.name, public_key=shop.trusted)
    stranger: Any = prove_record(shop.directory, 2, stream=other.name, public_key=shop.trusted)
    standalone.check_proof(proof, key)
    wrong: list[dict[str, object]] = [{"format": "cedarbox.proof/2"}, {"more": 1}, {"stream": other.name}]
    wrong += [{"seq": seq - 1}, {"seq": str(seq)}, {"seq": True}, {"stream": None}, {"index": None}, {"path": "00"}]
    wrong += [{"record": stranger["record"]}, {"record": proof["record"].replace("443", "444")}]
    wrong += [{"record": proof["record"] + " "}, {"record": None}]
    wrong += [{"path": proof["path"][:-1]}, {"path": [*proof["path"], "0" * 64]}, {"path": proof["path"][::-1]}]
    wrong += [{"path": [1]}, {"path": ["zz", *proof["path"][1:]]}]
    wrong += [{"index": proof["index"][:-1]}, {"index": proof["index"][1:]}, {"index": [*proof["index"], "{}"]}]
    wrong += [{"index_notes": proof["index_notes"][:-1]}, {"index_notes": proof["index_notes"][::-1]}]
    wrong += [{"index_notes": [*proof["index_notes"][:-1], proof["index_notes"][-1][:-20] + "AAAAAAAAAAAAAAAAA==\n"]}]
    wrong += [{"note": stranger["note"]}, {"note": "junk"}, {"note": 1}]
    wrong += [{"note": None}] if proof["note"] is not None else [{"note": stream.tape.notes[0].decode()}]
    for change in wrong:
        assert proof | change != proof
        with pytest.raises(standalone.Bad):
            standalone.check_proof(proof | change, key)
    for name in proof:
        with pytest.raises(standalone.Bad):
            standalone.check_proof({each: value for each, value in proof.items() if each != name}, key)
    with pytest.raises(standalone.Bad):
        standalone.check_proof([proof], key)
    with pytest.raises(standalone.Bad):
        standalone.check_proof(proof, key[::-1])


def test_the_verifier_runs_without_anything_but_python(tmp_path: Path) -> None:
    directory, script, proof = tmp_path / "ledger", tmp_path / "cedarbox_verify.py", tmp_path / "proof.json"
    with Ledger.open(directory, segment_bytes=2000) as ledger:
        records = [ledger.append(Entry(event="outcome", attrs={"n": number})) for number in range(12)]
    trusted = tmp_path / "ledger.pub"
    cli = CliRunner()
    assert cli.invoke(app, ["audit", "verifier", "--output", str(script)]).exit_code == 0
    assert cli.invoke(app, ["audit", "verifier"]).stdout == script.read_text()
    made = cli.invoke(app, ["audit", "prove", "7", str(directory), "--output", str(proof)])
    assert made.exit_code == 0, made.output
    held = run(script, "proof", proof, "--public-key", trusted)
    assert (held.returncode, held.stderr) == (0, "")
    assert next(record.hash for record in records if record.seq == 7) in held.stdout
    whole = run(script, "ledger", directory, "--public-key", trusted)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert f"{verify_ledger(directory).records} records in 1 streams" in whole.stdout
    proof.write_text(proof.read_text().replace('"seq": 7', '"seq": 6'))
    assert run(script, "proof", proof, "--public-key", trusted).returncode == 1
    path = min(directory.glob("*.000001.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"outcome":null', b'"outcome":"forged"', 1))
    bad = run(script, "ledger", directory, "--public-key", trusted)
    assert bad.returncode == 1
    first = orjson.loads(path.read_bytes().splitlines()[0])["seq"]
    assert f"{path.name.partition('.')[0]}: record {first}: " in bad.stdout
    for wrong in (["ledger", tmp_path / "none", "--public-key", trusted], ["proof", trusted, "--public-key", trusted]):
        done = run(script, *wrong)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert run(script, "ledger", directory, "--public-key", script).returncode == 2
    for arguments in (["ledger", directory], ["proof", proof]):
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            command = [sys.executable, "-I", "-S", *map(str, [script, *arguments]), "--public-key", str(trusted)]
            lost = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert (lost.returncode, lost.stderr) == (2, b"")
    (directory / "\x1b[31m\u202e.jsonl").write_bytes(b"x\n")
    hostile = run(script, "ledger", directory, "--public-key", trusted)
    assert hostile.returncode == 1
    assert hostile.stdout.removesuffix("\n").isprintable()


def test_the_tool_of_openssl_verifies_a_note_of_the_index(shop: Workshop, tmp_path: Path) -> None:
    text, _, signatures = shop.index.notes[0].partition(b"\n\n")
    (tmp_path / "text").write_bytes(text + b"\n")
    (tmp_path / "signature").write_bytes(b64decode(signatures.split(b" ")[2])[4:])
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(shop.trusted), "-rawin"]
    command += ["-in", str(tmp_path / "text"), "-sigfile", str(tmp_path / "signature")]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "text").write_bytes(text + b"\n\n")
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1


def test_the_two_verifiers_read_a_record_alike() -> None:
    begin = b'{"action":null,"attrs":%s,"bundle":null,"call_id":null,"decision":null,"errors":[],"event":"outcome",'
    rest = (
        b'"outcome":null,"policies":[],"prev":"%s","principal":null,"resource":null,"run":null,"seq":0,"session":null,'
    )
    rest += b'"span_id":null,"time":"2026-11-23T00:09:31.123456789Z","tool":null,"trace_id":null}\n'
    for attrs, good in [
        (b"{}", True),
        (b'{"a":1,"b":[true,null,"\xc3\xa9"],"c":{"d":-9007199254740991}}', True),
        (b'{"b":1,"a":2}', False),
        (b'{"a":1,"a":2}', False),
        (b'{"a":1.0}', False),
        (b'{"a":1e2}', False),
        (b'{"a":-0}', False),
        (b'{"a":9007199254740992}', False),
        (b'{"a":"\\u00e9"}', False),
        (b'{"a":"\\u0001\\n\x7f"}', True),
        (b'{"a":"\\ud800"}', False),
        (b'{"a":"\xed\xa0\x80"}', False),
        (b'{"\xf0\x90\x80\x80":1}', False),
        (b'{"a":"\xf0\x90\x80\x80"}', True),
        (b'{"a":NaN}', False),
        (b'{"a":"/\\/"}', False),
        (b'{"a":%s1%s}' % (b"[" * 15, b"]" * 15), True),
        (b'{"a":%s1%s}' % (b"[" * 16, b"]" * 16), False),
        (b'{"a":%s1%s}' % (b"[" * 100_000, b"]" * 100_000), False),
    ]:
        head, tail = begin % attrs, rest % (b"0" * 64)
        digest = sha256(b"\x00" + head + tail[:-1]).hexdigest().encode()
        line = head + b'"hash":"' + digest + b'",' + tail
        results = []
        for read, errors in ((parse_line, LedgerError), (standalone.read_record, standalone.Bad)):
            try:
                results.append(read(line)[1] is not None)
            except errors:
                results.append(False)
        assert results == [good, good], attrs[:60]
