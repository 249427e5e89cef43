"""The registry server of Debian (package ``docker-registry``), unpacked without being installed."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from tests.rig.cache import digest_of, obtain
from tests.rig.debian import SUITE, bootstrap
from tests.rig.trouble import RigError, run_program, say

__all__ = ["main", "registry_program"]

_PACKAGE = "docker-registry"
_MEMBER = f"./usr/bin/{_PACKAGE}"


def registry_program() -> Path:
    """The registry server's program; fetched on first use and kept in the cache.

    It needs no other package than the C library. Nothing is installed and no service is started.

    Raises:
        RigError: The package cannot be fetched.
    """
    inputs = {"suite": SUITE.encode(), "code": Path(__file__).read_bytes()}
    return obtain("registry", digest_of(inputs), _build) / _PACKAGE


def _build(work: Path) -> None:
    say(f"fetching the Debian package {_PACKAGE}, once")
    tar = work / "root.tar"
    # This variant unpacks the package and those it depends on, and runs nothing of them.
    bootstrap(tar, (_PACKAGE,), variant="extract")
    with tarfile.open(tar) as archive:
        source = archive.extractfile(_MEMBER)
        if source is None:
            raise RigError(f"{_PACKAGE} holds no program", hint="this is a fault of tests/rig/registry.py")
        with source, (work / _PACKAGE).open("wb") as target:
            shutil.copyfileobj(source, target)
    (work / _PACKAGE).chmod(0o755)
    tar.unlink()


def main() -> int:
    """Prints the path of the program."""
    print(registry_program())
    return 0


if __name__ == "__main__":
    run_program(main)
