"""Attacks on the policy bundle: whoever can write it tries to have other policies in force.

A bundle that is refused at the start leaves no ledger: there is no run to record. Tests go through the front door,
``PolicySandboxClient``, and assert both.
"""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.redteam.sites import Site
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.signed import CREATED, make_key, manifest_of, metadata, seal, signed_bundle

from cedarbox.audit import read_records
from cedarbox.ed25519 import pae
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy import PolicyBundle
from cedarbox.policy.reading import read_bundle
from cedarbox.policy.signing import PAYLOAD_TYPE, SIGNATURE_FILE, key_id

_FORBID = '@id("no") forbid (principal, action, resource);'
_LATER = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_no_attack_at_all(site: Site) -> None:
    """The control: the bundle as it was signed is in force, and the ledger says by whom it was signed."""
    site.client().close()
    record = next(record for _, record in read_records(site.settings.audit.directory) if record.entry.bundle)
    assert record.entry.event == "policy.loaded"
    assert record.entry.attrs["signed_by"] == (key_id(site.keys[0].public_key()),)


def test_an_unsigned_bundle_where_signatures_are_required(site: Site) -> None:
    """The signature is removed. Refused; nothing is made."""
    (site.bundle / SIGNATURE_FILE).unlink()
    site.assert_refused("not signed")


def test_an_unsigned_bundle_that_was_loaded_before(site: Site) -> None:
    """A bundle object that was loaded without any demand is handed in. It is read again under the demand: refused."""
    (site.bundle / SIGNATURE_FILE).unlink()
    site.assert_refused("not signed", PolicyBundle.load(site.bundle))


def test_a_bundle_object_that_differs_from_the_signed_one_on_disk(site: Site) -> None:
    """Other policies are loaded, then the signed ones put back in their place. What was loaded is not in force."""
    signed = (site.bundle / "policies.cedar").read_bytes()
    (site.bundle / "policies.cedar").write_text(PERMIT_ALL + "// other")
    loaded = PolicyBundle.load(site.bundle)
    (site.bundle / "policies.cedar").write_bytes(signed)
    site.assert_refused("changed since it was loaded", loaded)


def test_a_byte_of_a_policy_is_altered(site: Site) -> None:
    """One byte, after the signature was made. Refused, and the file is named."""
    text = (site.bundle / "policies.cedar").read_text()
    (site.bundle / "policies.cedar").write_text(text.replace("principal", "Principal", 1))
    site.assert_refused(r"policies\.cedar: it is not what was signed")


def test_a_policy_file_is_added(site: Site) -> None:
    """A further permit beside the signed policies. Refused, and the file is named."""
    (site.bundle / "zz.cedar").write_text('@id("more") permit (principal, action, resource);')
    site.assert_refused(r"zz\.cedar: the signature does not cover")


def test_a_policy_file_is_removed(site: Site) -> None:
    """The file with the forbids goes, the permits stay. Refused, and the file is named."""
    (site.bundle / "forbids.cedar").write_text(_FORBID)
    seal(site.bundle, manifest_of(site.bundle).payload(), site.keys[0])
    (site.bundle / "forbids.cedar").unlink()
    site.assert_refused(r"forbids\.cedar: the signature covers this file, and it is missing")


def test_a_signature_by_a_key_that_is_not_trusted(site: Site) -> None:
    """The attacker signs with a key of their own. Refused, and the message says who signed."""
    stranger, _ = make_key(site.directory, "stranger")
    signed_bundle(site.bundle, stranger)
    site.assert_refused("signed by 0 of the trusted keys, 1 needed; others that signed: sha256:")


def test_a_signature_by_a_stranger_under_the_id_of_a_trusted_key(site: Site) -> None:
    """The id of a key in the envelope is the attacker's to choose; it proves nothing."""
    stranger, _ = make_key(site.directory, "stranger")
    signed_bundle(site.bundle, stranger)
    text = (site.bundle / SIGNATURE_FILE).read_text()
    swapped = text.replace(key_id(stranger.public_key()), key_id(site.keys[0].public_key()))
    (site.bundle / SIGNATURE_FILE).write_text(swapped)
    site.assert_refused("is false")


