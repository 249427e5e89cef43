"""The image store: names, pins, damage, and processes that die in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.guarded import Guarded
from tests.unit.imaging import Image, packed, root, sha

from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, BoxLiteSandboxSessionState
from cedarbox.boxlite.image_lock import read_lock, write_lock
from cedarbox.boxlite.image_store import ImageStore, default_store
from cedarbox.boxlite.image_supply import ImageSupply
from cedarbox.boxlite.references import parse_reference
from cedarbox.errors import ConfigurationError, ImageError, PolicyDenied

NAME = "docker.io/library/python:3.12-slim"
OTHER = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "store", lock=tmp_path / "lock")
    made.add(packed(tmp_path / "one.tar", Image().files()), name="python:3.12-slim")
    return made


@pytest.fixture
def digest() -> str:
    return Image().digest


@pytest.mark.parametrize(
    "text", ["python:3.12-slim", "docker.io/python:3.12-slim", "index.docker.io/library/python:3.12-slim"]
)
def test_every_spelling_of_a_name_finds_it(store: ImageStore, digest: str, text: str) -> None:
    for reference in (text, f"{text}@{digest}"):
        found = store.find(reference)
        assert found is not None
        assert found.image.digest == digest


def test_what_is_not_there(store: ImageStore) -> None:
    assert store.find("python") is None
    assert store.find("mirror.corp.example/python:3.12-slim") is None
    assert store.find(f"python@{OTHER}") is None
    with pytest.raises(ImageError, match=f"the reference pins it to {OTHER}"):
        store.find(f"python:3.12-slim@{OTHER}")


def test_the_lock_file_decides(store: ImageStore, digest: str) -> None:
    write_lock(store.lock, {NAME: digest})
    assert store.find("python:3.12-slim") is not None
    assert store.pinned(parse_reference("python:3.12-slim")) == digest
    write_lock(store.lock, {NAME: OTHER})
    with pytest.raises(ImageError, match="pins it to sha256:0000"):
        store.find("python:3.12-slim")
    with pytest.raises(ImageError, match=f"is pinned to {OTHER}"):
        store.find(f"python:3.12-slim@{digest}")
    assert store.pinned(parse_reference("mirror.corp.example/other:1")) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 2, "images": {}}', '{"version": 1, "images": {"A B": "x"}}', "[" * 100_000]
    + [json.dumps({"version": 1, "images": {NAME: value}}) for value in ("latest", 7, None, "sha256:x")]
    + [json.dumps({"version": 1, "images": {NAME: OTHER, "python:3.12-slim": OTHER}})],
)
def test_a_damaged_lock_file_stops_everything(store: ImageStore, text: str) -> None:
    store.lock.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        store.find("python:3.12-slim")
    assert str(store.lock) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_lock_file_is_stable(store: ImageStore) -> None:
    names = {"docker.io/b/b:1": OTHER, "docker.io/a/a:1": OTHER}
    write_lock(store.lock, names)
    first = store.lock.read_bytes()
    write_lock(store.lock, dict(reversed(names.items())))
    assert store.lock.read_bytes() == first
    assert read_lock(store.lock) == names
    assert [path.name for path in store.lock.parent.iterdir() if "lock" in path.name] == ["lock"]


def test_a_name_moves_and_the_image_stays(store: ImageStore, tmp_path: Path, digest: str) -> None:
    second = Image([root(b"second")])
    store.add(packed(tmp_path / "two.tar", second.files()), name="python:3.12-slim")
    found = store.find("python:3.12-slim")
    assert found is not None
    assert found.image.digest == second.digest
    old = store.find(f"python@{digest}")
    assert old is not None
    assert old.names == ()
    assert store.remove(digest) == (digest, True)
    assert not old.path.exists()
    assert store.remove("python:3.12-slim") == (second.digest, True)
    assert store.list() == []
    with pytest.raises(ImageError, match="has no python"):
        store.remove("python:3.12-slim")


def test_an_image_goes_with_its_last_name(store: ImageStore, tmp_path: Path, digest: str) -> None:
    store.add(tmp_path / "one.tar", name="other:1")
    assert len(store.list()) == 1
    assert store.remove("other:1") == (digest, False)
    assert store.find("python:3.12-slim") is not None


def test_importing_again_repairs(store: ImageStore, tmp_path: Path) -> None:
    found = store.list()[0]
    blob = max((found.path / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"damage")
    assert ["" if not wrong else "damaged" for _, wrong in store.verify()] == ["damaged"]
    store.add(tmp_path / "one.tar", name="python:3.12-slim")
    assert [wrong for _, wrong in store.verify()] == [""]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "images": [], "names": {"a": "b"}}'])
def test_a_damaged_catalogue_stops_everything(store: ImageStore, tmp_path: Path, text: str) -> None:
    (store.directory / "catalogue.json").write_text(text)
    for attempt in (store.list, lambda: store.find("x"), lambda: store.add(tmp_path / "one.tar", name="x")):
        with pytest.raises(ImageError, match="catalogue"):
            attempt()


def test_a_store_that_others_can_write(store: ImageStore) -> None:
    store.directory.chmod(0o777)
    with pytest.raises(ImageError, match="others can write"):
        store.find("python:3.12-slim")


def test_a_process_that_was_killed_leaves_nothing_for_long(store: ImageStore, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from cedarbox.boxlite import image_store\n"
        "store = image_store.ImageStore(Path(sys.argv[1]), lock=Path(sys.argv[2]))\n"
        "def write(target, scratch):\n"
        "    (target / 'half').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "with store.scratch():\n"
        "    store.put(write, name='x', repository='local', label='x')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.directory), str(store.lock)], check=False)
    assert done.returncode == -9
    assert {path.name[:6] for path in store.directory.glob(".[wp]*")} == {".work-", ".pull-"}
    assert len(store.list()) == 1
    with store.scratch() as held:
        store.add(tmp_path / "one.tar", name="other:1")
        assert held.exists()
    assert not list(store.directory.glob(".[wp]*"))


def test_where_it_is(tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    code = "from cedarbox.boxlite.image_store import default_store; print(default_store())"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "cedarbox" / "images")
    assert default_store().parts[-2:] == ("cedarbox", "images")


# --- what a client makes of it


def options(image: str) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(image=image)


async def test_a_client_boots_a_name_from_the_store(store: ImageStore, tmp_path: Path, digest: str) -> None:
    client = BoxLiteSandboxClient(home=tmp_path / "home", images=store)
    facts = client.describe_sandbox(options("python:3.12-slim"))
    assert (facts["image"], facts["digest"], facts["repository"]) == (
        "docker.io/library/python:3.12-slim",
        digest,
        "local",
    )
    session = await client.create(options=options("python:3.12-slim"))
    state = session.state
    assert isinstance(state, BoxLiteSandboxSessionState)
    assert (state.image, state.rootfs, state.image_digest) == ("python:3.12-slim", None, digest)
    image = await ImageSupply(store).ready(state)
    assert (image.digest, image.path.is_relative_to(store.directory.resolve())) == (digest, True)
    # The name has moved since: the session keeps its image, a new one gets the other.
    second = Image([root(b"second")])
    store.add(packed(tmp_path / "two.tar", second.files()), name="python:3.12-slim")
    assert client.describe_sandbox(state)["digest"] == digest
    assert (await ImageSupply(store).ready(state)).digest == digest
    assert client.describe_sandbox(options("python:3.12-slim"))["digest"] == second.digest
    await client.close()


async def test_a_damaged_image_is_neither_described_nor_booted(store: ImageStore, tmp_path: Path) -> None:
    client = BoxLiteSandboxClient(home=tmp_path / "home", images=store)
    state = (await client.create(options=options("python:3.12-slim"))).state
    assert isinstance(state, BoxLiteSandboxSessionState)
    found = store.list()[0]
    blob = max((found.path / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    for attempt in (options("python:3.12-slim"), state):
        with pytest.raises(ImageError, match="not what its digest says"):
            client.describe_sandbox(attempt)
    with pytest.raises(ImageError, match="not what its digest says"):
        await ImageSupply(store).ready(state)
    await client.close()


async def test_a_swapped_layout_is_found(store: ImageStore, tmp_path: Path) -> None:
    second = Image([root(b"second")])
    store.add(packed(tmp_path / "two.tar", second.files()), name="other:1")
    first, other = (store.find(name) for name in ("python:3.12-slim", "other:1"))
    assert first is not None
    assert other is not None
    first.path.rename(tmp_path / "away")
    other.path.rename(first.path)
    supply = ImageSupply(store)
    with pytest.raises(ImageError, match="should be"):
        supply.facts(image="python:3.12-slim", rootfs=None)


def test_what_nothing_pins_has_no_digest(store: ImageStore) -> None:
    supply = ImageSupply(store)
    facts = supply.facts(image="mirror.corp.example/a/b:1", rootfs=None)
    assert (facts.digest, facts.repository) == (None, "mirror.corp.example/a/b")
    write_lock(store.lock, {"mirror.corp.example/a/b:1": OTHER})
    assert supply.facts(image="mirror.corp.example/a/b:1", rootfs=None).digest == OTHER
    with pytest.raises(ImageError, match="is pinned to"):
        supply.facts(image=f"mirror.corp.example/a/b:1@{sha(b'x')}", rootfs=None)


async def test_the_guard_decides_on_what_is_stored(store: ImageStore, tmp_path: Path, digest: str) -> None:
    """The digest that a policy sees is that of the verified image, and a damaged one is refused on the record."""
    others = f'resource has digest && resource.digest != "{digest}"'
    policies = f'@id("only") permit (principal, action, resource) unless {{ {others} }};'
    inner = BoxLiteSandboxClient(home=tmp_path / "home", images=store)
    guarded = Guarded(tmp_path, policies, inner=inner)
    session = await guarded.client.create(options=options("python:3.12-slim"))
    assert getattr(session.state, "image_digest", None) == digest
    (created,) = guarded.records("sandbox.created")
    assert created.entry.attrs["image_digest"] == digest
    assert ("allow", "create", f'Image::"{digest}"') in guarded.decisions()

    store.add(packed(tmp_path / "two.tar", Image([root(b"second")]).files()), name="python:3.12-slim")
    with pytest.raises(PolicyDenied):
        await guarded.client.create(options=options("python:3.12-slim"))
    damaged = store.find(f"python@{digest}")
    assert damaged is not None
    for blob in (damaged.path / "blobs" / "sha256").iterdir():
        blob.write_bytes(b"x")
    with pytest.raises(ImageError):
        await guarded.client.create(options=options(f"python@{digest}"))
    assert len(guarded.denied()) == 2
    assert len(guarded.records("sandbox.created")) == 1
    await inner.close()
