"""Runs git without running anything that a repository says.

A repository that is reviewed is not trusted: its configuration can name programs (a file system monitor, hooks, helpers
of transports), it can replace objects by others, and a partial clone fetches what is missing from wherever it says.
Only plumbing is called here that does none of that, each time with the rest switched off.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from cedarbox.errors import ConfigurationError, HostError
from cedarbox.text import printable

__all__ = ["TIMEOUT_S", "run", "said", "start"]

TIMEOUT_S: Final = 60
"""How long one command may take, in seconds."""

_SWITCHED_OFF: Final = (
    "core.fsmonitor=false",  # a program that git runs to learn what changed
    "core.hooksPath=/dev/null",
    "core.alternateRefsCommand=",
    "core.commitGraph=false",  # parents come from the commits, not from a file that repeats them
    "protocol.allow=never",  # a partial clone must not fetch what is missing
    "core.pager=cat",
    "log.showSignature=false",  # it would run gpg.program
    "safe.bareRepository=explicit",  # files of a commit can look like one, with another history; from git 2.38 on
    "core.warnAmbiguousRefs=true",  # what is said of them is looked for
)


def _environment() -> dict[str, str]:
    # What is in the environment of a hook (GIT_DIR, GIT_INDEX_FILE) would lead to another repository than the one asked
    # about, and GIT_TRACE and others write files.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "LC_ALL": "C",
    }


def _command(*arguments: str) -> list[str]:
    options = [part for setting in _SWITCHED_OFF for part in ("-c", setting)]
    return ["git", "--no-pager", "--no-replace-objects", *options, *arguments]


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of git to its end.

    Args:
        directory: Where.
        arguments: The command, of those that run nothing and change nothing.

    Raises:
        ConfigurationError: It cannot be run there.
        HostError: There is no git, it takes too long, or it was killed.
    """
    try:
        done = subprocess.run(
            _command(*arguments),
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _no_git(directory, error) from None
    if done.returncode < 0:
        # Not that there is no such thing, which would have something else compared.
        raise HostError(f"{directory}: git was ended by signal {-done.returncode}", hint="run it again")
    return done


def start(directory: Path) -> subprocess.Popen[bytes]:
    """Start what gives the objects of a repository for their ids.

    Args:
        directory: Where.

    Raises:
        ConfigurationError: It cannot be run there.
        HostError: There is no git.
    """
    try:
        return subprocess.Popen(
            _command("cat-file", "--batch"),
            cwd=directory,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        raise _no_git(directory, error) from None


def _no_git(directory: Path, error: Exception) -> HostError | ConfigurationError:
    if isinstance(error, FileNotFoundError) and error.filename == "git":
        return HostError("git is not installed", hint="install git, or give two directories")
    if isinstance(error, subprocess.TimeoutExpired):
        return HostError(f"{directory}: git did not answer within {TIMEOUT_S} s", hint="try it again")
    return ConfigurationError(f"{directory}: git cannot be run there ({error})", hint="check the path")


def said(found: subprocess.CompletedProcess[bytes]) -> str:
    """Return the first line of what a command of git complained about."""
    lines = found.stderr.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[0])[:200] if lines else "git says nothing"
