"""Packages of the test's own: wheels and an index of them, a Debian archive, and the tools that a small image lacks.

Nothing is fetched: wheels are made from what is installed where the tests run, and apt is taken from there as well.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["Wheel", "archive", "closure", "index", "lend_apt", "wheel"]

_ALWAYS = (1980, 1, 1, 0, 0, 0)
# What an installer adds to what a wheel holds.
_INSTALLED = frozenset(("INSTALLER", "REQUESTED", "RECORD", "direct_url.json"))
_COMPILED = (".so", ".pyd")
_METHODS = ("http", "store", "copy", "file")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel: its name as a project, its file name, its bytes."""

    project: str
    name: str
    data: bytes


def wheel(project: str) -> Wheel:
    """Pack a distribution that is installed here as a wheel of pure Python, which runs in the guest as well.

    Modules in machine code are left out: of the distributions that the tests use, those that have any run without.
    """
    found = distribution(project)
    name = re.sub(r"[-_.]+", "_", found.metadata["Name"]).lower()
    packed, record = io.BytesIO(), ""
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for path, data in sorted(_content(found).items()):
            target.writestr(zipfile.ZipInfo(path, _ALWAYS), data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(data)}\n"
        place = f"{_metadata(found)}/RECORD"
        target.writestr(zipfile.ZipInfo(place, _ALWAYS), f"{record}{place},,\n", zipfile.ZIP_DEFLATED)
    return Wheel(_normal(project), f"{name}-{found.version}-py3-none-any.whl", packed.getvalue())


def _metadata(found: Distribution) -> str:
    (place,) = {path.parts[0] for path in found.files or () if path.parts[0].endswith(".dist-info")}
    return place


def _content(found: Distribution) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    for path in found.files or ():
        inside = not path.is_absolute() and ".." not in path.parts and "__pycache__" not in path.parts
        ours = path.parent.name != _metadata(found) or path.name not in _INSTALLED
        if inside and ours and path.suffix not in _COMPILED:
            content[path.as_posix()] = Path(str(path.locate())).read_bytes()
    pure = b"Wheel-Version: 1.0\nGenerator: cedarbox\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return content | {f"{_metadata(found)}/WHEEL": pure}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(*projects: str) -> tuple[Wheel, ...]:
    """The wheels of these projects and of all that they need, for the Python that runs this."""
    wanted, made = list(projects), dict[str, Wheel]()
    while wanted:
        name = _normal(wanted.pop())
        if name in made:
            continue
        made[name] = wheel(name)
        needs = map(Requirement, distribution(name).requires or ())
        wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return tuple(made.values())


def index(wheels: Iterable[Wheel]) -> dict[str, bytes]:
    """The files of a package index (PEP 503), by path: its pages are below ``/simple/``."""
    found, links = dict[str, bytes](), dict[str, str]()
    for one in wheels:
        found[f"/files/{one.name}"] = one.data
        link = f'<a href="../../files/{one.name}#sha256={hashlib.sha256(one.data).hexdigest()}">{one.name}</a>\n'
        links[one.project] = links.get(one.project, "") + link
    for project, told in links.items():
        found[f"/simple/{project}/"] = f"<!DOCTYPE html>\n<html><body>\n{told}</body></html>\n".encode()
    return found


def archive(scratch: Path, package: str, content: str) -> dict[str, bytes]:
    """The files of a Debian archive with one package, by path: suite ``test``, component ``main``, not signed.

    Args:
        scratch: An empty directory to work in.
        package: The name of the package. It holds ``/opt/<name>``.
        content: What that file holds.
    """
    tree = scratch / package
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "opt").mkdir()
    (tree / "opt" / package).write_text(content)
    control = (
        f"Package: {package}\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@corp.example>\n"
        "Description: a package of a test\n"
    )
    (tree / "DEBIAN" / "control").write_text(control)
    made = scratch / f"{package}.deb"
    build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(made)]
    subprocess.run(build, check=True, capture_output=True)
    data = made.read_bytes()
    place = f"pool/{package}_1.0_all.deb"
    listed = f"{control}Filename: {place}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n".encode()
    indexes = {
        "main/binary-amd64/Packages": listed,
        "main/binary-amd64/Packages.gz": gzip.compress(listed, mtime=0),
    }
    sums = "".join(f" {hashlib.sha256(text).hexdigest()} {len(text)} {name}\n" for name, text in indexes.items())
    release = (
        "Origin: cedarbox\nLabel: cedarbox\nSuite: test\nCodename: test\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"Architectures: amd64 all\nComponents: main\nSHA256:\n{sums}"
    )
    served = {f"/debian/dists/test/{name}": text for name, text in indexes.items()}
    return served | {"/debian/dists/test/Release": release.encode(), f"/debian/{place}": data}


def lend_apt(directory: Path, *, guest: str, source: str, state: str = "/tmp/apt") -> None:
    """Put apt into a directory that the guest will see: the image has none, and is the same Debian as the machine.

    The guest runs ``<guest>/apt/run update``.

    Args:
        directory: The directory on the host; ``apt`` in it is made.
        guest: The same directory as the guest sees it.
        source: The line of sources.list.
        state: The directory in the guest for what apt keeps.
    """
    place = directory / "apt"
    (place / "methods").mkdir(parents=True)
    (place / "lib").mkdir()
    programs = [Path("/usr/bin/apt-get"), *(Path("/usr/lib/apt/methods") / name for name in _METHODS)]
    for program in programs:
        shutil.copy(program, place / ("methods" if program.parent.name == "methods" else ""))
    for library in sorted(_libraries(programs)):
        shutil.copy(library, place / "lib")
    (place / "sources.list").write_text(f"{source}\n")
    settings = {
        "Dir::Bin::methods": f"{guest}/apt/methods",
        "Dir::Etc::sourcelist": f"{guest}/apt/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::trustedparts": "/dev/null",
        "Dir::State": f"{state}/state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": f"{state}/cache",
        "Dir::Log": f"{state}/log",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "0",
    }
    (place / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    script = (
        f"#!/bin/sh\nmkdir -p {state}/state/lists/partial {state}/cache/archives/partial {state}/log\n"
        f'export LD_LIBRARY_PATH={guest}/apt/lib APT_CONFIG={guest}/apt/apt.conf\nexec {guest}/apt/apt-get "$@"\n'
    )
    (place / "run").write_text(script)
    (place / "run").chmod(0o755)


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """The libraries of programs, but for the C library, which the guest must have of its own."""
    listed = subprocess.run(["ldd", *map(str, programs)], check=True, capture_output=True, text=True).stdout
    found: Mapping[str, str] = dict(re.findall(r"^\s+(\S+) => (/\S+)", listed, re.MULTILINE))
    own = ("libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "libresolv.so")
    return {Path(path) for name, path in found.items() if not name.startswith(own)}
