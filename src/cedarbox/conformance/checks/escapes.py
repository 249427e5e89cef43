"""Escapes: no path of the file operations leads out of the workspace."""

from __future__ import annotations

import io
from pathlib import Path

from agents.sandbox.errors import ApplyPatchPathError, InvalidManifestPathError

from cedarbox.conformance.bench import Bench, content, deliver
from cedarbox.conformance.check import Check, checks_of, equal, refused
from cedarbox.conformance.checks.patches import patch
from cedarbox.errors import PolicyDenied

__all__ = ["checks"]

_LINKS = "conformance/links"
# What the SDK's own tests take for a refusal (agents 0.24, tests/sandbox/integration_tests), and a guard's.
_ESCAPE = (InvalidManifestPathError, ApplyPatchPathError, PolicyDenied)


async def reading_upwards(bench: Bench) -> None:
    """A path that climbs out is not read."""
    for path in (bench.upwards("secret.txt"), f"given/../{bench.upwards('secret.txt')}"):
        await refused(content(bench.session, path), f"reading {path}", _ESCAPE)


async def reading_elsewhere(bench: Bench) -> None:
    """An absolute path elsewhere is not read, not in part either."""
    path = f"{bench.outside}/secret.txt"
    await refused(content(bench.session, path), "reading it", _ESCAPE)
    await refused(bench.session.read_bounded(Path(path), max_bytes=4), "a bounded read of it")


async def reading_the_system(bench: Bench) -> None:
    """A file of the system is not read."""
    for path in ("/etc/passwd", "/proc/self/environ"):
        await refused(content(bench.session, path), f"reading {path}", _ESCAPE)


async def writing_upwards(bench: Bench) -> None:
    """A path that climbs out is not written."""
    for name in ("secret.txt", "new.txt", "new/deep.txt"):
        await refused(deliver(bench.session, bench.upwards(name), b"hit"), f"writing {name}", _ESCAPE)
    await bench.untouched()


async def writing_elsewhere(bench: Bench) -> None:
    """An absolute path elsewhere is not written."""
    for name in ("secret.txt", "new.txt"):
        await refused(deliver(bench.session, f"{bench.outside}/{name}", b"hit"), f"writing {name}", _ESCAPE)
    await bench.untouched()


async def writing_beside_the_workspace(bench: Bench) -> None:
    """A path that only begins like the workspace is elsewhere."""
    await refused(deliver(bench.session, f"{bench.root}-{bench.nonce}/file", b"hit"), "writing beside it", _ESCAPE)
    equal((await bench.exec(f"test -e {bench.root}-{bench.nonce}")).exit_code, 1, "whether it was made")


async def listing_elsewhere(bench: Bench) -> None:
    """Nothing outside is listed."""
    for path in ("..", bench.outside, bench.upwards("inner"), f"{_LINKS}/to-directory/inner"):
        await refused(bench.session.ls(path), f"listing {path}")


async def removing_elsewhere(bench: Bench) -> None:
    """Nothing outside is removed."""
    for path in (bench.upwards("secret.txt"), f"{bench.outside}/inner", f"{_LINKS}/to-directory/secret.txt"):
        await refused(bench.session.rm(path, recursive=True), f"removing {path}")
    await bench.untouched()


async def making_elsewhere(bench: Bench) -> None:
    """No directory is made outside."""
    for path in (bench.upwards("new"), f"{bench.outside}/new", f"{_LINKS}/to-directory/new"):
        await refused(bench.session.mkdir(path, parents=True), f"making {path}")
    await bench.untouched()


async def moving_out(bench: Bench) -> None:
    """Nothing is moved out."""
    await bench.put("mine", b"mine")
    for path in (bench.upwards("new.txt"), f"{bench.outside}/secret.txt", f"{_LINKS}/to-directory/new.txt"):
        await refused(bench.session.mv(bench.path("mine"), path), f"moving to {path}")
    await bench.untouched()
    equal(await bench.see("mine"), b"mine", "the file")


async def moving_in(bench: Bench) -> None:
    """Nothing is moved in from outside."""
    for path in (bench.upwards("secret.txt"), f"{bench.outside}/secret.txt", f"{_LINKS}/to-directory/secret.txt"):
        await refused(bench.session.mv(path, bench.path("stolen")), f"moving {path}")
    await bench.untouched()


async def comparing_elsewhere(bench: Bench) -> None:
    """Nothing outside is compared."""
    for path in (bench.upwards("secret.txt"), f"{bench.outside}/secret.txt", f"{_LINKS}/to-file"):
        await refused(bench.session.same_file("given/every.bin", path), f"comparing with {path}")


