"""That the jail of a microVM is really there: read from the kernel after each boot, not assumed from the options.

On Linux the process that runs a microVM, BoxLite's shim, stands under two processes of bubblewrap. Measured on BoxLite
0.10.8 with ``SecurityOptions.standard()``:

* The shim has namespaces of its own (user, mount, PID, IPC, UTS), ``NoNewPrivs`` and four environment variables.
* A microVM without a network card has a seccomp filter on every thread of the shim. One with a card has none: BoxLite
  leaves it off, because its network stack runs in the shim. So a card costs isolation as well as egress.
* The bubblewrap process that is process 1 of the jail has this process's whole environment, and the shim can read it
  at ``/proc/1/environ``. So it is looked for in steps of 10 ms and overwritten with zeros as soon as it is there, while
  the guest's kernel is still starting, and a microVM whose jail still shows it is refused.

On other systems nothing of this can be read; BoxLite's own word is taken there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.boxlite import api
from cedarbox.boxlite.ending import stop
from cedarbox.boxlite.mounts import PinnedMount
from cedarbox.boxlite.waiting import finish
from cedarbox.errors import HostError

__all__ = ["Process", "boot", "check_jail", "clean_environments", "jail_of", "kill_jail"]

_NAMESPACES: Final = ("user", "mnt", "pid", "ipc", "uts")
_SHIM: Final = b"boxlite-shim"
_LOOK_SECONDS: Final = 0.01
_LOOKS_AFTER_BIRTH: Final = 5
_SECCOMP_FILTER: Final = "2"  # proc(5): Seccomp is 0 off, 1 strict, 2 filter


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this host. Its number may be another's later; together with the time of its birth it is not.

    Attributes:
        pid: Its number.
        born: When it was started, in clock ticks since the host was: proc(5), field 22 of /proc/pid/stat.
    """

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has a number now; None when none has."""
        try:
            # The name in field 2 may hold spaces.
            return cls(pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        except OSError:
            return None


async def boot(box: api.Box, *, network_card: bool, mounts: Sequence[PinnedMount]) -> Process | None:
    """Boot a box, keep this process's environment out of its jail meanwhile, and check the jail afterwards.

    Args:
        box: The box, made or stopped.
        network_card: Whether the microVM has a network card; without one the seccomp filter must be on.
        mounts: The mounts of the sandbox; the read-only ones must be in the jail, read-only.

    Returns:
        The process that BoxLite names; None where it is not known.

    Raises:
        HostError: The jail is not what it should be. The microVM was stopped.
        BoxliteError: BoxLite could not boot it.
    """
    if not sys.platform.startswith("linux"):
        await box.start()
        return None
    with _watching(box.id):
        await box.start()
    try:
        pid = (await box.info()).state.pid
        await asyncio.to_thread(check_jail, pid, network_card=network_card, mounts=mounts)
    except BaseException:
        await finish(stop(box))
        raise
    return None if pid is None else Process.of(pid)


def jail_of(pid: int) -> tuple[list[int], int]:
    """Find the processes of a microVM.

    Args:
        pid: The process that BoxLite names.

    Returns:
        The processes of bubblewrap, outermost first, and the shim.

    Raises:
        HostError: There is no shim, or none under bubblewrap.
    """
    chain = [pid]
    while len(chain) < 8 and not _is_shim(chain[-1]):
        below = _children(chain[-1])
        if len(below) != 1:
            break
        chain += below
    if not _is_shim(chain[-1]):
        raise HostError(f"the process {pid} of the microVM is not a BoxLite shim", hint="another BoxLite version?")
    if len(chain) < 2:
        raise HostError("the microVM runs without a jail", hint="install bubblewrap, or allow user namespaces")
    return chain[:-1], chain[-1]


def kill_jail(process: Process) -> None:
    """Kill the shim of a microVM: guest, network stack and file sharing end with it, and its jail after it.

    Args:
        process: The process that BoxLite named.

    Raises:
        HostError: It has ended, or is not the process of a microVM, so nothing was killed.
    """
    if Process.of(process.pid) != process:
        raise HostError(f"the process {process.pid} of the microVM has ended")
    jailers, shim = jail_of(process.pid)
    if os.getpid() in jailers:
        raise HostError(f"the process {process.pid} is this one, not that of a microVM")
    with suppress(ProcessLookupError):
        os.kill(shim, signal.SIGKILL)


def check_jail(pid: int | None, *, network_card: bool, mounts: Sequence[PinnedMount] = ()) -> None:
    """Check the jail of a running microVM.

    Args:
        pid: The process that BoxLite names.
        network_card: Whether the microVM has a network card; BoxLite 0.10.8 has no seccomp filter then.
        mounts: The mounts of the sandbox.

    Raises:
        HostError: A namespace is shared, new privileges are possible, the seccomp filter is missing on a thread, this
            process's environment can be read, or a mount is not the directory it should be or not read-only.
    """
    if pid is None:
        raise HostError("BoxLite does not say which process runs the microVM, so its jail cannot be checked")
    try:
        jailers, shim = jail_of(pid)
        for name in _NAMESPACES:
            if Path(f"/proc/{shim}/ns/{name}").readlink() == Path(f"/proc/self/ns/{name}").readlink():
                raise HostError(f"the microVM shares the {name} namespace of this process", hint="its jail is off")
        for thread in Path(f"/proc/{shim}/task").iterdir():
            _check_thread(thread / "status", filtered=not network_card)
        clean_environments(jailers)
        for mount in mounts:
            if mount.read_only:
                _check_mount(shim, mount)
    except OSError as error:
        raise HostError(
            f"the jail of the microVM cannot be checked: {error.strerror} ({error.filename})",
            hint="this user must be able to read /proc of its own processes",
        ) from None


def clean_environments(jailers: Sequence[int]) -> None:
    """Overwrite the environment that the kernel shows of some processes of bubblewrap with zeros.

    They got it when they were started and never read it again.

    Args:
        jailers: Their process ids.

    Raises:
        HostError: One still shows something.
        OSError: One is gone, or may not be written.
    """
    for jailer in jailers:
        environment = Path(f"/proc/{jailer}/environ")
        if not environment.read_bytes().strip(b"\0"):
            continue
        # proc(5), /proc/pid/stat: fields 50 and 51, env_start and env_end; the name in field 2 may hold spaces.
        fields = Path(f"/proc/{jailer}/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[47]), int(fields[48])
        memory = os.open(f"/proc/{jailer}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(memory, bytes(end - start), start)
        finally:
            os.close(memory)
        if environment.read_bytes().strip(b"\0"):
            raise HostError(
                "the environment of this process can be read in the jail of the microVM",
                hint="start this process without secrets in its environment",
            )


def _check_thread(status: Path, *, filtered: bool) -> None:
    try:
        lines = status.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return  # The thread has ended.
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if found.get("NoNewPrivs", "").strip() != "1":
        raise HostError("the microVM's process could gain privileges", hint="its jail is off")
    if filtered and found.get("Seccomp", "").strip() != _SECCOMP_FILTER:
        raise HostError("the microVM's process runs without a seccomp filter", hint="the kernel must support seccomp")


def _check_mount(shim: int, mount: PinnedMount) -> None:
    inside = Path(f"/proc/{shim}/root{mount.real}").stat()
    if (inside.st_dev, inside.st_ino) != (mount.device, mount.inode):
        raise HostError(f"the mount {mount.host} was replaced while the microVM booted", hint="start a new session")
    for line in Path(f"/proc/{shim}/mountinfo").read_text().splitlines():
        # proc(5): the fifth field is the mount point with \\040 and the like for spaces, the sixth its options.
        fields = line.split(" ")
        if _unescaped(fields[4]) == mount.real and "ro" in fields[5].split(","):
            return
    raise HostError(f"the mount {mount.host} is not read-only in the jail of the microVM")


def _unescaped(text: str) -> str:
    for escape, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, char)
    return text


def _is_shim(pid: int) -> bool:
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]
    except OSError:
        return False
    return program.rsplit(b"/", 1)[-1] == _SHIM


def _children(pid: int) -> list[int]:
    if not Path("/proc/thread-self/children").exists():
        return _children_by_parent(pid)  # A kernel without CONFIG_PROC_CHILDREN.
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # The thread has ended.
    return found


def _children_by_parent(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(entry.name))
    return found


@contextmanager
def _watching(box_id: str) -> Iterator[None]:
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(box_id, over), name="cedarbox-jail", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(box_id: str, over: threading.Event) -> None:
    newest, looks = "", 0
    while not over.wait(_LOOK_SECONDS):
        # Looking through the children of many threads is dear, so it is done only around the birth of a process.
        before, newest = newest, _newest_process()
        looks = _LOOKS_AFTER_BIRTH if newest != before else looks - 1
        for outer in _children(os.getpid()) if looks > 0 else ():
            try:
                if _cleaned(outer, box_id):
                    return
            except OSError:
                continue  # Gone, or not there yet; the check after the boot decides.


def _newest_process() -> str:
    # proc(5), /proc/loadavg: the last field is the id of the process, or thread, that was made last.
    return Path("/proc/loadavg").read_text().rpartition(" ")[2]


def _cleaned(outer: int, box_id: str) -> bool:
    if not _jails(outer, box_id):
        return False
    # With a child it is past its start, in which its loader still reads the environment.
    inner = [pid for pid in _children(outer) if _jails(pid, box_id)]
    if inner:
        clean_environments([outer, *inner])
    return bool(inner)


def _jails(pid: int, box_id: str) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    # BoxLite gives each box a copy of the shim, <home>/boxes/<id>/bin/boxlite-shim (measured on BoxLite 0.10.8).
    shim = b"/".join((box_id.encode(), b"bin", _SHIM))
    return words[0].rsplit(b"/", 1)[-1] == b"bwrap" and any(word.endswith(b"/" + shim) for word in words[1:])
