"""Git repositories with policy bundles for tests, made with the real git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.unit.bundles import agents

__all__ = ["METADATA", "Repository", "bundle_files"]

METADATA = 'name = "test"\nrevision = 1\nschema = 1\n'


def bundle_files(policies: str, *, entities: str | None = None, metadata: str = METADATA) -> dict[str, str]:
    """Return the files of a bundle by name."""
    return {
        "policies.cedar": policies,
        "entities.json": agents("agent") if entities is None else entities,
        "bundle.toml": metadata,
    }


class Repository:
    """A repository with its working tree at ``top``, on the branch ``main``."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        """Run git here and return what it prints."""
        identity = ["-c", "user.name=tests", "-c", "user.email=tests@site.example", "-c", "protocol.file.allow=always"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.top,
            env=clean | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def write(self, files: Mapping[str, str], directory: str = "policies/site") -> Path:
        """Write files below a directory of the working tree, and return the directory."""
        for name, content in files.items():
            path = self.top / directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return self.top / directory

    def commit(self, files: Mapping[str, str] | None = None, directory: str = "policies/site") -> str:
        """Write files, commit everything, and return the id of the commit."""
        self.write(files or {}, directory)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        return self.git("rev-parse", "HEAD")