async def patching_elsewhere(bench: Bench) -> None:
    """No patch creates, changes or deletes outside."""
    for path in (bench.upwards("new.txt"), f"{bench.outside}/new.txt"):
        await refused(patch(bench, "create_file", path, "+hit\n"), f"creating {path}", _ESCAPE)
    for path in (bench.upwards("secret.txt"), f"{bench.outside}/secret.txt"):
        await refused(patch(bench, "update_file", path, "@@\n-outside\n+hit\n"), f"updating {path}", _ESCAPE)
        await refused(patch(bench, "delete_file", path), f"deleting {path}", _ESCAPE)
    await bench.untouched()


async def reading_through_a_link(bench: Bench) -> None:
    """A link to a file outside is not read."""
    await refused(content(bench.session, f"{_LINKS}/to-file"), "reading through a link", _ESCAPE)
    await refused(bench.session.read_bounded(Path(_LINKS) / "to-file", max_bytes=4), "a bounded read through a link")


async def writing_through_a_link(bench: Bench) -> None:
    """A link to a file outside is not written through."""
    await refused(deliver(bench.session, f"{_LINKS}/to-file", b"hit"), "writing through a link", _ESCAPE)
    await bench.untouched()


async def writing_through_a_link_to_nothing(bench: Bench) -> None:
    """A link to a file outside that does not exist makes none."""
    await refused(deliver(bench.session, f"{_LINKS}/to-nothing", b"hit"), "writing through a dangling link", _ESCAPE)
    await bench.untouched()


async def patching_through_a_link(bench: Bench) -> None:
    """No patch goes through a link."""
    for name in ("to-nothing", "to-directory/new.txt"):
        await refused(patch(bench, "create_file", f"{_LINKS}/{name}", "+hit\n"), f"creating {name}")
    await refused(patch(bench, "update_file", f"{_LINKS}/to-file", "@@\n-outside\n+hit\n"), "updating a link")
    await bench.untouched()


async def reading_below_a_link(bench: Bench) -> None:
    """A file below a link to a directory outside is not read, whichever way the link is written."""
    for name in ("to-directory", "climbing", "first"):
        path = f"{_LINKS}/{name}/secret.txt"
        await refused(content(bench.session, path), f"reading {path}", _ESCAPE)


async def writing_below_a_link(bench: Bench) -> None:
    """A file below a link to a directory outside is not written, whichever way the link is written."""
    for name in ("to-directory/secret.txt", "climbing/new.txt", "first/inner/new.txt"):
        await refused(deliver(bench.session, f"{_LINKS}/{name}", b"hit"), f"writing {name}", _ESCAPE)
    await bench.untouched()


async def new_parents_below_a_link(bench: Bench) -> None:
    """Directories that a write would make below a link are not made."""
    path = f"{_LINKS}/to-directory/new/deep/file"
    await refused(deliver(bench.session, path, b"hit"), "writing below new directories", _ESCAPE)
    await bench.untouched()


async def a_parent_that_is_swapped(bench: Bench) -> None:
    """A directory that was written to and then became a link is not followed."""
    await bench.put("parent/file", b"first")
    await bench.ok(f"cd {bench.path()}; rm -r parent; ln -s {bench.outside} parent")
    await refused(bench.put("parent/file", b"hit"), "writing below what became a link", _ESCAPE)
    await bench.untouched()


async def a_loop_of_links(bench: Bench) -> None:
    """A link that leads to itself is refused and does not hang."""
    await refused(content(bench.session, f"{_LINKS}/loop"), "reading a loop")
    await refused(deliver(bench.session, f"{_LINKS}/loop", b"x"), "writing to a loop")


async def links_that_stay_inside(bench: Bench) -> None:
    """Links that stay in the workspace work."""
    for path in (f"{_LINKS}/to-inside", f"{_LINKS}/to-inner-directory/file.txt"):
        equal(await content(bench.session, path), b"inside", f"the content of {path}")


async def the_root_itself(bench: Bench) -> None:
    """The workspace itself is neither written over nor moved."""
    for path in (".", bench.root):
        await refused(bench.session.write(Path(path), io.BytesIO(b"hit")), f"writing {path}")
        await refused(bench.session.mv(path, bench.path("moved")), f"moving {path}")
    equal((await bench.exec("test -d given && pwd -P")).exit_code, 0, "whether it is still there")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return checks_of(
        "escape",
        reading_upwards,
        reading_elsewhere,
        reading_the_system,
        writing_upwards,
        writing_elsewhere,
        writing_beside_the_workspace,
        listing_elsewhere,
        removing_elsewhere,
        making_elsewhere,
        moving_out,
        moving_in,
        comparing_elsewhere,
        patching_elsewhere,
        reading_through_a_link,
        writing_through_a_link,
        writing_through_a_link_to_nothing,
        patching_through_a_link,
        reading_below_a_link,
        writing_below_a_link,
        new_parents_below_a_link,
        a_parent_that_is_swapped,
        a_loop_of_links,
        links_that_stay_inside,
        the_root_itself,
    )
