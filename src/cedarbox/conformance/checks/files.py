"""Files: exact bytes in and out."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shlex

from agents.sandbox.errors import WorkspaceReadNotFoundError, WorkspaceWriteTypeError

from cedarbox.conformance.bench import EVERY, Bench, content, deliver
from cedarbox.conformance.check import Check, checks_of, equal, holds, refused

__all__ = ["checks"]

_LARGE = hashlib.shake_256(b"conformance").digest(3_000_001)


class _OneWay(io.RawIOBase):
    """A stream that cannot be sought and gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's private Buffer
        size = min(len(buffer), 1000, len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


async def every_byte(bench: Bench) -> None:
    """Every byte is written and read as it is."""
    await bench.put("every", EVERY * 3)
    equal(await bench.see("every"), EVERY * 3, "what a command sees")
    equal(await bench.get("every"), EVERY * 3, "what reading gives")


async def an_empty_file(bench: Bench) -> None:
    """An empty file is made, and read as empty."""
    await bench.put("empty", b"")
    equal(await bench.ok(f"test -f {bench.path('empty')} && echo file"), b"file\n", "what a command sees")
    equal(await bench.get("empty"), b"", "what reading gives")


async def no_line_end_is_changed(bench: Bench) -> None:
    """Line ends are not touched."""
    data = b"a\r\nb\nc\rd"
    await bench.put("lines", data)
    equal(await bench.see("lines"), data, "what a command sees")
    equal(await bench.get("lines"), data, "what reading gives")


async def three_megabytes(bench: Bench) -> None:
    """Three megabytes go in and out unchanged."""
    await bench.put("large", _LARGE)
    back = await bench.get("large")
    equal(hashlib.sha256(back).hexdigest(), hashlib.sha256(_LARGE).hexdigest(), "the digest of what came back")


async def a_stream_that_cannot_be_sought(bench: Bench) -> None:
    """A stream that gives little at a time and cannot be sought is written whole."""
    await bench.session.write(bench.path("stream"), _OneWay(EVERY * 40))
    equal(await bench.see("stream"), EVERY * 40, "what a command sees")


async def text_is_no_payload(bench: Bench) -> None:
    """A stream of text is refused by its type."""
    await refused(
        bench.session.write(bench.path("text"), io.StringIO("text")),
        "writing a stream of text",
        (WorkspaceWriteTypeError,),
    )


async def overwriting_replaces(bench: Bench) -> None:
    """Writing a shorter text over a longer one leaves nothing of it."""
    await bench.put("over", b"a long first text")
    await bench.put("over", b"short")
    equal(await bench.see("over"), b"short", "what a command sees")


async def overwriting_keeps_the_mode(bench: Bench) -> None:
    """A program that is written over can still be run."""
    await bench.ok(f"printf '#!/bin/sh\\necho old\\n' >{bench.path('tool')}; chmod 755 {bench.path('tool')}")
    await bench.put("tool", b"#!/bin/sh\necho new\n")
    equal(await bench.ok(f"./{bench.path('tool')}"), b"new\n", "its output")


async def parents_are_made(bench: Bench) -> None:
    """Writing makes the directories above."""
    await bench.put("a/b/c/d/file", b"deep")
    equal(await bench.see("a/b/c/d/file"), b"deep", "what a command sees")


async def a_parent_that_is_a_file(bench: Bench) -> None:
    """Writing below a file is refused and leaves it."""
    await bench.put("plain", b"plain")
    await refused(bench.put("plain/below", b"x"), "writing below a file")
    equal(await bench.see("plain"), b"plain", "the file")


async def absolute_and_relative(bench: Bench) -> None:
    """A path in the workspace means the same file, absolute or relative."""
    await deliver(bench.session, f"{bench.root}/{bench.path('both')}", b"absolute")
    equal(await bench.get("both"), b"absolute", "the content by the relative path")
    await bench.put("both", b"relative")
    back = await content(bench.session, f"{bench.root}/{bench.path('both')}")
    equal(back, b"relative", "the content by the absolute path")


async def dots_in_a_path(bench: Bench) -> None:
    """A path that climbs and stays in the workspace is an ordinary one."""
    await bench.put("here", b"here")
    back = await content(bench.session, f"{bench.place}/./sub/../here")
    equal(back, b"here", "the content")


async def _named(bench: Bench, *names: str) -> None:
    for number, name in enumerate(names):
        data = f"content {number}".encode()
        await bench.put(name, data)
        equal(await bench.get(name), data, f"the content of {name!r}")
    quoted = " ".join(f"./{shlex.quote(str(bench.path(name)))}" for name in names)
    wanted = "".join(f"content {number}" for number in range(len(names))).encode()
    equal(await bench.ok(f"cat {quoted}"), wanted, "what a command sees")


async def names_with_blanks_and_quotes(bench: Bench) -> None:
    """Names with blanks and quotes are ordinary names."""
    await _named(bench, "two words", 'it\'s "quoted"')


async def names_of_other_alphabets(bench: Bench) -> None:
    """Names beyond ASCII are ordinary names."""
    await _named(bench, "Grüße.txt", "日本語 😀")


async def names_that_shells_read(bench: Bench) -> None:
    """Names with characters of the shell are ordinary names."""
    await _named(bench, "$(touch hit) `id` $HOME;|&*?[a]", "~")
    equal((await bench.exec(f"test -e hit || test -e {bench.path('hit')}")).exit_code, 1, "whether a name was run")


async def names_that_look_like_options(bench: Bench) -> None:
    """Names that begin with a dash or dot are ordinary names."""
    await _named(bench, "-rf", ".hidden")


async def a_line_feed_in_a_name(bench: Bench) -> None:
    """A name with a line feed is an ordinary name."""
    await _named(bench, "first\nsecond")


async def a_missing_file(bench: Bench) -> None:
    """Reading a file that does not exist says so by its type."""
    await refused(bench.get("missing"), "reading a missing file", (WorkspaceReadNotFoundError, FileNotFoundError))
    await refused(bench.get("no/such/directory"), "reading in a missing directory", (WorkspaceReadNotFoundError,))


async def a_directory_is_no_file(bench: Bench) -> None:
    """Reading a directory, or writing over one, is refused."""
    await refused(bench.get(""), "reading a directory")
    await bench.put("directory/inside", b"inside")
    await refused(bench.put("directory", b"x"), "writing over a directory")
    equal(await bench.see("directory/inside"), b"inside", "the file in it")


async def a_part_of_a_file(bench: Bench) -> None:
    """A bounded read gives the first bytes, at most all of them."""
    await bench.put("bounded", EVERY * 4)
    read = bench.session.read_bounded
    equal(await read(bench.path("bounded"), max_bytes=10), EVERY[:10], "ten bytes")
    equal(await read(bench.path("bounded"), max_bytes=1024), EVERY * 4, "exactly all bytes")
    equal(await read(bench.path("bounded"), max_bytes=5000), EVERY * 4, "more than all bytes")


async def a_part_of_a_missing_file(bench: Bench) -> None:
    """A bounded read of a missing file says so by its type."""
    await refused(
        bench.session.read_bounded(bench.path("missing"), max_bytes=10),
        "a bounded read of a missing file",
        (WorkspaceReadNotFoundError,),
    )


async def a_part_of_nothing(bench: Bench) -> None:
    """A bounded read of no bytes is a mistake of the caller."""
    await refused(
        bench.session.read_bounded(bench.path("missing"), max_bytes=0), "a bounded read of 0 bytes", (ValueError,)
    )


async def what_commands_write_can_be_read(bench: Bench) -> None:
    """A file that a command wrote is read as it is, links in the workspace too."""
    await bench.ok(f"cd {bench.path()}; printf 'x\\0y' >made; ln -s made link; ln made hard")
    for name in ("made", "link", "hard"):
        equal(await bench.get(name), b"x\0y", f"the content of {name}")


async def writing_through_a_link(bench: Bench) -> None:
    """Writing through a link in the workspace changes its target."""
    await bench.ok(f"cd {bench.path()}; echo old >target; ln -s target link")
    await bench.put("link", b"new")
    equal(await bench.ok(f"cd {bench.path()}; cat target; test -L link && echo link"), b"newlink\n", "target and link")


async def many_files_at_once(bench: Bench) -> None:
    """Files that are written at once do not mix."""
    await asyncio.gather(*(bench.put(f"many/{n}", f"{n}".encode() * 50) for n in range(6)))
    seen = await asyncio.gather(*(bench.get(f"many/{n}") for n in range(6)))
    equal(list(seen), [f"{n}".encode() * 50 for n in range(6)], "the contents")
    listing = await bench.ok(f"ls -A {bench.path('many')}")
    holds(listing.split() == [f"{n}".encode() for n in range(6)], f"other files are left behind: {listing!r}")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return checks_of(
        "files",
        every_byte,
        an_empty_file,
        no_line_end_is_changed,
        three_megabytes,
        a_stream_that_cannot_be_sought,
        text_is_no_payload,
        overwriting_replaces,
        overwriting_keeps_the_mode,
        parents_are_made,
        a_parent_that_is_a_file,
        absolute_and_relative,
        dots_in_a_path,
        names_with_blanks_and_quotes,
        names_of_other_alphabets,
        names_that_shells_read,
        names_that_look_like_options,
        a_line_feed_in_a_name,
        a_missing_file,
        a_directory_is_no_file,
        a_part_of_a_file,
        a_part_of_a_missing_file,
        a_part_of_nothing,
        what_commands_write_can_be_read,
        writing_through_a_link,
        many_files_at_once,
    )
