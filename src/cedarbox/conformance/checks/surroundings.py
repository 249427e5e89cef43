"""What a sandbox is given: the manifest's entries, users, ports, and its distance from the host."""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
from pathlib import Path

from agents.sandbox.errors import ExposedPortUnavailableError

from cedarbox.conformance.bench import EVERY, Bench, content
from cedarbox.conformance.check import Check, Failure, NotApplicable, checks_of, equal, holds, refused

__all__ = ["checks"]


async def files_of_the_manifest(bench: Bench) -> None:
    """Files of the manifest are there, exact."""
    equal(await content(bench.session, "given/every.bin"), EVERY, "given/every.bin")
    equal(await content(bench.session, "given/empty"), b"", "given/empty")
    equal(await content(bench.session, "given/passing.txt"), b"passing", "given/passing.txt")


async def odd_names_of_the_manifest(bench: Bench) -> None:
    """Names of the manifest with blanks and beyond ASCII are kept."""
    equal(await bench.ok("cat 'given/a b/ü 😀.txt'"), b"named", "the content")


async def modes_of_the_manifest(bench: Bench) -> None:
    """Permissions of the manifest are set."""
    equal(await bench.ok("given/run.sh; stat -c %a given/run.sh given/private"), b"ran\n750\n600\n", "output and modes")


async def copies_of_host_files(bench: Bench) -> None:
    """Files and directories of the host that the manifest names are copied."""
    seen = await bench.ok("cat copied.bin; cat copied/one.txt copied/deep/two.txt")
    equal(seen, EVERY + b"one\ntwo\n", "the contents")


async def who_runs_commands(bench: Bench) -> None:
    """A command runs as the user that was asked for, in that user's surroundings."""
    name = str(bench.backend.user)
    seen = (await bench.ok("id -un; pwd; cd && pwd; echo $USER", user=name)).decode().split("\n")
    equal(seen[0], name, "who runs it")
    equal(seen[1], bench.root, "where it starts")
    home = await bench.ok(f"""awk -F: '$1 == "{name}" {{print $6}}' /etc/passwd""")
    equal(seen[2], home.decode().strip(), "the home")


async def files_of_a_user(bench: Bench) -> None:
    """What is written as a user belongs to that user."""
    name = str(bench.backend.user)
    await bench.ok(f"chmod 777 {bench.path()}")
    await bench.put("theirs", b"theirs", user=name)
    equal(await bench.ok(f"stat -c %U {bench.path('theirs')}"), f"{name}\n".encode(), "the owner")
    equal(await bench.get("theirs", user=name), b"theirs", "what the user reads")


async def a_user_cannot_read_all(bench: Bench) -> None:
    """A user does not read what only another one may."""
    await refused(content(bench.session, "given/private", user=bench.backend.user), "reading a private file")
    holds((await bench.exec("cat given/private", user=bench.backend.user)).exit_code != 0, "a command could read it")


async def a_user_cannot_write_all(bench: Bench) -> None:
    """A user does not write, make or remove where only another one may."""
    name = bench.backend.user
    await bench.ok(f"cd {bench.path()}; mkdir closed; echo kept >closed/file; chmod 755 closed; chmod 644 closed/file")
    await refused(bench.put("closed/file", b"hit", user=name), "writing a file of another user")
    await refused(bench.session.mkdir(bench.path("closed/new"), user=name), "making a directory there")
    await refused(bench.session.rm(bench.path("closed/file"), user=name), "removing a file there")
    equal(await bench.ok(f"cd {bench.path()}/closed; cat file; ls"), b"kept\nfile\n", "what is there")


async def an_unknown_user(bench: Bench) -> None:
    """A user that does not exist runs nothing."""
    try:
        result = await bench.exec("echo ran", user="nobody-of-this-name")
    except Exception as error:  # noqa: BLE001  # an error is as good as an exit code here
        holds(str(error), "the error says nothing")
        return
    holds(result.exit_code != 0 and b"ran" not in result.stdout, "the command ran")


async def a_limit_for_a_user(bench: Bench) -> None:
    """A time limit ends the command of a user too."""
    marker = bench.marker()
    command = bench.exec(f"sleep {marker} & sleep {marker}", user=bench.backend.user, timeout_s=bench.backend.patience)
    await refused(command, "a command over its limit")
    await bench.ended(marker)


async def a_port_that_was_not_declared(bench: Bench) -> None:
    """A port that the options do not declare is not given."""
    port = 1 if bench.backend.port != 1 else 2
    await refused(bench.session.resolve_exposed_port(port), "an undeclared port", (ExposedPortUnavailableError,))


async def a_declared_port_is_reached(bench: Bench) -> None:
    """A server in the sandbox is reached by the port that the options declare."""
    port = bench.backend.port or 0
    if (await bench.exec("command -v python3")).exit_code:
        raise NotApplicable("the sandbox has no python3 to serve with")
    await bench.put("index.html", bench.nonce.encode())
    server = f"cd {bench.path()}; python3 -m http.server {port} >/dev/null 2>&1 & echo $!"
    pid = int(await bench.ok(server))
    try:
        endpoint = await bench.session.resolve_exposed_port(port)
        answer = b""
        for _ in range(40):
            try:
                answer = await _fetched(endpoint.host, endpoint.port)
            except OSError:
                await asyncio.sleep(0.25)
                continue
            break
        holds(bench.nonce.encode() in answer, f"{endpoint.host}:{endpoint.port} did not answer from the sandbox")
    finally:
        await bench.exec(f"kill {pid}")


async def _fetched(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def files_of_the_host(bench: Bench) -> None:
    """A file of the host is not in the sandbox."""
    with tempfile.NamedTemporaryFile(prefix="conformance-") as file:
        equal((await bench.exec(f"test -e {shlex.quote(file.name)}")).exit_code, 1, "whether commands see it")


async def processes_of_the_host(bench: Bench) -> None:
    """Processes of the host are not in the sandbox."""
    own = _of_this_host(f"/proc/{os.getpid()}/cmdline")
    seen = (await bench.exec("cat /proc/[0-9]*/cmdline")).stdout
    holds(own not in seen, "a command sees the process that drives the sandbox")


async def the_kernel_of_the_host(bench: Bench) -> None:
    """The sandbox was not booted when the host was."""
    place = "/proc/sys/kernel/random/boot_id"
    own = _of_this_host(place)
    seen = (await bench.exec(f"cat {place}")).stdout
    if not seen:
        raise Failure("the sandbox does not say when it was booted")
    holds(seen != own, "commands run on the kernel of the host")


def _of_this_host(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotApplicable(f"this host has no {path}") from error


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return (
        *checks_of(
            "manifest",
            files_of_the_manifest,
            odd_names_of_the_manifest,
            modes_of_the_manifest,
            copies_of_host_files,
        ),
        *checks_of(
            "users",
            who_runs_commands,
            files_of_a_user,
            a_user_cannot_read_all,
            a_user_cannot_write_all,
            an_unknown_user,
            a_limit_for_a_user,
            needs=frozenset(("users",)),
        ),
        *checks_of("ports", a_port_that_was_not_declared),
        *checks_of("ports", a_declared_port_is_reached, needs=frozenset(("ports",))),
        *checks_of(
            "apart",
            files_of_the_host,
            processes_of_the_host,
            the_kernel_of_the_host,
            needs=frozenset(("isolation",)),
        ),
    )
