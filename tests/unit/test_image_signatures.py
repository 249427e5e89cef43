"""A signature counts when a key of the site made it over the manifest that boots, and not otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.unit.imaging import Image, packed, unpacked
from tests.unit.signing import Signer, payload_of, signed_files
from typer.testing import CliRunner

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.boxlite.image_signatures import load_keys, read_signature, signature_tag
from cedarbox.boxlite.image_store import ImageStore
from cedarbox.cli import app
from cedarbox.errors import CedarboxError, ConfigurationError, ImageError
from cedarbox.settings import load_settings


def _signed(store: ImageStore, home: Path, *keys: Path, image: str = "agents/base:1") -> object:
    client = BoxLiteSandboxClient(home=home, images=store, image_keys=keys)
    return client.describe_sandbox(BoxLiteSandboxClientOptions(image=image))["signed"]


@pytest.mark.parametrize("ed25519", [False, True], ids=["P-256", "Ed25519"])
@pytest.mark.parametrize("saved", [True, False], ids=["cosign save", "a tag"])
@pytest.mark.parametrize("directory", [True, False])
def test_a_signature_in_a_layout_is_kept_and_verified(
    tmp_path: Path, ed25519: bool, saved: bool, directory: bool
) -> None:
    image, signer = Image(), Signer(ed25519=ed25519)
    payload = payload_of(image.digest)
    files = signed_files(image, payload, signer.sign(payload), saved=saved)
    source = unpacked(tmp_path / "layout", files) if directory else packed(tmp_path / "image.tar", files)
    store = ImageStore(tmp_path / "store")
    found = store.add(source)
    assert found.image.digest == image.digest
    key, other = signer.public(tmp_path / "key.pub"), Signer().public(tmp_path / "other.pub")
    assert _signed(store, tmp_path / "home", key) is True
    assert _signed(store, tmp_path / "home", other, key) is True
    assert _signed(store, tmp_path / "home", other) is False
    assert _signed(store, tmp_path / "home") is False
    # The layout in the store holds the image and nothing else.
    index = json.loads((found.path / "index.json").read_bytes())
    assert [entry["digest"] for entry in index["manifests"]] == [image.digest]


def test_the_tag_is_cosigns() -> None:
    assert signature_tag("sha256:" + "a" * 64) == "sha256-" + "a" * 64 + ".sig"


def test_an_image_without_a_signature_is_not_signed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    store.add(packed(tmp_path / "image.tar", Image().files()))
    assert _signed(store, tmp_path / "home", Signer().public(tmp_path / "key.pub")) is False


def test_an_image_that_is_not_here_is_not_signed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    assert _signed(store, tmp_path / "home", Signer().public(tmp_path / "key.pub"), image="other:1") is False


def test_an_image_whose_manifest_was_written_anew_is_not_signed(tmp_path: Path) -> None:
    image, signer = Image(kind="zstd"), Signer()
    payload = payload_of(image.digest)
    store = ImageStore(tmp_path / "store")
    store.add(packed(tmp_path / "image.tar", signed_files(image, payload, signer.sign(payload))))
    assert _signed(store, tmp_path / "home", signer.public(tmp_path / "key.pub")) is False


def test_a_second_import_keeps_the_signatures(tmp_path: Path) -> None:
    image, signer = Image(), Signer()
    plain = packed(tmp_path / "plain.tar", image.files())
    payload = payload_of(image.digest)
    store, key = ImageStore(tmp_path / "store"), signer.public(tmp_path / "key.pub")
    store.add(plain)
    store.add(packed(tmp_path / "signed.tar", signed_files(image, payload, signer.sign(payload))))
    assert _signed(store, tmp_path / "home", key) is True
    store.add(plain, name="other:1")
    assert _signed(store, tmp_path / "home", key, image="other:1") is True
    store.remove(image.digest)
    store.add(plain)
    assert _signed(store, tmp_path / "home", key) is False


def test_keys_come_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cedarbox.toml").write_text('[sandbox]\nimage_keys = ["keys/images.pub"]\n')
    monkeypatch.chdir(tmp_path)
    assert load_settings().sandbox.image_keys == (Path("keys/images.pub"),)


def test_a_key_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    curve = generate_private_key(SECP384R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, content, said in (("a", None, "cannot be read"), ("b", b"x", "not a public key"), ("c", curve, "P-256")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=f"{path}: .*{said}"):
            load_keys([path])


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image, signer = Image(), Signer()
    payload = payload_of(image.digest)
    packed(tmp_path / "image.tar", image.files())
    (tmp_path / "image.payload").write_bytes(payload)
    (tmp_path / "image.sig").write_bytes(signer.sign(payload) + b"\n")
    signer.public(tmp_path / "key.pub")
    Signer().public(tmp_path / "other.pub")

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["image", *arguments, "--store", "store"])
        if isinstance(result.exception, CedarboxError):
            return 2, str(result.exception)
        return result.exit_code, result.stdout

    assert run("import", "image.tar", "--signature", "image.sig")[0] == 2
    assert run("import", "image.tar", "--signature", "image.sig", "--payload", "image.payload")[0] == 0
    assert run("verify", "agents/base:1", "--public-key", "key.pub") == (
        0,
        f"{image.digest} is signed by a trusted key\n",
    )
    code, said = run("verify", "agents/base:1", "--public-key", "other.pub", "--json")
    assert (code, json.loads(said)["signed"]) == (1, False)
    assert "no trusted key" in json.loads(said)["reason"]
    assert run("verify", "none:1", "--public-key", "key.pub")[0] == 2
    assert run("verify", "agents/base:1", "--public-key", "missing.pub")[0] == 2
    assert "no key is given" in run("verify", "agents/base:1")[1]
    blob = next((tmp_path / "store" / "layouts").glob("*/blobs/sha256/*"))
    blob.write_bytes(b"x")
    assert run("verify", "agents/base:1", "--public-key", "key.pub")[0] == 1


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b'{"version": 2}', b'{"version": 1, "signatures": [1]}', b"[" * 100_000]
)
def test_damaged_signatures_of_the_store_are_named(tmp_path: Path, damage: bytes) -> None:
    image, signer = Image(), Signer()
    payload = payload_of(image.digest)
    store = ImageStore(tmp_path / "store")
    store.add(packed(tmp_path / "image.tar", signed_files(image, payload, signer.sign(payload))))
    (file,) = (tmp_path / "store" / "signatures").iterdir()
    file.write_bytes(damage)
    with pytest.raises(ImageError, match="signatures are damaged"):
        _signed(store, tmp_path / "home", signer.public(tmp_path / "key.pub"))


@pytest.mark.parametrize("reader", ["key", "signature", "payload"])
def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_block(tmp_path: Path, reader: str) -> None:
    pipe, plain = tmp_path / "pipe", tmp_path / "plain"
    os.mkfifo(pipe)
    plain.write_bytes(b"eA==")
    readers: dict[str, Callable[[], object]] = {
        "key": lambda: load_keys([pipe]),
        "signature": lambda: read_signature(pipe, plain),
        "payload": lambda: read_signature(plain, pipe),
    }
    with pytest.raises((ConfigurationError, ImageError), match="cannot be read"):
        readers[reader]()
