"""Builds the OCI image that tests and the demonstration boot, from Debian packages alone."""

from __future__ import annotations

import json
import tarfile
import time
from pathlib import Path

from tests.rig.cache import digest_of, obtain
from tests.rig.debian import SUITE, bootstrap
from tests.rig.layout import verify_layout, write_layout
from tests.rig.trouble import RigError, run_program, say

__all__ = ["image_layout", "main"]

_HERE = Path(__file__).resolve().parent

_PACKAGES = (
    *("ca-certificates", "coreutils", "curl", "findutils", "gawk", "git", "grep", "python3", "sed", "sudo", "tar"),
)

# No file of a Debian 12 package is dated later, so no time stamp is changed but those the build itself makes.
_EPOCH = 1_767_225_600
_CREATED = "2026-01-01T00:00:00Z"

_SLIM = "guest/image.sh"


def image_layout() -> Path:
    """The OCI layout of the image, verified to the last blob; built on first use.

    ``image.lock`` beside it holds the manifest's digest and the version of every Debian package.

    Raises:
        RigError: The build failed, or the layout does not match its digests.
    """
    inputs = {
        "suite": SUITE.encode(),
        "packages": "\n".join(_PACKAGES).encode(),
        **{name: (_HERE / name).read_bytes() for name in ("image.py", "layout.py", "debian.py", _SLIM)},
    }
    place = obtain("image", digest_of(inputs), _build)
    try:
        expected = json.loads((place / "image.lock").read_text())["manifest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RigError(f"{place / 'image.lock'} cannot be read", hint=f"remove {place} and run `make image`") from error
    verify_layout(place / "oci", expected=str(expected))
    return place / "oci"


def _build(work: Path) -> None:
    begun = time.monotonic()
    say("building the image, once; this takes about a minute")
    tar = work / "root.tar"
    # The script goes by its text: an unprivileged build runs as users who may not enter the checkout.
    hooks = ((_HERE / _SLIM).read_text(),)
    bootstrap(tar, _PACKAGES, variant="essential", hooks=hooks, environ={"SOURCE_DATE_EPOCH": str(_EPOCH)})
    with tarfile.open(tar) as archive:
        listed = archive.extractfile("./image.packages")
        if listed is None:
            raise RigError("the image's list of packages is missing", hint="this is a fault of tests/rig/image.py")
        packages = dict(line.split(" ", 1) for line in listed.read().decode().splitlines())
    manifest = write_layout(
        work / "oci",
        tar,
        created=_CREATED,
        environment=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"),
        directory_in="/workspace",
    )
    lock = {"manifest": manifest, "packages": packages, "suite": SUITE}
    (work / "image.lock").write_text(json.dumps(lock, indent=2, sort_keys=True) + "\n")
    tar.unlink()
    say(f"image {manifest} built in {time.monotonic() - begun:.0f} s")


def main() -> int:
    """Prints the path of the verified layout."""
    print(image_layout())
    return 0


if __name__ == "__main__":
    run_program(main)
