"""``cedarbox policy keygen``, ``sign`` and ``verify``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.signed import metadata, signed_bundle

from cedarbox.cli import main
from cedarbox.ed25519 import load_private_key
from cedarbox.policy import PolicyBundle
from cedarbox.policy.signing import SIGNATURE_FILE, read_envelope, read_manifest


class Commands:
    """Runs commands in a directory with two key pairs, ``a`` and ``b``, and a bundle."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.directory, self._patch, self._capture = directory, patch, capture
        patch.chdir(directory)
        write_bundle(directory / "bundle", PERMIT_ALL, metadata=metadata(3))
        for name in ("a", "b"):
            assert self("keygen", f"{name}.key")[0] == 0

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run ``cedarbox policy`` and return its exit code, its output and its errors."""
        self._patch.setattr(sys, "argv", ["cedarbox", "policy", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        out, err = self._capture.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    def refused(self, *arguments: str, said: str) -> None:
        """Run it and expect exit code 2, one line that says why, and no change on disk."""
        before = self.files()
        code, out, err = self(*arguments)
        assert (code, out) == (2, ""), err
        assert len(err.splitlines()) == 1
        assert said in err
        assert self.files() == before

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.directory.rglob("*")) if path.is_file()}

    def signers(self) -> int:
        return len(read_envelope((self.directory / "bundle" / SIGNATURE_FILE).read_bytes(), Path("x")).signatures)

    def expires(self) -> datetime | None:
        envelope = read_envelope((self.directory / "bundle" / SIGNATURE_FILE).read_bytes(), Path("x"))
        return read_manifest(envelope.payload, Path("x")).expires


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys)


def test_a_bundle_that_was_signed_verifies(policy: Commands) -> None:
    code, out, _ = policy("sign", "bundle", "--key", "a.key")
    assert code == 0
    assert "test revision 3, 3 files, no expiry" in out
    code, out, _ = policy("verify", "bundle", "--public-key", "a.pub")
    assert code == 0
    assert "good, no expiry" in out
    code, out, _ = policy("verify", "bundle", "--public-key", "b.pub", "--public-key", "a.pub", "--json")
    digest = PolicyBundle.load("bundle").digest
    told = json.loads(out)
    signer = told.pop("signed_by")
    assert len(signer) == 1
    assert signer[0] in policy("verify", "bundle", "--public-key", "a.pub")[1]
    assert told == {"ok": True, "name": "test", "revision": 3, "digest": digest, "expires": None}


def test_a_bundle_that_was_changed_does_not(policy: Commands) -> None:
    policy("sign", "bundle", "--key", "a.key")
    Path("bundle/policies.cedar").write_text(PERMIT_ALL + "//")
    code, out, err = policy("verify", "bundle", "--public-key", "a.pub")
    assert (code, err) == (1, "")
    assert out.startswith("refused: bundle/policies.cedar: it is not what was signed")
    assert len(out.splitlines()) == 1
    code, out, _ = policy("verify", "bundle", "--public-key", "a.pub", "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert "policies.cedar" in json.loads(out)["reason"]


def test_an_unsigned_bundle_does_not_verify(policy: Commands) -> None:
    assert policy("verify", "bundle", "--public-key", "a.pub")[0] == 1


def test_an_expired_bundle_does_not_verify(policy: Commands) -> None:
    signed_bundle(Path("bundle"), load_private_key(Path("a.key"))[0], expires=datetime(2026, 1, 3, tzinfo=UTC))
    code, out, _ = policy("verify", "bundle", "--public-key", "a.pub")
    assert code == 1
    assert "expired at 2026-01-03" in out


def test_two_signers(policy: Commands) -> None:
    policy("sign", "bundle", "--key", "a.key", "--expires", "2999-01-01")
    both = ["verify", "bundle", "--public-key", "a.pub", "--public-key", "b.pub", "--threshold", "2"]
    assert policy(*both)[0] == 1
    assert policy("sign", "bundle", "--key", "b.key")[0] == 0
    assert policy(*both)[0] == 0
    assert policy.expires() == datetime(2999, 1, 1, tzinfo=UTC)
    assert policy("sign", "bundle", "--key", "b.key", "--expires", "2999-01-01T00:00:00Z")[0] == 0
    assert policy.signers() == 2
    policy.refused("sign", "bundle", "--key", "b.key", "--expires", "2998-01-01", said="others signed it")


def test_the_only_signer_can_change_the_expiry(policy: Commands) -> None:
    policy("sign", "bundle", "--key", "a.key", "--expires", "2999-01-01")
    assert policy("sign", "bundle", "--key", "a.key", "--expires", "2998-01-01T12:00:00Z")[0] == 0
    assert policy.signers() == 1
    assert policy.expires() == datetime(2998, 1, 1, 12, tzinfo=UTC)


def test_signatures_of_a_changed_bundle_are_dropped_and_that_is_told(policy: Commands) -> None:
    policy("sign", "bundle", "--key", "a.key")
    Path("bundle/policies.cedar").write_text(PERMIT_ALL + "//")
    code, out, _ = policy("sign", "bundle", "--key", "b.key")
    assert code == 0
    assert "earlier signatures are dropped" in out
    assert policy.signers() == 1


def test_an_expiry_as_an_age(policy: Commands) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    policy("sign", "bundle", "--key", "a.key", "--expires", "90d")
    expires = policy.expires()
    assert expires is not None
    assert before <= expires - timedelta(days=90) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        ("soon", "not an age or a date"),
        ("2026-02-30", "no day"),
        ("999999999w", "no day"),
        ("2020-01-01", "over already"),
        ("0d", "over already"),
        ("2999-01-01T00:00:00", "not an age or a date"),
    ],
)
def test_an_expiry_that_cannot_be_used(policy: Commands, expires: str, said: str) -> None:
    policy.refused("sign", "bundle", "--key", "a.key", "--expires", expires, said=said)


def test_a_bundle_that_cannot_be_used_is_not_signed(policy: Commands) -> None:
    Path("bundle/policies.cedar").write_text("// fine\npermit (principal, action, resource) whn { true };")
    policy.refused("sign", "bundle", "--key", "a.key", said="policies.cedar:2")
    policy.refused("sign", "nowhere", "--key", "a.key", said="nowhere")


def test_a_signature_file_that_is_garbage_is_not_replaced_silently(policy: Commands) -> None:
    Path("bundle", SIGNATURE_FILE).write_text("garbage")
    policy.refused("sign", "bundle", "--key", "a.key", said="not JSON")


def test_keys_that_cannot_be_used(policy: Commands) -> None:
    policy.refused("sign", "bundle", "--key", "none.key", said="none.key")
    policy.refused("sign", "bundle", "--key", "a.pub", said="can be read by others")
    policy.refused("verify", "bundle", "--public-key", "a.key", said="a.key: no PEM public key")
    policy.refused("verify", "bundle", "--public-key", "a.pub", "--threshold", "2", said="1 different public keys")
    policy.refused("verify", "nowhere", "--public-key", "a.pub", said="nowhere: no such directory")
    policy.refused("keygen", "a.key", said="it is there already")


def test_verifying_without_a_key_is_a_mistake_of_usage(policy: Commands) -> None:
    assert policy("verify", "bundle")[0] == 2