def test_a_signature_of_another_bundle(site: Site) -> None:
    """The true signature of one bundle is put into another. Refused."""
    other = write_bundle(site.directory / "other", PERMIT_ALL + "// other", metadata=metadata())
    shutil.copy(site.bundle / SIGNATURE_FILE, other / SIGNATURE_FILE)
    site.assert_refused("it is not what was signed", other)


def test_a_signature_over_another_kind_of_document(site: Site) -> None:
    """The trusted key signed the same bytes as another type of DSSE payload. Refused: the type is signed too."""
    payload = manifest_of(site.bundle).payload()
    signature = site.keys[0].sign(pae("application/vnd.in-toto+json", payload))
    document = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id(site.keys[0].public_key()), "sig": b64encode(signature).decode()}],
    }
    (site.bundle / SIGNATURE_FILE).write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n")
    site.assert_refused("is false")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda payload: payload.replace(b'{"created"', b'{"revision":9,"created"'), "twice"),
        (lambda payload: payload.replace(b'"files":{', b'"files":{"a.cedar":"","a.cedar":"",'), "twice"),
        (lambda payload: payload.replace(b'"revision":1', b'"revision": 1'), "not canonical"),
        (lambda payload: payload.replace(b'"name":"test"', b'"name":"\\u0074est"'), "not canonical"),
        (lambda payload: payload.replace(b'"revision":1', b'"revision":1.0'), "wrong type"),
        (lambda payload: payload.replace(b'"revision":1', b'"revision":1e0'), "wrong type"),
        (lambda payload: payload + b"\n", "not canonical"),
        (lambda payload: payload.replace(b'{"created"', b'{"comment":"","created"'), "no others"),
        (lambda payload: payload.replace(b'"schema":1', b'"schema":NaN'), "not JSON"),
        (lambda _: b"[" * 100_000, "not JSON"),
        (lambda payload: payload.replace(b"T03:04:05Z", b"T03:04:05+00:00"), "time"),
        (lambda payload: payload.replace(b"2026-01-02", b"2026-02-30"), "time"),
    ],
)
def test_a_payload_that_two_readers_could_read_differently(
    site: Site, change: Callable[[bytes], bytes], said: str
) -> None:
    """A trusted key was brought to sign a payload with duplicate keys, or with another form of a value. Refused."""
    payload = manifest_of(site.bundle).payload()
    assert change(payload) != payload
    seal(site.bundle, change(payload), site.keys[0])
    site.assert_refused(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('{"payload"', '{"payloadType":"x","payload"'), "twice"),
        (lambda text: text.replace('{"payload"', '{ "payload"'), "not canonical"),
        (lambda text: text.rstrip("\n"), "not canonical"),
        (lambda text: text.replace('{"payload"', '{"a":1,"payload"'), "no others"),
        (lambda text: text.replace('{"keyid"', '{"extra":1,"keyid"'), "signature must be"),
        (lambda text: text.replace(PAYLOAD_TYPE, "application/json"), "payload type"),
        (lambda text: "[]", "keys"),
        (lambda text: "\ud800", "not JSON"),
    ],
)
def test_an_envelope_with_something_else_in_it(site: Site, change: Callable[[str], str], said: str) -> None:
    """The envelope around a true signature is changed so that it still parses somewhere. Refused."""
    path = site.bundle / SIGNATURE_FILE
    path.write_text(change(path.read_text()), encoding="utf-8", errors="surrogatepass")
    site.assert_refused(said)


def test_a_rollback_to_a_signed_older_revision(site: Site) -> None:
    """Revision 2 was in force; revision 1, with its true signature, is put back. Refused, and both are named."""
    newer = signed_bundle(site.directory / "newer", site.keys[0], policies=_FORBID, revision=2)
    assert site.accept(newer).revision == 2
    site.assert_refused("revision 1 of 'test'.*2 was accepted")


def test_other_content_under_the_same_revision(site: Site) -> None:
    """The signer signed two bundles as revision 1; the second takes the place of the first. Refused."""
    site.accept()
    other = signed_bundle(site.directory / "other", site.keys[0], policies=PERMIT_ALL + "// other")
    site.assert_refused("revision 1 of 'test' was accepted with other content", other)


