"""Does this host's own KVM boot a BoxLite guest? Answered by booting one, in a process of its own.

That /dev/kvm can be opened says too little: on a host that is itself a virtual machine it may exist and still not run
a guest.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.rig.cache import cache_root
from tests.rig.image import image_layout
from tests.rig.trouble import run_program

__all__ = ["Answer", "main", "probe"]

_LIMIT_SECONDS = 60
_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True)
class Answer:
    """Whether a box boots here, and why or why not, in one line."""

    boots: bool
    reason: str


def probe(*, fresh: bool = False) -> Answer:
    """Boots a box from the image's layout, with no network card, and removes every trace of it.

    The answer of a boot that was tried is kept for this boot of the host, this image and this version of BoxLite,
    unless the attempt ran out of time: that may only mean that the host was busy.

    Args:
        fresh: Try again even if there is a kept answer.
    """
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        state = "cannot be opened by this user" if _DEVICE.exists() else "does not exist"
        return Answer(boots=False, reason=f"{_DEVICE} {state}")
    layout = image_layout()
    subject = [
        Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        (layout / "index.json").read_text(),
        importlib.metadata.version("boxlite"),
    ]
    kept = cache_root() / "probe.json"
    if not fresh and (known := _kept(kept, subject)):
        return known
    answer, certain = _try(layout)
    if certain:
        kept.write_text(json.dumps({"subject": subject, "answer": asdict(answer)}))
    return answer


def _kept(path: Path, subject: list[str]) -> Answer | None:
    try:
        content = json.loads(path.read_text())
        if content["subject"] == subject and isinstance(content["answer"]["boots"], bool):
            return Answer(boots=content["answer"]["boots"], reason=str(content["answer"]["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _try(layout: Path) -> tuple[Answer, bool]:
    certain = True
    with tempfile.TemporaryDirectory(prefix="cedarbox-probe-", ignore_cleanup_errors=True) as home:
        command = [sys.executable, "-P", "-m", "tests.rig.probe", "--boot", home, str(layout)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=_LIMIT_SECONDS)
            lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
            reason = lines[-1] if lines else f"the attempt ended with exit code {process.returncode} and said nothing"
            booted = process.returncode == 0 and reason == "booted"
        except subprocess.TimeoutExpired:
            booted, certain, reason = False, False, f"no guest was up within {_LIMIT_SECONDS} s"
        finally:
            process.kill()
            process.wait()
            _end_processes_naming(home)
    if booted:
        return Answer(boots=True, reason="a BoxLite guest boots on this host's KVM"), certain
    return Answer(boots=False, reason=f"no BoxLite guest boots on this host's KVM: {reason}"), certain


def _end_processes_naming(home: str) -> None:
    # The home's name is random, so whatever names it on its command line was started for this attempt.
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if home.encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue


async def _boot(home: str, layout: str) -> None:
    # Imported by name: the wheel has no type information.
    boxlite = importlib.import_module("boxlite")
    runtime = boxlite.Boxlite(boxlite.Options(home_dir=home))
    network = boxlite.NetworkSpec(outbound=boxlite.OutboundNetworkSpec(mode="disabled"))
    box = await runtime.create(boxlite.BoxOptions(rootfs_path=layout, cpus=1, memory_mib=256, network=network))
    await box.start()
    execution = await box.exec("true")
    if (await execution.wait()).exit_code:
        raise RuntimeError("the guest ran `true` and it failed")
    await box.stop()


def main() -> int:
    """Prints the answer in one line; exit code 0 for yes, 1 for no."""
    parser = argparse.ArgumentParser(
        prog="tests/rig/probe", description="Does a BoxLite guest boot on this host's KVM?"
    )
    parser.add_argument("--fresh", action="store_true", help="try again even if the answer is known")
    parser.add_argument("--boot", nargs=2, metavar=("HOME", "LAYOUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.boot:
        asyncio.run(_boot(*options.boot))
        print("booted")
        return 0
    answer = probe(fresh=options.fresh)
    print(answer.reason)
    return 0 if answer.boots else 1


if __name__ == "__main__":
    run_program(main)
