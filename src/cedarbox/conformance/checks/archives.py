"""Archives: unpacking into the workspace, packing it up, and what must not come out of an archive."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

from cedarbox.conformance.bench import EVERY, Bench
from cedarbox.conformance.check import Check, NotApplicable, checks_of, equal, holds, refused

__all__ = ["checks", "members", "tar"]


def tar(files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None) -> io.BytesIO:
    """Make a tar archive.

    Args:
        files: Contents by name.
        links: Targets of symbolic links by name; they come first.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    raw.seek(0)
    return raw


def members(raw: io.IOBase) -> dict[str, tarfile.TarInfo]:
    """Return the members of a tar archive by their names, without a leading ``./``."""
    with tarfile.open(fileobj=io.BytesIO(raw.read()), mode="r:*") as archive:
        return {member.name.removeprefix("./"): member for member in archive.getmembers()}


async def unpacking_a_tar(bench: Bench) -> None:
    """A tar archive is unpacked beside itself."""
    archive = tar({"unpacked/every.bin": EVERY, "unpacked/ü b.txt": b"named"})
    await bench.session.extract(bench.path("given.tar"), archive)
    equal(await bench.see("unpacked/every.bin"), EVERY, "what a command sees")
    equal(await bench.see("unpacked/ü b.txt"), b"named", "what a command sees")


async def unpacking_a_zip(bench: Bench) -> None:
    """A zip archive is unpacked beside itself."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("unpacked/every.bin", EVERY * 100)
    raw.seek(0)
    await bench.session.extract(bench.path("given.zip"), raw)
    equal(await bench.see("unpacked/every.bin"), EVERY * 100, "what a command sees")


async def unpacking_what_is_no_archive(bench: Bench) -> None:
    """What is no archive is refused."""
    await refused(bench.session.extract(bench.path("bad.tar"), io.BytesIO(b"no archive" * 100)), "unpacking it")
    await refused(bench.session.extract(bench.path("bad.unknown"), io.BytesIO(b"x")), "an unknown kind of archive")


async def unpacking_upwards(bench: Bench) -> None:
    """An archive with a member that climbs out is refused."""
    for name in (f"../../../{bench.upwards('new.txt')}", f"{bench.outside}/new.txt"):
        await refused(bench.session.extract(bench.path("bad.tar"), tar({name: b"hit"})), f"a member {name}")
    await bench.untouched()


async def unpacking_through_its_own_link(bench: Bench) -> None:
    """An archive that makes a link and writes through it is refused."""
    bad = tar({"link/new.txt": b"hit"}, links={"link": bench.outside})
    await refused(bench.session.extract(bench.path("bad.tar"), bad), "a member below a link")
    await bench.untouched()


async def unpacking_through_a_link(bench: Bench) -> None:
    """An archive that writes through a link that is already there is refused."""
    await bench.ok(f"cd {bench.path()}; ln -s {bench.outside} link")
    bad = tar({"link/new.txt": b"hit"})
    await refused(bench.session.extract(bench.path("bad.tar"), bad), "a member below a link of the workspace")
    await bench.untouched()


async def packing(bench: Bench) -> None:
    """The packed workspace has exact contents, modes and links under names relative to the workspace."""
    await bench.ok(f"cd {bench.path()}; printf '#!/bin/sh\\n' >tool; chmod 750 tool; ln -s tool link; mkdir void")
    await bench.put("every.bin", EVERY)
    with await bench.session.persist_workspace() as stream:
        raw = stream.read()
    found = _packed(raw)
    here = str(bench.path())
    holds(f"{here}/every.bin" in found, f"{here}/every.bin is not among its {len(found)} members")
    holds(not any(name.startswith(("/", "..")) for name in found), "a member's name leads out of the workspace")
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:*") as archive:
        packed = archive.extractfile(archive.getmember(_named(archive, f"{here}/every.bin")))
        equal(packed.read() if packed else None, EVERY, "the content")
    equal(found[f"{here}/tool"].mode & 0o777, 0o750, "the mode of a program")
    equal(found[f"{here}/link"].linkname, "tool", "the target of a link")
    holds(found[f"{here}/void"].isdir(), "an empty directory is missing")


def _packed(raw: bytes) -> dict[str, tarfile.TarInfo]:
    try:
        return members(io.BytesIO(raw))
    except tarfile.TarError as error:
        raise NotApplicable("the backend saves workspaces in a form of its own") from error


def _named(archive: tarfile.TarFile, name: str) -> str:
    return name if name in archive.getnames() else f"./{name}"


async def packing_leaves_out_what_passes(bench: Bench) -> None:
    """What the manifest calls ephemeral is not packed."""
    with await bench.session.persist_workspace() as stream:
        found = _packed(stream.read())
    holds("given/every.bin" in found, "given/every.bin is missing")
    holds("given/passing.txt" not in found, "given/passing.txt is ephemeral and was packed")


async def filling(bench: Bench) -> None:
    """An archive fills the workspace."""
    await bench.session.hydrate_workspace(tar({f"{bench.path('filled/every.bin')}": EVERY}))
    equal(await bench.see("filled/every.bin"), EVERY, "what a command sees")


async def filling_upwards(bench: Bench) -> None:
    """An archive with a member that leads out does not fill the workspace."""
    for name in (bench.upwards("new.txt"), f"{bench.outside}/new.txt"):
        await refused(bench.session.hydrate_workspace(tar({name: b"hit"})), f"a member {name}")
    bad = tar({f"{bench.path('link')}/new.txt": b"hit"}, links={str(bench.path("link")): bench.outside})
    await refused(bench.session.hydrate_workspace(bad), "a member below its own link")
    await bench.untouched()


async def filling_with_what_is_no_archive(bench: Bench) -> None:
    """What is no archive does not fill the workspace."""
    await refused(bench.session.hydrate_workspace(io.BytesIO(b"no archive" * 100)), "filling from it")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return checks_of(
        "archive",
        unpacking_a_tar,
        unpacking_a_zip,
        unpacking_what_is_no_archive,
        unpacking_upwards,
        unpacking_through_its_own_link,
        unpacking_through_a_link,
        packing,
        packing_leaves_out_what_passes,
        filling,
        filling_upwards,
        filling_with_what_is_no_archive,
    )
