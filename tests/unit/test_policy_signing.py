"""Signatures of bundles: what is signed, that every bit of it counts, and whose signatures do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.signed import CREATED, make_key, manifest_of, metadata, seal, signed_bundle

from cedarbox.ed25519 import load_private_key, load_public_key, pae, write_key_pair
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy import PolicyBundle, trust
from cedarbox.policy.signing import (
    PAYLOAD_TYPE,
    SIGNATURE_FILE,
    Envelope,
    Manifest,
    Signers,
    key_id,
    read_envelope,
    read_manifest,
    sign,
    verify,
)
from cedarbox.policy.trust import Trust
from cedarbox.settings import load_settings

_PATH = Path("bundle.sig.json")
_KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(3)]
_SIGNERS = Signers.of(key.public_key() for key in _KEYS[:2])
_LATER = datetime(2999, 1, 1, tzinfo=UTC)
_MANIFEST = Manifest("test", 7, {"a.cedar": "0" * 64, "bundle.toml": "1" * 64}, 1, CREATED, _LATER)


def test_the_encoding_is_that_of_the_published_specification() -> None:
    """The test vector of DSSE 1.0, https://github.com/secure-systems-lab/dsse/blob/master/protocol.md."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected


def test_the_encoding_counts_bytes_and_not_characters() -> None:
    assert pae("\u00e4", "\u00f6".encode()) == b"DSSEv1 2 \xc3\xa4 2 \xc3\xb6"


def test_the_payload_has_this_form() -> None:
    assert _MANIFEST.payload() == (
        b'{"created":"2026-01-02T03:04:05Z","expires":"2999-01-01T00:00:00Z","files":{"a.cedar":"' + b"0" * 64 + b'",'
        b'"bundle.toml":"' + b"1" * 64 + b'"},"name":"test","revision":7,"schema":1}'
    )
    assert read_manifest(_MANIFEST.payload(), _PATH) == _MANIFEST


@given(
    st.builds(
        Manifest,
        name=st.text(st.characters(exclude_categories=["Cs"])),
        revision=st.integers(0, 2**53 - 1),
        files=st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.text("0123456789abcdef", min_size=64, max_size=64),
        ),
        schema=st.integers(0, 9),
        created=st.integers(0, 2**34).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
        expires=st.none() | st.just(_LATER),
    )
)
def test_what_is_written_is_read_back(manifest: Manifest) -> None:
    envelope = sign(Envelope(manifest.payload(), {}), _KEYS[0])
    read = read_envelope(envelope.to_bytes(), _PATH)
    assert read == envelope
    assert verify(read, _SIGNERS, _PATH) == (key_id(_KEYS[0].public_key()),)
    assert read_manifest(read.payload, _PATH) == manifest


def test_the_id_of_a_key_is_the_digest_of_its_der_form(tmp_path: Path) -> None:
    """Against openssl, which knows nothing of this code."""
    _, public = make_key(tmp_path)
    der = _run("openssl", "pkey", "-pubin", "-in", public, "-outform", "DER")
    digest = _run("openssl", "dgst", "-sha256", "-r", data=der)
    assert key_id(load_public_key(public)) == "sha256:" + digest.split()[0].decode()


def test_openssl_verifies_a_signature(tmp_path: Path) -> None:
    """The signature is plain Ed25519 over what DSSE says, so that an auditor needs nothing of ours."""
    key, public = make_key(tmp_path)
    document = json.loads((signed_bundle(tmp_path / "bundle", key) / SIGNATURE_FILE).read_text())
    envelope = read_envelope((tmp_path / "bundle" / SIGNATURE_FILE).read_bytes(), _PATH)
    (tmp_path / "message").write_bytes(pae(document["payloadType"], envelope.payload))
    (tmp_path / "signature").write_bytes(next(iter(envelope.signatures.values())))
    told = _run(
        *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public),
        *("-rawin", "-in", tmp_path / "message", "-sigfile", tmp_path / "signature"),
    )
    assert told.strip() == b"Signature Verified Successfully"


def test_every_single_bit_of_an_envelope_counts() -> None:
    """All of them, with two signatures of which one would do."""
    good = sign(sign(Envelope(_MANIFEST.payload(), {}), _KEYS[0]), _KEYS[1]).to_bytes()
    assert len(verify(read_envelope(good, _PATH), _SIGNERS, _PATH)) == 2
    for position in range(len(good) * 8):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises(BundleError):
            verify(read_envelope(bytes(bad), _PATH), _SIGNERS, _PATH)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("signed") / "bundle", _KEYS[0], expires=_LATER)


