"""The source distribution of the Agents SDK, for the tests that it brings: fetched by pip, checked by its digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.rig.cache import digest_of, obtain
from tests.rig.trouble import RigError, say

__all__ = ["VERSION", "Unavailable", "check_digest", "source_tree"]

VERSION = "0.24.0"
_SHA256 = "4b4b285f4fed81fdf1b4ac426a9101658d9cd29b4fb1aaeee18f639b77e704e3"

_NAME = f"openai_agents-{VERSION}"
_WANTED = ("tests/", "examples/", "pyproject.toml")
_LIMIT_SECONDS = 180


class Unavailable(Exception):
    """It is not in the cache and pip cannot get it here."""


def check_digest(archive: Path) -> None:
    """Compares a source distribution with the digest that is pinned here.

    Raises:
        RigError: It is another one.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != _SHA256:
        raise RigError(f"{archive.name} has the SHA-256 digest {found}", hint=f"it should have {_SHA256}")


def source_tree(*, root: Path | None = None) -> Path:
    """The SDK's ``tests`` and ``examples``, unpacked; fetched on first use and kept with what the rig built.

    Args:
        root: Where to keep it; the default is the cache of the rig.

    Raises:
        Unavailable: It is not in the cache and pip cannot get it.
        RigError: What pip got is not what the digest says, or another version of the SDK is installed.
    """
    installed = importlib.metadata.version("openai-agents")
    if installed != VERSION:
        raise RigError(
            f"openai-agents {installed} is installed and its tests are pinned for {VERSION}",
            hint="put the version and the digest of its source distribution in tests/conformance/sdist.py",
        )
    inputs = {"sha256": _SHA256.encode(), "code": Path(__file__).read_bytes()}
    return obtain("sdk-tests", digest_of(inputs), _build, root=root)


def _build(work: Path) -> None:
    say(f"fetching the source distribution of openai-agents {VERSION}, once")
    archive = work / f"{_NAME}.tar.gz"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "30"]
    requirement = ["--no-deps", "--no-binary", "openai-agents", f"openai-agents=={VERSION}"]
    try:
        done = subprocess.run(
            [*pip, "download", "--quiet", *requirement, "--dest", str(work)],
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip did not get it within {_LIMIT_SECONDS} s") from error
    if done.returncode or not archive.is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip got nothing"]
        raise Unavailable(lines[-1])
    check_digest(archive)
    with tarfile.open(archive) as source:
        for member in source:
            # Files only, by hand: Debian 12's Python 3.11.2 has no filters for extraction.
            if member.name.removeprefix(f"{_NAME}/").startswith(_WANTED) and (file := source.extractfile(member)):
                place = work / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read())
    archive.unlink()
    for entry in (work / _NAME).iterdir():
        entry.rename(work / entry.name)
    (work / _NAME).rmdir()
