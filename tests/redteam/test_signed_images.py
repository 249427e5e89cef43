"""Attacks on the signatures of images: what was not signed by the site must not pass for signed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded
from tests.unit.imaging import Image, packed, root, unpacked
from tests.unit.signing import Signer, payload_of, signed_files

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.boxlite.image_signatures import load_keys
from cedarbox.boxlite.image_store import ImageStore
from cedarbox.errors import ConfigurationError, ImageError, PolicyDenied

_RULE = '@id("unsigned") forbid (principal, action == Sandbox::Action::"create", resource) unless { resource.signed };'


def _rewritten(payload: bytes, **critical: object) -> bytes:
    document = json.loads(payload)
    document["critical"] |= critical
    return json.dumps(document).encode()


# Each makes payload and signature of an image, with the key of the site.
ATTACKS: Mapping[str, Callable[[Image, Signer], tuple[bytes, bytes]]] = {
    "of another image": lambda image, signer: _by(signer, payload_of(Image([root(b"other")]).digest)),
    "by another key": lambda image, signer: _by(Signer(), payload_of(image.digest)),
    "by another kind of key": lambda image, signer: _by(Signer(ed25519=True), payload_of(image.digest)),
    "of another payload": lambda image, signer: (
        payload_of(image.digest),
        signer.sign(payload_of(Image([root(b"other")]).digest)),
    ),
    "payload altered by a space": lambda image, signer: (
        payload_of(image.digest) + b" ",
        signer.sign(payload_of(image.digest)),
    ),
    "of another type": lambda image, signer: _by(signer, payload_of(image.digest, kind="atomic container signature")),
    "of no type": lambda image, signer: _by(signer, _rewritten(payload_of(image.digest), type=None)),
    "digest beside the critical part": lambda image, signer: _by(
        signer, json.dumps({"critical": {}, "image": {"docker-manifest-digest": image.digest}}).encode()
    ),
    "digest in a list": lambda image, signer: _by(
        signer, _rewritten(payload_of(image.digest), image={"docker-manifest-digest": [image.digest]})
    ),
    "digest in capitals": lambda image, signer: _by(signer, payload_of(image.digest.upper())),
    "two digests": lambda image, signer: _by(
        signer,
        payload_of(image.digest).replace(b'"image":{', b'"image":{"docker-manifest-digest":"sha256:%s",' % (b"0" * 64)),
    ),
    "not JSON": lambda image, signer: _by(signer, image.digest.encode()),
    "too deep for a reader": lambda image, signer: _by(signer, b"[" * 10_000),
    "empty": lambda image, signer: (payload_of(image.digest), b""),
    "all zeros": lambda image, signer: (payload_of(image.digest), base64.b64encode(bytes(64))),
    "DER of zeros": lambda image, signer: (
        payload_of(image.digest),
        base64.b64encode(bytes.fromhex("3006020100020100")),
    ),
    "raw in place of DER": lambda image, signer: (
        payload_of(image.digest),
        base64.b64encode(base64.b64decode(signer.sign(payload_of(image.digest)))[4:]),
    ),
}


def _by(signer: Signer, payload: bytes) -> tuple[bytes, bytes]:
    return payload, signer.sign(payload)


async def _denied(tmp_path: Path, store: ImageStore, signer: Signer) -> None:
    key = signer.public(tmp_path / "site.pub")
    inner = BoxLiteSandboxClient(home=tmp_path / "home", images=store, image_keys=[key])
    guarded = Guarded(tmp_path / "guard", PERMIT_ALL + _RULE, inner=inner)
    options = BoxLiteSandboxClientOptions(image="agents/base:1")
    with pytest.raises(PolicyDenied):
        await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=None, options=options)
    entry = guarded.records("decision")[-1].entry
    assert (entry.decision, entry.action, entry.policies) == ("deny", "create", ("unsigned",))
    assert guarded.records("sandbox.created") == []


@pytest.mark.parametrize("attack", ATTACKS)
async def test_signature_that_is_none(tmp_path: Path, attack: str) -> None:
    """An image comes with a signature that the site's key did not make over its manifest.

    It is imported, but not as signed: the sandbox is denied by the rule, and the record names that rule.
    """
    image, signer = Image(), Signer()
    payload, signature = ATTACKS[attack](image, signer)
    store = ImageStore(tmp_path / "store")
    store.add(packed(tmp_path / "image.tar", signed_files(image, payload, signature)))
    await _denied(tmp_path, store, signer)


async def test_signature_is_missing(tmp_path: Path) -> None:
    """An image comes without any signature.

    The sandbox is denied by the rule, and the record names that rule.
    """
    store = ImageStore(tmp_path / "store")
    store.add(packed(tmp_path / "image.tar", Image().files()))
    await _denied(tmp_path, store, Signer())


async def test_signature_moved_to_another_image(tmp_path: Path) -> None:
    """Somebody who can write the image store moves the signature of a signed image to another one.

    The signature names the digest of its own image: the sandbox is denied by the rule, which the record names.
    """
    good, bad, signer = Image(), Image([root(b"bad")]), Signer()
    payload = payload_of(good.digest)
    store = ImageStore(tmp_path / "store")
    store.add(packed(tmp_path / "good.tar", signed_files(good, payload, signer.sign(payload))), name="good:1")
    store.add(packed(tmp_path / "bad.tar", bad.files()))
    signatures = tmp_path / "store" / "signatures"
    (signatures / good.digest.removeprefix("sha256:")).rename(signatures / bad.digest.removeprefix("sha256:"))
    await _denied(tmp_path, store, signer)


@pytest.mark.parametrize("field", ["digest", "layout_digest", "aliases"])
async def test_catalogue_that_lies_about_a_signed_image(tmp_path: Path, field: str) -> None:
    """Somebody who can write the catalogue gives an unsigned layout the digest, or an alias, of a signed image.

    What counts is the digest of the manifest that is in the layout now: not signed, or not even that image.
    """
    good, bad, signer = Image(), Image([root(b"bad")]), Signer()
    payload = payload_of(good.digest)
    store = ImageStore(tmp_path / "store")
    store.add(packed(tmp_path / "good.tar", signed_files(good, payload, signer.sign(payload))), name="good:1")
    store.add(packed(tmp_path / "bad.tar", bad.files()))
    catalogue = tmp_path / "store" / "catalogue.json"
    document = json.loads(catalogue.read_text())
    (entry,) = [item for item in document["images"] if item["digest"] == bad.digest]
    entry[field] = [good.digest] if field == "aliases" else good.digest
    if field == "digest":
        document["images"] = [entry]
        document["names"] = dict.fromkeys(document["names"], good.digest)
    catalogue.write_text(json.dumps(document))
    key = signer.public(tmp_path / "site.pub")
    client = BoxLiteSandboxClient(home=tmp_path / "home", images=store, image_keys=[key])
    assert client.describe_sandbox(BoxLiteSandboxClientOptions(image="agents/base:1"))["signed"] is False


def test_image_that_passes_for_a_signature(tmp_path: Path) -> None:
    """A layout that is booted where it lies has a second image, marked as a signature so that nobody checks it.

    BoxLite might boot that one: a layout of more than one manifest is refused, whatever the marks say.
    """
    image, signer = Image(), Signer()
    payload = payload_of(image.digest)
    layout = unpacked(tmp_path / "layout", signed_files(image, payload, signer.sign(payload)))
    client = BoxLiteSandboxClient(home=tmp_path / "home", image_keys=[signer.public(tmp_path / "site.pub")])
    with pytest.raises(ImageError, match="holds 2 images"):
        client.describe_sandbox(BoxLiteSandboxClientOptions(rootfs=str(layout)))


@pytest.mark.parametrize(
    ("payload", "signature", "said"),
    [
        (b"x" * 70_000, b"eHg=", "more than"),
        (b"{}", b"not base64!", "not base64"),
        (b"{}", "\u00e9".encode(), "base64"),
    ],
)
def test_signature_that_cannot_be_read(tmp_path: Path, payload: bytes, signature: bytes, said: str) -> None:
    """A layout brings a signature of a huge size, or one that is no base64.

    The import is refused with one line and the store is as it was.
    """
    store = ImageStore(tmp_path / "store")
    with pytest.raises(ImageError, match=said):
        store.add(packed(tmp_path / "image.tar", signed_files(Image(), payload, signature)))
    assert store.list() == []


def test_private_key_where_a_public_one_belongs(tmp_path: Path) -> None:
    """The settings name a file that is no public key: nothing may be signed by a mistake.

    It is refused by name, before any client exists.
    """
    (tmp_path / "key").write_text("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigurationError, match="not a public key"):
        load_keys([tmp_path / "key"])
