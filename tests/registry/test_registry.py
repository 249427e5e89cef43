"""Images from a real registry server, with TLS and a login, into the image store."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.registry.server import PASSWORD, USER, Registry, serving
from tests.rig.registry import registry_program
from tests.unit.imaging import INDEX, OTHER, Image, dumped, root, unpacked

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, BoxLiteSandboxSessionState
from cedarbox.boxlite import Registry as Login
from cedarbox.boxlite.image_lock import write_lock
from cedarbox.boxlite.image_pull import pulled
from cedarbox.boxlite.image_store import ImageStore
from cedarbox.boxlite.image_supply import ImageSupply
from cedarbox.boxlite.images import LayoutVerifier
from cedarbox.errors import ConfigurationError, HostError, ImageError

ZERO = "sha256:" + "0" * 64


@pytest.fixture(scope="module", params=["https", "http"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving(registry_program(), tmp_path_factory.mktemp("registry"), tls=request.param == "https") as running:
        yield running


@pytest.fixture
def image(registry: Registry, tmp_path: Path) -> Image:
    """An image of this test's own in the registry, as ``agents/base:1``."""
    made = Image([root(tmp_path.name.encode()), root(b"common")])
    registry.push(unpacked(tmp_path / "pushed", made.files()), "agents/base", "1")
    return made


@pytest.fixture
def login(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Login:
    monkeypatch.setenv("REGISTRY_PASSWORD", PASSWORD)
    if registry.authority is not None:
        monkeypatch.setenv("SSL_CERT_FILE", str(registry.authority))
    return Login(registry.host, USER, password_env="REGISTRY_PASSWORD", transport=registry.transport)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", lock=tmp_path / "lock")


async def refused(store: ImageStore, reference: str, login: Login, what: str) -> None:
    with pytest.raises(ImageError, match=what) as caught:
        await pulled(store, reference, registries=[login])
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert store.list() == []
    assert {path.name for path in store.directory.iterdir()} <= {".lock", "layouts"}
    assert not list(store.directory.glob("layouts/*"))


async def test_by_tag_and_by_digest(registry: Registry, image: Image, login: Login, store: ImageStore) -> None:
    tag = f"{registry.host}/agents/base:1"
    found = await pulled(store, tag, registries=[login], named=True)
    assert found.image.digest == image.digest
    assert found.image.repository == f"{registry.host}/agents/base"
    assert found.names == (tag,)
    checked = LayoutVerifier().verify(found.path)
    assert checked.digest == found.image.layout_digest
    assert list(checked.layers) == [layer["digest"] for layer in image.manifest["layers"]]
    by_digest = await pulled(store, f"{registry.host}/agents/base@{image.digest}", registries=[login])
    assert by_digest.image == found.image
    assert len(store.list()) == 1
    assert PASSWORD not in "".join(path.read_text() for path in store.directory.glob("*.json"))


async def test_a_multi_platform_index(registry: Registry, image: Image, login: Login, store: ImageStore) -> None:
    other = {**image.entry, "platform": {"os": "linux", "architecture": OTHER}}
    body = dumped({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, image.entry]})
    with registry.client() as client:
        client.put("/v2/agents/base/manifests/multi", content=body, headers={"content-type": INDEX}).raise_for_status()
    index = f"sha256:{hashlib.sha256(body).hexdigest()}"
    found = await pulled(store, f"{registry.host}/agents/base@{index}", registries=[login])
    assert (found.image.digest, found.image.aliases) == (image.digest, (index,))
    again = store.find(f"{registry.host}/agents/base@{index}")
    assert again is not None
    assert again.image == found.image


async def test_logins(registry: Registry, image: Image, login: Login, store: ImageStore, tmp_path: Path) -> None:
    reference = f"{registry.host}/agents/base@{image.digest}"
    (tmp_path / "bad").write_text("wrong\n")
    (tmp_path / "good").write_text(f"{PASSWORD}\n")
    bad = Login(registry.host, USER, password_file=tmp_path / "bad", transport=login.transport)
    await refused(store, reference, bad, "UNAUTHORIZED|Not authorized")
    await refused(store, reference, Login(registry.host, transport=login.transport), "UNAUTHORIZED|Not authorized")
    missing = Login(registry.host, USER, password_env="NOT_SET_ANYWHERE", transport=login.transport)
    with pytest.raises(ConfigurationError, match="NOT_SET_ANYWHERE holds no password"):
        await pulled(store, reference, registries=[missing])
    good = Login(registry.host, USER, password_file=tmp_path / "good", transport=login.transport)
    assert (await pulled(store, reference, registries=[good])).image.digest == image.digest


