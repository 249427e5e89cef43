"""Directories and names: listing, making, moving, removing, comparing."""

from __future__ import annotations

from pathlib import Path

from agents.sandbox.files import EntryKind, FileEntry

from cedarbox.conformance.bench import Bench
from cedarbox.conformance.check import Check, checks_of, equal, holds, refused

__all__ = ["checks"]


def _by_name(entries: list[FileEntry]) -> dict[str, FileEntry]:
    return {Path(entry.path).name: entry for entry in entries}


async def listing(bench: Bench) -> None:
    """A listing names each entry with its kind and size, hidden ones too, without itself and its parent."""
    await bench.ok(f"cd {bench.path()}; mkdir sub; printf 12345 >file; ln -s file link; touch .hidden; mkfifo pipe")
    entries = _by_name(await bench.session.ls(bench.path()))
    kinds = {name: entry.kind for name, entry in entries.items()}
    wanted = {
        "sub": EntryKind.DIRECTORY,
        "file": EntryKind.FILE,
        "link": EntryKind.SYMLINK,
        ".hidden": EntryKind.FILE,
        "pipe": EntryKind.OTHER,
    }
    equal(kinds, wanted, "the kinds")
    equal(entries["file"].size, 5, "the size")


async def listing_of_modes(bench: Bench) -> None:
    """A listing gives the permissions."""
    await bench.ok(f"cd {bench.path()}; touch a b; chmod 640 a; chmod 755 b")
    entries = _by_name(await bench.session.ls(bench.path()))
    equal([entries[name].permissions.to_mode() & 0o777 for name in "ab"], [0o640, 0o755], "the modes")


async def listing_of_odd_names(bench: Bench) -> None:
    """A listing gives names with blanks and beyond ASCII as they are."""
    await bench.ok(f"cd {bench.path()}; touch 'two words' 'Grüße' 'trailing '")
    equal(set(_by_name(await bench.session.ls(bench.path()))), {"two words", "Grüße", "trailing "}, "the names")


async def listing_of_a_leading_blank(bench: Bench) -> None:
    """A listing keeps a blank at the beginning of a name."""
    await bench.ok(f"cd {bench.path()}; touch ' leading'")
    equal(set(_by_name(await bench.session.ls(bench.path()))), {" leading"}, "the names")


async def listing_of_nothing(bench: Bench) -> None:
    """An empty directory has an empty listing."""
    equal(await bench.session.ls(bench.path()), [], "the listing")


async def listing_of_what_is_missing(bench: Bench) -> None:
    """Listing what does not exist is refused."""
    await refused(bench.session.ls(bench.path("missing")), "listing a missing directory")


async def paths_of_a_listing_can_be_used(bench: Bench) -> None:
    """The path of an entry can be read."""
    await bench.put("entry", b"content")
    (entry,) = await bench.session.ls(bench.path())
    with await bench.session.read(Path(entry.path)) as stream:
        equal(stream.read(), b"content", "the content")


async def making(bench: Bench) -> None:
    """A directory is made; once more is refused."""
    await bench.session.mkdir(bench.path("new"))
    equal(await bench.ok(f"test -d {bench.path('new')} && echo there"), b"there\n", "what a command sees")
    await refused(bench.session.mkdir(bench.path("new")), "making a directory that exists")


async def making_with_parents(bench: Bench) -> None:
    """With parents, all that is missing is made, and what exists is left."""
    for _ in range(2):
        await bench.session.mkdir(bench.path("a/b/c"), parents=True)
    equal(await bench.ok(f"test -d {bench.path('a/b/c')} && echo there"), b"there\n", "what a command sees")


async def making_without_parents(bench: Bench) -> None:
    """Without parents, a missing one is a refusal."""
    await refused(bench.session.mkdir(bench.path("x/y")), "making a directory in a missing one")
    equal((await bench.exec(f"test -e {bench.path('x')}")).exit_code, 1, "whether the parent was made")


async def removing_a_file(bench: Bench) -> None:
    """A file is removed; once more is refused."""
    await bench.put("file", b"x")
    await bench.session.rm(bench.path("file"))
    equal((await bench.exec(f"test -e {bench.path('file')}")).exit_code, 1, "whether it is still there")
    await refused(bench.session.rm(bench.path("file")), "removing a missing file")


async def removing_a_directory(bench: Bench) -> None:
    """A directory is removed only recursively."""
    await bench.put("tree/deep/file", b"x")
    await refused(bench.session.rm(bench.path("tree")), "removing a directory as a file")
    equal(await bench.see("tree/deep/file"), b"x", "the file in it")
    await bench.session.rm(bench.path("tree"), recursive=True)
    equal((await bench.exec(f"test -e {bench.path('tree')}")).exit_code, 1, "whether it is still there")