def test_an_expired_bundle(site: Site) -> None:
    """A bundle whose signature expired is put in place. Refused."""
    signed_bundle(site.bundle, site.keys[0], expires=CREATED + timedelta(days=1))
    assert CREATED + timedelta(days=1) < datetime.now(UTC)
    site.assert_refused("expired at 2026-01-03 03:04:05Z")


def test_a_bundle_that_expires_while_it_is_in_force(site: Site) -> None:
    """It is loaded in time and used too late. It can be asked at each decision, and says no from that second on."""
    bundle = site.accept(signed_bundle(site.bundle, site.keys[0], expires=_LATER))
    bundle.check_current(_LATER - timedelta(microseconds=1))
    with pytest.raises(BundleError, match="expired at 2999-01-01"):
        bundle.check_current(_LATER)


def test_the_expiry_is_edited_in_the_payload(site: Site) -> None:
    """The payload of an expired bundle is given a later expiry; the signature stays. Refused."""
    expired = CREATED + timedelta(days=1)
    signed_bundle(site.bundle, site.keys[0], expires=expired)
    document = json.loads((site.bundle / SIGNATURE_FILE).read_text())
    document["payload"] = b64encode(manifest_of(site.bundle, expires=_LATER).payload()).decode()
    (site.bundle / SIGNATURE_FILE).write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n")
    site.assert_refused("is false")


@pytest.mark.parametrize(
    ("as_id", "said"),
    [(0, "two signatures of one key"), (1, "is false"), (None, "is by another key")],
    ids=["under its own id", "under the other's id", "under no one's id"],
)
def test_two_signatures_of_one_key_for_a_threshold_of_two(tmp_path: Path, as_id: int | None, said: str) -> None:
    """One of two signers signs twice, the second time under another id. Refused: different keys are counted."""
    site = Site(tmp_path, keys=2, threshold=2)
    signed_bundle(site.bundle, site.keys[0])
    site.assert_refused("signed by 1 of the trusted keys, 2 needed")
    document = json.loads((site.bundle / SIGNATURE_FILE).read_text())
    name = "sha256:" + "f" * 64 if as_id is None else key_id(site.keys[as_id].public_key())
    document["signatures"].append({"keyid": name, "sig": document["signatures"][0]["sig"]})
    document["signatures"].sort(key=lambda item: item["keyid"])
    (site.bundle / SIGNATURE_FILE).write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n")
    site.assert_refused(said)


def test_one_public_key_given_twice_for_a_threshold_of_two(tmp_path: Path) -> None:
    """The same key in two files must not pass for two signers. A configuration error; nothing is made."""
    site = Site(tmp_path, keys=2, threshold=2)
    shutil.copy(tmp_path / "keys" / "key0.pub", tmp_path / "keys" / "key1.pub")
    with pytest.raises(ConfigurationError, match="2 signatures are asked for and 1 different"):
        site.client()
    assert not site.settings.audit.directory.exists()


def test_a_bad_signature_where_none_is_required(tmp_path: Path) -> None:
    """Signatures are not required, keys are known. A signature that is there and false is never passed over."""
    site = Site(tmp_path, required=False)
    (site.bundle / "policies.cedar").write_text(PERMIT_ALL + "// other")
    site.assert_refused("it is not what was signed")
    (site.bundle / SIGNATURE_FILE).unlink()
    assert site.accept().signed_by == ()


@pytest.mark.parametrize("name", ["policies.cedar", SIGNATURE_FILE])
def test_a_link_in_place_of_a_file(site: Site, name: str) -> None:
    """A file becomes a link to the same content elsewhere, to be changed later. Refused."""
    (site.bundle / name).rename(site.directory / "elsewhere")
    (site.bundle / name).symlink_to(site.directory / "elsewhere")
    site.assert_refused(f"{name}: not a regular file")


@pytest.mark.parametrize("name", ["policies.cedar", SIGNATURE_FILE])
def test_a_pipe_in_place_of_a_file(site: Site, name: str) -> None:
    """A file becomes a pipe that nobody writes to. Refused at once: opening it would wait for ever."""
    (site.bundle / name).unlink()
    os.mkfifo(site.bundle / name)
    site.assert_refused(f"{name}: not a regular file")