async def test_what_is_not_there(registry: Registry, image: Image, login: Login, store: ImageStore) -> None:
    assert image
    await refused(store, f"{registry.host}/agents/base@{ZERO}", login, "MANIFEST_UNKNOWN|manifest unknown")
    await refused(store, f"{registry.host}/agents/none:1", login, "MANIFEST_UNKNOWN|NAME_UNKNOWN|unknown")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await refused(store, f"127.0.0.1:{port}/agents/base:1", Login(f"127.0.0.1:{port}"), "cannot be pulled")


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
async def test_a_registry_that_was_tampered_with(
    registry: Registry, image: Image, login: Login, store: ImageStore, which: str
) -> None:
    digest = {
        "manifest": image.digest,
        "config": image.manifest["config"]["digest"],
        "layer": image.manifest["layers"][0]["digest"],
    }[which]
    blob = registry.blob(digest)
    data = bytearray(blob.read_bytes())
    data[data.index(b"linux") if which == "config" else data.index(b" ") if which == "manifest" else -1] ^= 1
    blob.write_bytes(data)
    await refused(store, f"{registry.host}/agents/base@{image.digest}", login, "cannot be pulled|not what its digest")


async def test_a_pushed_image_whose_layers_are_not_its_diff_ids(
    registry: Registry, login: Login, store: ImageStore, tmp_path: Path
) -> None:
    image = Image([root(b"good")])
    image.manifest["layers"] = [
        image.put(gzip.compress(root(b"evil"), mtime=0), f"{image.manifest['layers'][0]['mediaType']}")
    ]
    digest = registry.push(unpacked(tmp_path / "evil", image.files()), "agents/evil", "1")
    await refused(store, f"{registry.host}/agents/evil@{digest}", login, "does not unpack to its diff id")


async def test_the_lock_file_pins_a_tag(
    registry: Registry, image: Image, login: Login, store: ImageStore, tmp_path: Path
) -> None:
    tag = f"{registry.host}/agents/base:1"
    write_lock(store.lock, {tag: image.digest})
    registry.push(unpacked(tmp_path / "newer", Image([root(b"newer")]).files()), "agents/base", "1")
    found = await pulled(store, tag, registries=[login], named=True)
    assert found.image.digest == image.digest
    write_lock(store.lock, {tag: ZERO})
    with pytest.raises(ImageError, match=r"MANIFEST_UNKNOWN|manifest unknown"):
        await pulled(store, tag, registries=[login])


async def test_a_session_of_a_pulled_image(
    registry: Registry, image: Image, login: Login, store: ImageStore, tmp_path: Path
) -> None:
    client = BoxLiteSandboxClient(home=tmp_path / "home", images=store, registries=[login])
    options = BoxLiteSandboxClientOptions(image=f"{registry.host}/agents/base:1")
    assert client.describe_sandbox(options)["digest"] is None
    state = (await client.create(options=options)).state
    assert isinstance(state, BoxLiteSandboxSessionState)
    before = len(registry.requests())
    supply = ImageSupply(store, registries=[login])
    ready = await supply.ready(state)
    assert state.image_digest == image.digest
    payload = json.dumps(client.serialize_session_state(state))
    assert PASSWORD not in payload
    assert "REGISTRY_PASSWORD" not in payload
    # From now on it is here: the session never asks the registry again, whatever the tag leads to.
    asked = len(registry.requests())
    assert asked > before
    registry.push(unpacked(tmp_path / "newer", Image([root(b"newer")]).files()), "agents/base", "1")
    pushed = len(registry.requests())
    assert await supply.ready(state) == ready
    assert client.describe_sandbox(state)["digest"] == image.digest
    assert client.describe_sandbox(state)["repository"] == f"{registry.host}/agents/base"
    assert len(registry.requests()) == pushed
    await client.close()


async def test_a_pull_that_takes_too_long(registry: Registry, image: Image, login: Login, store: ImageStore) -> None:
    assert image
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        options = BoxLiteSandboxClientOptions(image=f"{host}/a:1", boot_timeout_s=1)
        client = BoxLiteSandboxClient(home=store.directory.parent / "home", images=store)
        state = (await client.create(options=options)).state
        assert isinstance(state, BoxLiteSandboxSessionState)
        with pytest.raises(HostError, match="was not pulled within 1 s"):
            await ImageSupply(store, registries=[Login(host, transport="http")]).ready(state)
        await client.close()
    assert {path.name for path in store.directory.iterdir()} <= {".lock", "layouts"}


async def test_certificates_are_verified(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", PASSWORD)
    (tmp_path / "registry").mkdir()
    with serving(registry_program(), tmp_path / "registry", tls=True) as running:
        digest = running.push(unpacked(tmp_path / "pushed", Image().files()), "agents/base", "1")
        login = Login(running.host, USER, password_env="REGISTRY_PASSWORD")
        reference = f"{running.host}/agents/base@{digest}"
        await refused(store, reference, login, "cannot be pulled")
        monkeypatch.setenv("SSL_CERT_FILE", str(running.authority))
        assert (await pulled(store, reference, registries=[login])).image.digest == digest


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"host": "https://x"}, "is not a host"),
        ({"host": "x/y"}, "is not a host"),
        ({"host": "x", "username": "u"}, "one of password_env and password_file"),
        ({"host": "x", "password_env": "P"}, "one of password_env and password_file"),
        ({"host": "x", "username": "u", "password_env": "P", "password_file": Path("p")}, "one of"),
        ({"host": "x", "transport": "ftp"}, "is not https or http"),
        ({"host": "x", "username": "u", "password_env": "P", "transport": "http"}, "in clear"),
    ],
)
def test_registries_that_cannot_be_used(values: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Login(**values)  # type: ignore[arg-type]  # wrong on purpose