async def removing_a_link(bench: Bench) -> None:
    """Removing a link leaves its target, recursively too."""
    await bench.ok(f"cd {bench.path()}; mkdir kept; echo kept >kept/file; ln -s kept/file one; ln -s kept two")
    await bench.session.rm(bench.path("one"))
    await bench.session.rm(bench.path("two"), recursive=True)
    equal(await bench.ok(f"cd {bench.path()}; ls; cat kept/file"), b"kept\nkept\n", "what is left")


async def moving(bench: Bench) -> None:
    """A file is moved with its content."""
    await bench.put("from", b"moved")
    await bench.session.mkdir(bench.path("sub"))
    await bench.session.mv(bench.path("from"), bench.path("sub/to"))
    equal(await bench.ok(f"cd {bench.path()}; cat sub/to; ls"), b"movedsub\n", "what a command sees")


async def moving_replaces_a_file(bench: Bench) -> None:
    """Moving replaces a file that is in the way."""
    await bench.put("from", b"new")
    await bench.put("to", b"old")
    await bench.session.mv(bench.path("from"), bench.path("to"))
    equal(await bench.ok(f"cd {bench.path()}; cat to; ls"), b"newto\n", "what a command sees")


async def moving_onto_a_directory(bench: Bench) -> None:
    """Moving onto a directory is refused; it is not moved into it."""
    await bench.put("from", b"kept")
    await bench.session.mkdir(bench.path("directory"))
    await refused(bench.session.mv(bench.path("from"), bench.path("directory")), "moving onto a directory")
    equal(await bench.ok(f"cd {bench.path()}; cat from; ls directory"), b"kept", "what a command sees")


async def moving_what_is_missing(bench: Bench) -> None:
    """Moving what does not exist is refused, and so is a directory."""
    await bench.session.mkdir(bench.path("directory"))
    await refused(bench.session.mv(bench.path("missing"), bench.path("to")), "moving a missing file")
    await refused(bench.session.mv(bench.path("directory"), bench.path("to")), "moving a directory")
    equal(await bench.ok(f"ls {bench.path()}"), b"directory\n", "what a command sees")


async def moving_a_link(bench: Bench) -> None:
    """Moving a link moves the link, not its target."""
    await bench.ok(f"cd {bench.path()}; echo target >target; ln -s target link")
    await bench.session.mv(bench.path("link"), bench.path("moved"))
    equal(await bench.ok(f"cd {bench.path()}; test -L moved && ls"), b"moved\ntarget\n", "what a command sees")


async def comparing(bench: Bench) -> None:
    """Two names of one file are told from two files with one content."""
    await bench.ok(f"cd {bench.path()}; echo x >a; echo x >b; ln a hard; ln -s a link")
    same = bench.session.same_file
    equal(await same(bench.path("a"), bench.path("./a")), True, "a file and itself")
    equal(await same(bench.path("a"), bench.path("hard")), True, "a file and its hard link")
    equal(await same(bench.path("a"), bench.path("b")), False, "two files")
    equal(await same(bench.path("a"), bench.path("link")), True, "a file and a link to it")
    equal(await same(bench.path("a"), bench.path("link"), follow_symlinks=False), False, "the same, links not followed")


async def comparing_with_what_is_missing(bench: Bench) -> None:
    """What does not exist is no other file."""
    await bench.put("a", b"x")
    equal(await bench.session.same_file(bench.path("a"), bench.path("missing")), False, "the answer")


async def new_files_are_ordinary(bench: Bench) -> None:
    """A new file can be read by its owner and written by no other."""
    await bench.put("new", b"x")
    (entry,) = await bench.session.ls(bench.path())
    mode = entry.permissions.to_mode() & 0o777
    holds(mode & 0o600 == 0o600 and not mode & 0o022, f"its mode is {mode:o}")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return checks_of(
        "names",
        listing,
        listing_of_modes,
        listing_of_odd_names,
        listing_of_a_leading_blank,
        listing_of_nothing,
        listing_of_what_is_missing,
        paths_of_a_listing_can_be_used,
        making,
        making_with_parents,
        making_without_parents,
        removing_a_file,
        removing_a_directory,
        removing_a_link,
        moving,
        moving_replaces_a_file,
        moving_onto_a_directory,
        moving_what_is_missing,
        moving_a_link,
        comparing,
        comparing_with_what_is_missing,
        new_files_are_ordinary,
    )
