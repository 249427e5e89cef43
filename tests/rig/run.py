"""Command line of ``tests/rig/run``."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.rig.cache import CHECKOUT
from tests.rig.disk import machine_disk
from tests.rig.image import image_layout
from tests.rig.machine import Job, run_job
from tests.rig.trouble import RigError, run_program

__all__ = ["main"]

_EPILOG = """\
In the machine: the checkout read-only at /checkout, which is the working directory; the image's OCI layout at /oci
(CEDARBOX_TEST_LAYOUT says so); --output DIR at /output; Python with the third-party packages in /opt/venv; no network.
Nothing of this host's environment is passed on. Standard input is empty.

exit codes: the command's own; 124 when it took longer than --timeout; 125 when the machine failed; 2 for bad usage or
a missing program.

example:
  tests/rig/run --timeout 600 --env CEDARBOX_MICROVM=1 -- python -m pytest tests/microvm -x
"""


def _pairs(option: str, settings: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not (name and separator):
            raise RigError(f"{option} {setting!r} is not of the form KEY=VALUE")
        found[name] = value
    return found


def main() -> int:
    """Parses the command line, builds what is missing, and runs the command."""
    parser = argparse.ArgumentParser(
        prog="tests/rig/run",
        usage="tests/rig/run [options] [--] COMMAND [ARGUMENT...]",
        description="Run a command in an emulated machine whose KVM boots real BoxLite guests.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end the command after this time; exit 124")
    parser.add_argument("--output", type=Path, metavar="DIR", help="share DIR read-write as /output; made if missing")
    parser.add_argument("--share", action="append", default=[], metavar="NAME=DIR", help="share DIR read-only as /NAME")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="pass this to the command")
    parser.add_argument("--memory", type=int, default=6144, metavar="MIB", help="memory of the machine (default 6144)")
    parser.add_argument("--console", type=Path, metavar="FILE", help="write the kernel's console there")
    parser.add_argument("--no-image", action="store_true", help="do not build or share the image's OCI layout")
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not argv:
        parser.error("no command given")
    environment = _pairs("--env", options.env)
    shares = {name: Path(place).absolute() for name, place in _pairs("--share", options.share).items()}
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    disk = machine_disk()
    return run_job(
        Job(
            argv=argv,
            disk=disk,
            checkout=CHECKOUT,
            env=environment,
            oci=None if options.no_image else image_layout(),
            output=options.output.absolute() if options.output else None,
            shares=shares,
            console=options.console,
            timeout=options.timeout,
            memory_mib=options.memory,
        )
    )


if __name__ == "__main__":
    run_program(main)
