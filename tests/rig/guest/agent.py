"""Process 1 of the emulated machine: runs one command and carries its output and exit code to the host.

Everything goes over one virtio port in frames: one byte of kind, four bytes of length (big endian), the payload.
To the host: ``R`` (ready), ``O`` (standard output), ``E`` (standard error), ``X`` (exit code, JSON).
From the host: ``J`` (the job, JSON: ``argv``, ``env``, ``cwd``), then single bytes that mean nothing: each is an
interrupt, which wakes a machine that lost its timer. Standard library only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
from pathlib import Path

__all__ = ["main"]

_HEADER = struct.Struct(">cI")
_PIECE = 1 << 16
_PIPE_CAPACITY = 1 << 20  # the most that an unprivileged pipe can hold: pipe(7), /proc/sys/fs/pipe-max-size
_PORT_NAME = "cedarbox.rig"


def _open_port() -> int:
    for entry in Path("/sys/class/virtio-ports").iterdir():
        if (entry / "name").read_text().strip() == _PORT_NAME:
            return os.open(f"/dev/{entry.name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(_PORT_NAME)


def _send(port: int, kind: bytes, payload: bytes = b"") -> None:
    rest = memoryview(_HEADER.pack(kind, len(payload)) + payload)
    while rest:
        rest = rest[os.write(port, rest) :]


def _receive(port: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(port, size - len(data))
        if not piece:
            _power_off()
        data += piece
    return data


def _power_off() -> None:
    # The disk is thrown away and the output share is written through, so there is nothing to unmount.
    Path("/proc/sysrq-trigger").write_text("o")
    signal.pause()


def _start(job: dict[str, object]) -> tuple[int, int, int]:
    argv, env, cwd = job["argv"], job["env"], job["cwd"]
    if not isinstance(argv, list) or not isinstance(env, dict) or not isinstance(cwd, str):
        raise TypeError("a job is argv, env, cwd")
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(out_write, 1)
        os.dup2(err_write, 2)
        for name in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        try:
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(2, f"rig: {argv[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    os.close(out_write)
    os.close(err_write)
    return child, out_read, err_read


def _reap(child: int) -> int | None:
    """Collects every process that has ended; the exit code of the command if it was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def _serve(port: int, job: dict[str, object]) -> int:
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    child, out_read, err_read = _start(job)
    kinds = {out_read: b"O", err_read: b"E"}
    poll = select.poll()
    poll.register(wake_read, select.POLLIN)
    poll.register(port, select.POLLIN)
    for stream in kinds:
        os.set_blocking(stream, False)
        poll.register(stream, select.POLLIN)
    while True:
        for ready, event in poll.poll():
            if ready == port:
                if event & (select.POLLHUP | select.POLLERR) or not os.read(port, _PIECE):
                    _power_off()
            elif ready == wake_read:
                os.read(wake_read, _PIECE)
            elif data := os.read(ready, _PIECE):
                _send(port, kinds[ready], data)
            else:
                poll.unregister(ready)
        if (code := _reap(child)) is not None:
            break
    # What the command left in the pipes is its output; what its background children add later is not waited for.
    for stream, kind in kinds.items():
        try:
            _send(port, kind, os.read(stream, _PIPE_CAPACITY))
        except BlockingIOError:
            continue
    return code


def main() -> None:
    """Receives the job, runs it, sends its exit code and switches the machine off."""
    port = _open_port()
    _send(port, b"R")
    _kind, length = _HEADER.unpack(_receive(port, _HEADER.size))
    code = _serve(port, json.loads(_receive(port, length)))
    os.sync()
    _send(port, b"X", json.dumps({"code": code}).encode())
    _power_off()


if __name__ == "__main__":
    main()
