"""Patches: the edits of the SDK's apply_patch tool."""

from __future__ import annotations

from agents.editor import ApplyPatchOperation, ApplyPatchOperationType
from agents.sandbox.errors import ApplyPatchDecodeError, ApplyPatchDiffError, ApplyPatchFileNotFoundError

from cedarbox.conformance.bench import Bench
from cedarbox.conformance.check import Check, checks_of, equal, holds, refused

__all__ = ["checks", "patch"]


async def patch(
    bench: Bench, kind: ApplyPatchOperationType, path: str, diff: str | None = None, *, to: str | None = None
) -> str:
    """Apply one operation to a path as it stands."""
    return await bench.session.apply_patch(ApplyPatchOperation(type=kind, path=path, diff=diff, move_to=to))


async def creating(bench: Bench) -> None:
    """A patch creates a file, with the directories above."""
    await patch(bench, "create_file", str(bench.path("new/deep/file.txt")), "+first ü\n+second\n")
    equal(await bench.see("new/deep/file.txt"), "first ü\nsecond".encode(), "what a command sees")


async def creating_what_exists(bench: Bench) -> None:
    """A patch does not create over a file."""
    await bench.put("there", b"kept")
    await refused(
        patch(bench, "create_file", str(bench.path("there")), "+lost\n"),
        "creating a file that exists",
        (ApplyPatchDiffError,),
    )
    equal(await bench.see("there"), b"kept", "the file")


async def creating_where_a_link_is(bench: Bench) -> None:
    """A patch does not create through a link that leads nowhere."""
    await bench.ok(f"cd {bench.path()}; ln -s target dangling")
    await refused(patch(bench, "create_file", str(bench.path("dangling")), "+x\n"), "creating over a link")
    equal((await bench.exec(f"test -e {bench.path('target')}")).exit_code, 1, "whether the target was made")


async def updating(bench: Bench) -> None:
    """A patch changes the lines it names and no others."""
    await bench.put("file", "eins\nzwei ü\ndrei\n".encode())
    await patch(bench, "update_file", str(bench.path("file")), "@@\n eins\n-zwei ü\n+two €\n drei\n")
    equal(await bench.see("file"), "eins\ntwo €\ndrei\n".encode(), "what a command sees")


async def updating_keeps_the_mode(bench: Bench) -> None:
    """A program that is patched can still be run."""
    await bench.ok(f"cd {bench.path()}; printf '#!/bin/sh\\necho old\\n' >tool; chmod 755 tool")
    await patch(bench, "update_file", str(bench.path("tool")), "@@\n-echo old\n+echo new\n")
    equal(await bench.ok(f"./{bench.path('tool')}"), b"new\n", "its output")


async def a_patch_that_does_not_fit(bench: Bench) -> None:
    """A patch whose context is not there changes nothing."""
    await bench.put("file", b"as it was\n")
    await refused(
        patch(bench, "update_file", str(bench.path("file")), "@@\n-something else\n+x\n"),
        "a patch that does not fit",
        (ApplyPatchDiffError,),
    )
    equal(await bench.see("file"), b"as it was\n", "the file")


async def updating_what_is_missing(bench: Bench) -> None:
    """A patch of a missing file says so by its type, and so does a deletion."""
    missing = str(bench.path("missing"))
    await refused(patch(bench, "update_file", missing, "@@\n-a\n+b\n"), "updating", (ApplyPatchFileNotFoundError,))
    await refused(patch(bench, "delete_file", missing), "deleting", (ApplyPatchFileNotFoundError,))


async def updating_what_is_no_text(bench: Bench) -> None:
    """A patch of a file that is not UTF-8 says so by its type."""
    await bench.put("binary", b"\xff\xfe\x00")
    await refused(
        patch(bench, "update_file", str(bench.path("binary")), "@@\n-a\n+b\n"),
        "patching bytes",
        (ApplyPatchDecodeError,),
    )
    equal(await bench.see("binary"), b"\xff\xfe\x00", "the file")


async def deleting(bench: Bench) -> None:
    """A patch deletes a file."""
    await bench.put("file", b"x")
    await patch(bench, "delete_file", str(bench.path("file")))
    equal((await bench.exec(f"test -e {bench.path('file')}")).exit_code, 1, "whether it is still there")


async def updating_and_moving(bench: Bench) -> None:
    """A patch changes a file and moves it."""
    await bench.put("from", b"old\n")
    await patch(bench, "update_file", str(bench.path("from")), "@@\n-old\n+new\n", to=str(bench.path("to/here")))
    equal(await bench.ok(f"cd {bench.path()}; cat to/here; ls"), b"new\nto\n", "what a command sees")


async def several_operations(bench: Bench) -> None:
    """Several operations are done in their order."""
    name = str(bench.path("file"))
    done = await bench.session.apply_patch(
        [
            ApplyPatchOperation(type="create_file", path=name, diff="+one\n"),
            ApplyPatchOperation(type="update_file", path=name, diff="@@\n-one\n+two\n"),
        ]
    )
    holds(done, "no answer was given")
    equal((await bench.see("file")).strip(), b"two", "what a command sees")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return checks_of(
        "patch",
        creating,
        creating_what_exists,
        creating_where_a_link_is,
        updating,
        updating_keeps_the_mode,
        a_patch_that_does_not_fit,
        updating_what_is_missing,
        updating_what_is_no_text,
        deleting,
        updating_and_moving,
        several_operations,
    )
