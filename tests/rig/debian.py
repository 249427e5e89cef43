"""Debian root file systems made by mmdebstrap from the host's own package sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rig.trouble import RigError

__all__ = ["SUITE", "apt_sources", "bootstrap", "require_programs"]

SUITE = "bookworm"

_NOT_NEEDED = ("doc", "man", "info", "locale", "lintian", "common-licenses", "bash-completion", "bug")


def require_programs(packages: Mapping[str, str]) -> None:
    """Checks that programs are installed on the host.

    Args:
        packages: Debian package by program name.

    Raises:
        RigError: Names the Debian packages to install.
    """
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = sorted({package for program, package in packages.items() if not shutil.which(program, path=search)})
    if missing:
        raise RigError("the host lacks programs of the rig", hint=f"apt-get install {' '.join(missing)}")


def apt_sources(directory: Path = Path("/etc/apt"), os_release: Path = Path("/etc/os-release")) -> str:
    """The host's own sources of Debian 12, so that a site's mirror is used where the site has one.

    Only entries whose suites all belong to Debian 12 count, which leaves third-party sources out.

    Args:
        directory: APT's configuration directory.
        os_release: The file that names the host's distribution.

    Returns:
        One text in deb822 format if the host is Debian 12 and says where its packages come from, else "".
    """
    if not os_release.is_file() or f"VERSION_CODENAME={SUITE}" not in os_release.read_text():
        return ""
    stanzas: list[str] = []
    lists = [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]
    for path in filter(Path.is_file, lists):
        if path.suffix == ".sources":
            stanzas += [text for text in re.split(r"\n\s*\n", _uncomment(path.read_text())) if _is_ours(text)]
        elif path.suffix == ".list":
            stanzas += filter(_is_ours, map(_deb822, _uncomment(path.read_text()).splitlines()))
    return "\n\n".join(stanza.strip() for stanza in stanzas) + "\n" if stanzas else ""


def _uncomment(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _is_ours(stanza: str) -> bool:
    fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
    suites = fields.get("Suites", "").split()
    ours = {SUITE, f"{SUITE}-updates", f"{SUITE}-security"}
    return (
        fields.get("Types") == "deb" and fields.get("Enabled", "yes") != "no" and bool(suites) and set(suites) <= ours
    )


def _deb822(line: str) -> str:
    found = re.fullmatch(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)", line.strip())
    if not found:
        return ""
    options, uri, suite, components = found.groups()
    signed = re.search(r"signed-by=(\S+)", options or "")
    keys = signed[1] if signed else "/usr/share/keyrings/debian-archive-keyring.gpg"
    return f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {components}\nSigned-By: {keys}"


def bootstrap(
    target: Path,
    packages: Sequence[str],
    *,
    variant: str,
    hooks: Sequence[str] = (),
    exclude: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> None:
    """Writes a tar of a Debian 12 root file system.

    Args:
        target: The tar to write.
        packages: Debian packages to add to the variant.
        variant: A variant of mmdebstrap.
        hooks: Shell commands that run when everything is installed, with the root file system as ``$1``.
        exclude: Path patterns that dpkg leaves out, besides documentation and translations.
        environ: Additions to the environment, such as ``SOURCE_DATE_EPOCH``.

    Raises:
        RigError: mmdebstrap is missing or failed; its output is shown.
    """
    require_programs({"mmdebstrap": "mmdebstrap"})
    patterns = [*(f"/usr/share/{name}/*" for name in _NOT_NEEDED), *exclude]
    sources = apt_sources()
    command = [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        f"--variant={variant}",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in patterns),
        *(f"--customize-hook={hook}" for hook in hooks),
        "--skip=output/dev",
        SUITE,
        str(target),
        *(["-"] if sources else []),
    ]
    done = subprocess.run(
        command,
        input=sources,
        text=True,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environ or {})},
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise RigError(
            f"mmdebstrap failed with exit code {done.returncode}",
            hint="see its output above; it needs the Debian archive or a mirror of it, and subuids if not root",
            detail=tail,
        )