@given(st.data())
def test_any_bit_that_is_flipped_in_any_file_is_refused(signed: Path, data: st.DataObject) -> None:
    files = {path.name: path.read_bytes() for path in sorted(signed.iterdir())}
    name = data.draw(st.sampled_from(sorted(files)))
    position = data.draw(st.integers(0, len(files[name]) * 8 - 1))
    bad = bytearray(files[name])
    bad[position // 8] ^= 1 << position % 8
    (signed / name).write_bytes(bad)
    try:
        with pytest.raises(BundleError):
            PolicyBundle.load(signed, signers=_SIGNERS)
    finally:
        (signed / name).write_bytes(files[name])
    assert len(PolicyBundle.load(signed, signers=_SIGNERS).signed_by) == 1


def test_a_signed_bundle_says_who_signed_it_and_until_when(signed: Path) -> None:
    bundle = PolicyBundle.load(signed, signers=_SIGNERS)
    assert bundle.signed_by == (key_id(_KEYS[0].public_key()),)
    assert bundle.expires == _LATER
    plain = PolicyBundle.load(signed)
    assert (plain.signed_by, plain.expires) == ((), None)
    assert plain.digest == bundle.digest


def test_the_digest_does_not_depend_on_the_signature(tmp_path: Path, signed: Path) -> None:
    shutil.copytree(signed, tmp_path / "copy")
    (tmp_path / "copy" / SIGNATURE_FILE).unlink()
    assert PolicyBundle.load(tmp_path / "copy").digest == PolicyBundle.load(signed, signers=_SIGNERS).digest


def test_signing_twice_with_one_key_replaces_and_another_key_adds() -> None:
    once = sign(Envelope(b"x", {}), _KEYS[0])
    assert sign(once, _KEYS[0]) == once
    both = sign(once, _KEYS[1])
    assert sorted(both.signatures) == sorted(key_id(key.public_key()) for key in _KEYS[:2])
    assert verify(both, Signers.of((key.public_key() for key in _KEYS), 2), _PATH) == tuple(sorted(both.signatures))


def test_a_signature_of_somebody_else_does_no_harm() -> None:
    envelope = sign(sign(Envelope(b"x", {}), _KEYS[0]), _KEYS[2])
    assert verify(envelope, _SIGNERS, _PATH) == (key_id(_KEYS[0].public_key()),)


@pytest.mark.parametrize(("keys", "threshold"), [(0, 1), (1, 2), (2, 0), (2, -1)])
def test_a_threshold_that_nothing_or_everything_meets_is_refused(keys: int, threshold: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{threshold} signatures are asked for and {keys} different"):
        Signers.of((key.public_key() for key in _KEYS[:keys]), threshold)


def test_too_many_signatures_are_refused() -> None:
    envelope = Envelope(b"x", {f"key{number}": b"y" for number in range(65)})
    with pytest.raises(BundleError, match="1 to 64 signatures"):
        read_envelope(envelope.to_bytes(), _PATH)


def test_no_signature_at_all_is_refused() -> None:
    with pytest.raises(BundleError, match="1 to 64 signatures"):
        read_envelope(Envelope(b"x", {}).to_bytes(), _PATH)


@pytest.mark.parametrize("payload", [5, None, "=", "eA", "e-A=", "eA==\n"])
def test_what_is_not_base64_is_refused(payload: object) -> None:
    document = {"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": [{"keyid": "a", "sig": "eA=="}]}
    with pytest.raises(BundleError, match="base64"):
        read_envelope(json.dumps(document).encode(), _PATH)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _run(*command: str | Path, data: bytes | None = None) -> bytes:
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


class TestTrust:
    """What a site demands, and what it remembers."""

    @staticmethod
    def made(tmp_path: Path) -> Trust:
        return Trust(True, _SIGNERS, tmp_path / "deep" / "state" / "bundles.json")

    def test_a_newer_revision_is_remembered_and_the_same_one_is_good(self, tmp_path: Path) -> None:
        demands = self.made(tmp_path)
        assert demands.state is not None
        for revision in (1, 1, 3, 3, 10):
            bundle = signed_bundle(tmp_path / "bundle", _KEYS[0], revision=revision)
            digest = trust.load(bundle, demands, CREATED).digest
            kept = json.loads(demands.state.read_text())
            assert kept == {"bundles": {"test": {"digest": digest, "revision": revision}}, "format": 1}
        assert demands.state.stat().st_mode & 0o777 == 0o600
        assert demands.state.parent.stat().st_mode & 0o777 == 0o700
        assert _names(demands.state.parent) == [".bundles.json.lock", "bundles.json"]

    def test_bundles_of_different_names_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        demands = self.made(tmp_path)
        trust.load(signed_bundle(tmp_path / "bundle", _KEYS[0], revision=5), demands, CREATED)
        other = write_bundle(tmp_path / "other", PERMIT_ALL, metadata=metadata(1, name="other"))
        trust.load(seal(other, manifest_of(other).payload(), _KEYS[0]), demands, CREATED)
        with pytest.raises(BundleError, match="revision 4 of 'test'"):
            trust.load(signed_bundle(tmp_path / "bundle", _KEYS[0], revision=4), demands, CREATED)

    @pytest.mark.parametrize("policies", ["permit (", '@id("x") permit (principal, action, resource) when { 1 };'])
    def test_a_bundle_that_is_refused_is_not_remembered(self, tmp_path: Path, policies: str) -> None:
        demands = self.made(tmp_path)
        bundle = signed_bundle(tmp_path / "bundle", _KEYS[0])
        (bundle / "policies.cedar").write_text(policies)
        with pytest.raises(BundleError):
            trust.load(bundle, demands, CREATED)
        expired = signed_bundle(tmp_path / "expired", _KEYS[0], expires=CREATED)
        with pytest.raises(BundleError, match="expired"):
            trust.load(expired, demands, CREATED)
        assert demands.state is not None
        assert not demands.state.exists()

    def test_a_state_that_cannot_be_written_refuses(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        demands = Trust(True, _SIGNERS, tmp_path / "file" / "bundles.json")
        with pytest.raises(BundleError, match="the state file cannot be used"):
            trust.load(signed_bundle(tmp_path / "bundle", _KEYS[0]), demands, CREATED)

    def test_without_demands_a_signature_is_not_looked_at_and_nothing_is_remembered(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "bundle", PERMIT_ALL)
        (bundle / SIGNATURE_FILE).write_text("garbage")
        before = sorted(tmp_path.rglob("*"))
        loaded = trust.load(bundle, Trust(), CREATED)
        assert loaded.signed_by == ()
        assert trust.load(loaded, Trust(), CREATED) is loaded
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_loaded_bundle_is_verified_all_the_same(self, tmp_path: Path) -> None:
        loaded = PolicyBundle.load(signed_bundle(tmp_path / "bundle", _KEYS[0]))
        assert trust.load(loaded, self.made(tmp_path), CREATED).signed_by == (key_id(_KEYS[0].public_key()),)

    @pytest.mark.parametrize(
        ("signers", "state", "said"), [(None, Path("x"), "no public key"), (_SIGNERS, None, "no state file")]
    )
    def test_demands_that_cannot_be_held_are_refused(
        self, signers: Signers | None, state: Path | None, said: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=said):
            Trust(True, signers, state)


class TestSettings:
    """What the settings say of signatures."""

    def test_by_default_nothing_is_demanded(self) -> None:
        demands = load_settings().trust()
        assert (demands.required, demands.signers) == (False, None)

    def test_the_state_is_beside_the_ledger(self, tmp_path: Path) -> None:
        _, public = make_key(tmp_path)
        audit = {"directory": tmp_path / "x" / "ledger"}
        settings = load_settings(policy={"require_signature": True, "public_keys": [public]}, audit=audit)
        assert settings.trust().state == tmp_path / "x" / "bundles.json"
        assert load_settings(policy={"state": "y"}, audit=audit).trust().state == Path("y")

    def test_the_environment_can_say_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, public = make_key(tmp_path)
        monkeypatch.setenv("CEDARBOX_POLICY__REQUIRE_SIGNATURE", "true")
        with pytest.raises(ConfigurationError, match="require_signature needs public_keys"):
            load_settings()
        monkeypatch.setenv("CEDARBOX_POLICY__PUBLIC_KEYS", json.dumps([str(public)]))
        demands = load_settings().trust()
        assert demands.required
        assert demands.signers is not None
        assert list(demands.signers.keys) == [key_id(load_public_key(public))]

    @pytest.mark.parametrize(
        ("policy", "said"),
        [
            ({"require_signature": True}, "require_signature needs public_keys"),
            ({"signature_threshold": 0}, "signature_threshold"),
            ({"public_keys": "release.pub"}, "public_keys"),
            ({"require_signatures": True}, "require_signatures"),
        ],
    )
    def test_a_setting_that_demands_nothing_is_refused(self, policy: dict[str, object], said: str) -> None:
        with pytest.raises(ConfigurationError, match=said):
            load_settings(policy=policy)

    @pytest.mark.parametrize("threshold", [2, 3])
    def test_more_signatures_than_keys_are_refused(self, tmp_path: Path, threshold: int) -> None:
        _, public = make_key(tmp_path)
        policy = {"public_keys": [public, public], "signature_threshold": threshold}
        with pytest.raises(ConfigurationError, match=f"{threshold} signatures are asked for and 1 different"):
            load_settings(policy=policy).trust()
        with pytest.raises(ConfigurationError, match="and 0 different"):
            load_settings(policy={"signature_threshold": threshold}).trust()


class TestKeyFiles:
    """Keys on disk."""

    def test_a_key_pair_is_made_with_the_right_modes(self, tmp_path: Path) -> None:
        public, key = write_key_pair(tmp_path / "release.key")
        assert public == tmp_path / "release.pub"
        assert (tmp_path / "release.key").stat().st_mode & 0o777 == 0o600
        assert load_pem_public_key(public.read_bytes()) == key
        assert load_private_key(tmp_path / "release.key")[0].public_key() == key
        assert _names(tmp_path) == ["release.key", "release.pub"]

    @pytest.mark.parametrize("there", ["release.key", "release.pub"])
    def test_nothing_is_overwritten_and_nothing_is_left(self, tmp_path: Path, there: str) -> None:
        (tmp_path / there).write_text("mine")
        with pytest.raises(ConfigurationError, match=f"{there}: it is there already"):
            write_key_pair(tmp_path / "release.key")
        assert _names(tmp_path) == [there]
        assert (tmp_path / there).read_text() == "mine"

    @pytest.mark.parametrize("name", ["release.pub", "nowhere/release.key", "a\0b", "."])
    def test_a_place_that_will_not_do_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigurationError):
            write_key_pair(Path(name) if name == "." else tmp_path / name)
        assert _names(tmp_path) == []

    def test_a_private_key_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        write_key_pair(tmp_path / "release.key")
        (tmp_path / "release.key").chmod(0o640)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            load_private_key(tmp_path / "release.key")[0]

    @pytest.mark.parametrize("algorithm", ["RSA", "X25519"])
    def test_a_key_of_another_kind_is_refused(self, tmp_path: Path, algorithm: str) -> None:
        private, public = tmp_path / "a.key", tmp_path / "a.pub"
        _run("openssl", "genpkey", "-algorithm", algorithm, "-out", private)
        _run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
        private.chmod(0o600)
        with pytest.raises(ConfigurationError, match="not an Ed25519 key"):
            load_private_key(private)[0]
        with pytest.raises(ConfigurationError, match="not an Ed25519 key"):
            load_public_key(public)

    def test_a_key_with_a_password_is_refused(self, tmp_path: Path) -> None:
        options = ["-algorithm", "ed25519", "-aes256", "-pass", "pass:x"]
        _run("openssl", "genpkey", *options, "-out", tmp_path / "a.key")
        (tmp_path / "a.key").chmod(0o600)
        with pytest.raises(ConfigurationError, match="without a password"):
            load_private_key(tmp_path / "a.key")[0]

    @pytest.mark.parametrize("harm", [Path.mkdir, os.mkfifo, Path.touch], ids=["directory", "pipe", "empty"])
    def test_what_is_no_key_is_refused_at_once(self, tmp_path: Path, harm: object) -> None:
        assert callable(harm)
        harm(tmp_path / "a.key")
        (tmp_path / "a.key").chmod(0o700 if (tmp_path / "a.key").is_dir() else 0o600)
        for read in (load_private_key, load_public_key):
            with pytest.raises(ConfigurationError, match=r"a\.key: "):
                read(tmp_path / "a.key")
            with pytest.raises(ConfigurationError, match=r"missing.*cannot be read"):
                read(tmp_path / "missing")
            with pytest.raises(ConfigurationError, match="NUL"):
                read(Path("a\0b"))