def test_a_name_that_would_forge_a_line_of_the_digest(site: Site) -> None:
    """A line feed in a file name would let two bundles have one digest. Refused."""
    (site.bundle / f"a\n{'0' * 64}  b.cedar").write_text(PERMIT_ALL)
    site.assert_refused("printable")


def test_a_signature_file_of_a_gigabyte(site: Site) -> None:
    """A sparse file that would fill the memory. Refused by its size, without reading it."""
    os.truncate(site.bundle / SIGNATURE_FILE, 1 << 30)
    site.assert_refused("larger than 1048576 bytes")


@pytest.mark.parametrize(
    ("policies", "about", "said"),
    [
        (f"{PERMIT_ALL}\n{PERMIT_ALL}", metadata(), r"policies\.cedar:2.*second policy with the id 'all'"),
        (PERMIT_ALL, metadata(schema=2), "schema is 2, expected 1"),
        (
            'permit (principal, action == Sandbox::Action::"exec", resource) when { context.root };',
            metadata(),
            r"policies\.cedar:1.*does not fit the schema.*root",
        ),
    ],
    ids=["duplicate policy ids", "another schema version", "a policy that does not fit the schema"],
)
def test_a_signed_bundle_that_is_wrong_in_itself(site: Site, policies: str, about: str, said: str) -> None:
    """A trusted key signed it all the same. A signature excuses nothing: refused."""
    payload = manifest_of(site.bundle)
    write_bundle(site.bundle, policies, metadata=about)
    files = read_bundle(site.bundle, with_signature=False).deciding
    changed = {name: sha256(data).hexdigest() for name, data in files.items()}
    manifest = type(payload)("test", 1, changed, 2 if "schema = 2" in about else 1, CREATED)
    seal(site.bundle, manifest.payload(), site.keys[0])
    site.assert_refused(said)


def test_a_manifest_that_says_another_revision_than_the_bundle(site: Site) -> None:
    """The signed revision is higher than the one in bundle.toml, to get past the memory of the host. Refused."""
    payload = manifest_of(site.bundle)
    seal(site.bundle, type(payload)("test", 9, payload.files, payload.schema, CREATED).payload(), site.keys[0])
    site.assert_refused("another name, revision or schema")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_text("garbage"),
        lambda path: path.write_text(path.read_text().replace("1", "1.0")),
        lambda path: path.write_text(path.read_text().replace("{", '{"bundles":{},', 1)),
        lambda path: path.write_text('{"bundles":{"test":{"digest":1,"revision":"1"}},"format":1}\n'),
        lambda path: path.write_bytes(b""),
        lambda path: path.chmod(0o666),
        lambda path: (path.unlink(), path.mkdir()),
        _become_a_pipe,
        lambda path: (path.rename(path.with_name("moved")), path.symlink_to("moved")),
        lambda path: os.truncate(path, 1 << 30),
    ],
    ids=["garbage", "number", "duplicate", "types", "empty", "mode", "directory", "pipe", "link", "gigabyte"],
)
def test_the_memory_of_revisions_is_damaged(site: Site, harm: Callable[[Path], Any]) -> None:
    """The state file is made unreadable, to have an old revision taken. Refused: no memory, no bundle."""
    site.accept()
    harm(site.state)
    site.assert_refused(r"bundles\.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_the_memory_of_revisions_is_made_unreadable(site: Site) -> None:
    """The state file may not be read any more. Refused."""
    site.accept()
    site.state.chmod(0)
    site.assert_refused(r"bundles\.json")


def test_eight_revisions_accepted_at_once(site: Site) -> None:
    """Eight loaders bring eight revisions at the same moment, again and again.

    The state file ends with the highest, and no lower one is accepted after a higher one was.
    """
    bundles = [signed_bundle(site.directory / f"r{n}", site.keys[0], revision=n) for n in range(1, 9)]
    accepted: list[int] = []

    def bring(bundle: Path) -> None:
        for _ in range(5):
            try:
                accepted.append(site.accept(bundle).revision)
            except BundleError as error:
                assert "was accepted already" in error.message  # noqa: PT017 - in a thread

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bring, bundles))
    state = json.loads(site.state.read_text())
    assert state["bundles"]["test"]["revision"] == 8
    assert accepted.count(8) == 5
    with pytest.raises(BundleError, match="8 was accepted already"):
        site.accept(bundles[6])
