"""Builds what the emulated machine starts from: a kernel, a small initramfs and a disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.rig.cache import CHECKOUT, digest_of, obtain
from tests.rig.debian import SUITE, bootstrap, require_programs
from tests.rig.trouble import RigError, say

__all__ = ["machine_disk", "requirements"]

_HERE = Path(__file__).resolve().parent
_SCRIPTS = ("disk.py", "debian.py", "guest/init.sh", "guest/agent.py", "guest/pack.sh")

_PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "curl",
    "git",
    "iproute2",
    "kmod",
    "linux-image-amd64",
    "procps",
    "python3",
    "python3-venv",
)

_UNUSED_DRIVERS = (
    *("accessibility", "ata", "bluetooth", "comedi", "crypto/qat", "edac", "firewire", "gpu", "hid", "hwmon", "iio"),
    *("infiniband", "input", "isdn", "leds", "md", "media", "message", "mfd", "misc", "mmc", "mtd", "net/ethernet"),
    *("net/wireless", "net/can", "net/usb", "nfc", "nvme", "pinctrl", "platform", "power", "regulator", "scsi"),
    *("soundwire", "spi", "staging", "target", "thunderbolt", "usb", "video"),
)
_EXCLUDE = (
    *(f"/lib/modules/*/kernel/drivers/{name}/*" for name in _UNUSED_DRIVERS),
    "/lib/modules/*/kernel/sound/*",
    "/lib/udev/hwdb.d/*",
)

_DISK_SIZE = "12G"
"""Size of the disk as the machine sees it; the file is sparse."""


def requirements(pyproject: Path = CHECKOUT / "pyproject.toml") -> tuple[str, ...]:
    """The third-party requirements of cedarbox and of its extra ``test``, as pyproject.toml states them."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return (*project["dependencies"], *project["optional-dependencies"]["test"])


def machine_disk() -> Path:
    """The directory with ``vmlinuz``, ``initramfs.cpio`` and ``root.ext4``; built on first use.

    The key covers the Debian packages, the Python requirements and the build scripts, not the versions that the
    archive happens to have: a newer kernel alone does not cause a build.

    Raises:
        RigError: A program is missing, or a step of the build failed.
    """
    wanted = requirements()
    inputs = {
        "suite": SUITE.encode(),
        "packages": "\n".join([*_PACKAGES, *_EXCLUDE]).encode(),
        "requirements": "\n".join(wanted).encode(),
        **{name: (_HERE / name).read_bytes() for name in _SCRIPTS},
    }
    return obtain("rig", digest_of(inputs), lambda work: _build(work, wanted))


def _build(work: Path, wanted: Sequence[str]) -> None:
    require_programs({"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "unshare": "util-linux", "tar": "tar"})
    begun = time.monotonic()
    say("building the emulated machine, once; this takes a few minutes")
    say("1/3 Debian packages")
    tar = work / "root.tar"
    # The kernel's hook honours INITRD=No; the machine has its own, much smaller initramfs.
    bootstrap(tar, _PACKAGES, variant="minbase", exclude=_EXCLUDE, environ={"INITRD": "No"})
    say("2/3 Python packages")
    (work / "requirements.txt").write_text("".join(f"{line}\n" for line in wanted))
    log = work / "build.log"
    command = [
        "unshare",
        *([] if os.geteuid() == 0 else ["--map-root-user"]),
        "--mount",
        "--propagation=private",
        "/bin/sh",
        str(_HERE / "guest" / "pack.sh"),
        str(work),
        str(_HERE / "guest"),
        _DISK_SIZE,
    ]
    with log.open("w") as handle:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise RigError(
            f"building the machine's disk failed with exit code {done.returncode}",
            hint="see the end of its output above",
            detail=tail,
        )
    tar.unlink()
    shutil.rmtree(work / "root", ignore_errors=True)
    say(f"3/3 disk written; built in {time.monotonic() - begun:.0f} s")
