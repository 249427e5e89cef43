"""Runs one command in the emulated machine and carries its output and exit code out.

QEMU's TCG with ``-cpu max`` emulates SVM with nested paging, so a Debian 12 kernel in it has a working /dev/kvm on any
x86-64 host (measured with BoxLite 0.10.8 on QEMU 7.2). It has one processor: with two, each on a thread of its own,
guests die and the machine's kernel panics within minutes, in QEMU 7.2 and 10.0 alike. To use more processors of the
host, run more machines. The machine has no network card. Its disk is copy-on-write and thrown away; QEMU unlinks the
temporary file as soon as it has opened it, so even a killed run leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from tests.rig.debian import require_programs
from tests.rig.trouble import RigError

__all__ = ["BOOT_SECONDS", "FAILED", "TIMED_OUT", "Job", "run_job"]

TIMED_OUT = 124
"""Exit code when the command took longer than its time limit, as coreutils' timeout gives it."""

FAILED = 125
"""Exit code when the machine did not start or ended before the command did."""

BOOT_SECONDS = 180
"""Time until the command must have started; a quiet host needs under 10 s."""

_HEADER = struct.Struct(">cI")
_PIECE = 1 << 16
# The emulator loses a timer interrupt once in some hours of nested guests, and then the machine sleeps for ever (seen
# with QEMU 7.2). Any other interrupt wakes it, such as a byte for it to drop.
_WAKE = b"\0"
_WAKE_SECONDS = 1.0
_CONSOLE_LINES = 25
_READ_ONLY = ",readonly=on"
# Five levels of page tables make every nested walk longer. "Enhanced" string instructions make kernels copy and clear
# pages byte by byte, which is fast on a real processor only: without them a guest boots in half the time.
_PROCESSOR = "max,la57=off,erms=off,fsrm=off"


@dataclass(frozen=True)
class Job:
    """One command and the machine it runs in.

    Args:
        argv: The argument vector, passed as it is.
        disk: Directory from `tests.rig.disk.machine_disk`.
        checkout: Directory that the machine sees read-only as /checkout.
        env: Environment of the command beyond the machine's own.
        oci: OCI layout that the machine sees read-only as /oci, if any.
        output: Directory that the machine sees read-write as /output, if any.
        shares: Directories that the machine sees read-only, by the name that they have there below /.
        console: File for the kernel's console; None keeps only what a failure shows.
        timeout: Seconds the command may take, counted from its start; None means no limit.
        memory_mib: Memory of the machine in MiB.
    """

    argv: Sequence[str]
    disk: Path
    checkout: Path
    env: Mapping[str, str] = field(default_factory=dict)
    oci: Path | None = None
    output: Path | None = None
    shares: Mapping[str, Path] = field(default_factory=dict)
    console: Path | None = None
    timeout: float | None = None
    memory_mib: int = 6144


def run_job(job: Job, *, stdout: int = 1, stderr: int = 2) -> int:
    """Runs the job, writing what the command writes to the two descriptors as it comes.

    Args:
        job: What to run.
        stdout: Descriptor for the command's standard output.
        stderr: Descriptor for its standard error.

    Returns:
        The command's exit code, 128 plus the number of the signal that ended it, or `TIMED_OUT`.

    Raises:
        RigError: The machine failed; carries the end of its console and the code `FAILED`.
        SystemExit: A signal asked this process to end; the machine is gone by then.
    """
    require_programs({"qemu-system-x86_64": "qemu-system-x86", "setpriv": "util-linux"})
    with _ending_on_signals(), _console(job.console) as console, _machine(job, console) as channel:
        try:
            return _converse(channel, job, stdout, stderr)
        except EOFError:
            reason = "the machine ended before the command did"
        except TimeoutError:
            reason = f"the machine did not start within {BOOT_SECONDS} s"
        detail = _tail(console)
        hint = "its console ends with the lines above" if detail else "its console is empty"
        raise RigError(reason, hint=hint, detail=detail, code=FAILED)


def _converse(channel: socket.socket, job: Job, stdout: int, stderr: int) -> int:
    boot_end = time.monotonic() + BOOT_SECONDS
    kind, _payload = _frame(channel, boot_end)
    if kind != b"R":
        raise EOFError
    request = json.dumps({"argv": list(job.argv), "env": _environment(job), "cwd": "/checkout"}).encode()
    channel.settimeout(None)
    channel.sendall(_HEADER.pack(b"J", len(request)) + request)
    end = None if job.timeout is None else time.monotonic() + job.timeout
    while True:
        try:
            kind, payload = _frame(channel, end, waking=True)
        except TimeoutError:
            os.write(stderr, f"rig: the command took longer than {job.timeout:g} s and was ended\n".encode())
            return TIMED_OUT
        if kind == b"X":
            return int(json.loads(payload)["code"])
        _write(stdout if kind == b"O" else stderr, payload)


