"""Images by name, and the disk images that BoxLite makes of them, in real boxes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.microvm.boxes import leftovers, options, state_of

from cedarbox.boxlite import BoxLiteSandboxClient
from cedarbox.boxlite.image_store import ImageStore
from cedarbox.errors import ImageError

NAME = "mirror.corp.example/agents/base:1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BoxLite home of its own, because what is in it is damaged here."""
    return tmp_path_factory.mktemp("boxlite-images")


@pytest.fixture(scope="module")
async def client(
    home: Path, tmp_path_factory: pytest.TempPathFactory, oci_layout: Path
) -> AsyncIterator[BoxLiteSandboxClient]:
    home.chmod(0o700)
    directory = tmp_path_factory.mktemp("store")
    store = ImageStore(directory / "images", lock=directory / "lock")
    store.add(oci_layout, name=NAME)
    made = BoxLiteSandboxClient(home=home, images=store)
    yield made
    await made.close()


def flip(path: Path) -> None:
    """Change one bit in place, and put the times back that can be put back."""
    times = path.stat()
    with path.open("r+b") as stream:
        place = os.lseek(stream.fileno(), 8 * 1024 * 1024, os.SEEK_DATA)
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes((byte ^ 1,)))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


async def test_an_image_by_name_and_its_disk_image(client: BoxLiteSandboxClient, home: Path) -> None:
    named = options(Path(), rootfs=None, image=NAME)
    session = await client.create(options=named)
    await session.start()
    state = state_of(session)
    assert (state.image, state.rootfs) == (NAME, None)
    assert (state.image_digest or "").startswith("sha256:")
    assert (await session.exec("echo here")).stdout == b"here\n"
    await client.delete(session)

    # Both were made by that boot and are read by every later one.
    (disk,) = home.glob("images/disk-images/*.ext4")
    (base,) = home.glob("bases/*.ext4")
    left = leftovers(home)
    for path in (disk, base):
        flip(path)
        session = await client.create(options=named)
        with pytest.raises(ImageError, match="not what it was when BoxLite made it"):
            await session.start()
        assert leftovers(home) == left
        flip(path)