def _environment(job: Job) -> dict[str, str]:
    # The checkout is read-only in the machine, so what tools like to write beside the code goes to its own disk.
    own = {
        "CEDARBOX_RIG": "1",
        "HOME": "/root",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
        "LANG": "C.UTF-8",
        "PATH": "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTEST_ADDOPTS": "-o cache_dir=/tmp/pytest",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/checkout/src",
        "TERM": "dumb",
        "VIRTUAL_ENV": "/opt/venv",
    }
    if job.oci:
        own["CEDARBOX_TEST_LAYOUT"] = "/oci"
    return {**own, **job.env}


def _frame(channel: socket.socket, end: float | None, *, waking: bool = False) -> tuple[bytes, bytes]:
    kind, length = _HEADER.unpack(_exactly(channel, _HEADER.size, end, waking=waking))
    return kind, _exactly(channel, length, end, waking=waking)


def _exactly(channel: socket.socket, size: int, end: float | None, *, waking: bool) -> bytes:
    data = bytearray()
    while len(data) < size:
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        channel.settimeout(min(_WAKE_SECONDS, _WAKE_SECONDS if left is None else left))
        try:
            piece = channel.recv(min(size - len(data), _PIECE))
        except TimeoutError:
            if waking:
                # Whether it is gone is for the next reading to find.
                with suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
                    channel.sendall(_WAKE)
            continue
        except ConnectionResetError:
            raise EOFError from None
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Whoever started us may have made the descriptor non-blocking.
            select.select([], [descriptor], [])
        except BrokenPipeError:
            raise SystemExit(128 + signal.SIGPIPE) from None


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _console(path: Path | None) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() if path is None else path.open("w+b") as handle:
        yield handle


def _tail(console: IO[bytes]) -> str:
    console.seek(0)
    lines = console.read().decode(errors="replace").replace("\r", "").splitlines()
    return "\n".join(line for line in lines[-_CONSOLE_LINES:] if line.strip())


@contextmanager
def _machine(job: Job, console: IO[bytes]) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                _command(job, channel=theirs.fileno(), console=console.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(theirs.fileno(), console.fileno()),
                env={"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(job.disk)},
                # The terminal's Ctrl-C must reach this process only, which then ends the machine.
                start_new_session=True,
            )
        try:
            yield ours
        finally:
            process.kill()
            process.wait()


def _command(job: Job, *, channel: int, console: int) -> list[str]:
    shares = [("checkout", job.checkout, _READ_ONLY)]
    shares += [("oci", job.oci, _READ_ONLY)] if job.oci else []
    shares += [("output", job.output, "")] if job.output else []
    shares += [(name, path, _READ_ONLY) for name, path in job.shares.items()]
    # Even if this process is killed outright, the kernel ends the machine with it.
    command = ["setpriv", "--pdeathsig", "KILL", "--"]
    command += [
        "qemu-system-x86_64",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-nic",
        "none",
    ]
    command += ["-machine", "q35", "-accel", "tcg,thread=single,tb-size=1024", "-cpu", _PROCESSOR]
    command += ["-smp", "1", "-m", f"{job.memory_mib}M"]
    command += ["-kernel", str(job.disk / "vmlinuz"), "-initrd", str(job.disk / "initramfs.cpio")]
    command += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on nokaslr"]
    command += ["-chardev", f"file,id=console,path=/dev/fd/{console},append=on", "-serial", "chardev:console"]
    command += ["-drive", f"file={_escaped(job.disk / 'root.ext4')},if=virtio,format=raw,snapshot=on,cache=unsafe"]
    command += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=rig,fd={channel}"]
    command += ["-device", "virtserialport,chardev=rig,name=cedarbox.rig"]
    for tag, path, access in shares:
        command += ["-fsdev", f"local,id={tag},path={_escaped(path)},security_model=none,multidevs=remap{access}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return command


def _escaped(path: Path) -> str:
    # QEMU's option syntax: a comma inside a value is written twice.
    return str(path).replace(",", ",,")
