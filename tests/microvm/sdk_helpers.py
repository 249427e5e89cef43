"""The black-box helpers of the SDK's own integration tests, fitted to a sandbox with a file system of its own.

They come from the SDK's source distribution, whose place ``CEDARBOX_SDK`` names. What cannot apply is listed in
``tests/conformance/inapplicable.toml`` under ``[helpers]``.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from agents.sandbox.manifest import Manifest
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession

__all__ = ["entries_for", "load_helpers"]

_FILE = "tests/sandbox/integration_tests/_helpers.py"
_ENTRIES_NEEDING_MORE = ("repo", "mounts/")


def load_helpers() -> ModuleType:
    """The helpers, without what needs git, rclone or the host's own file system."""
    place = os.environ.get("CEDARBOX_SDK")
    if not place:
        pytest.skip("CEDARBOX_SDK does not name the SDK's source tree: run `make test` where pip can fetch it")
    spec = importlib.util.spec_from_file_location("sdk_helpers", Path(place) / _FILE)
    assert spec is not None
    assert spec.loader is not None
    helpers = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules[spec.name] = helpers
    spec.loader.exec_module(helpers)
    for name in ("DURABLE_WORKSPACE_TEXTS", "RESTORED_WORKSPACE_FILES", "RESTORED_WORKSPACE_DIRS"):
        value = getattr(helpers, name)
        kept = {key for key in value if not key.startswith(_ENTRIES_NEEDING_MORE) and key != "mounts"}
        setattr(helpers, name, {key: value[key] for key in kept} if isinstance(value, Mapping) else kept)
    vars(helpers).update(
        MOUNT_WORKSPACE_TEXTS={},
        BUILTIN_MANIFEST_ENTRY_TYPES={"dir", "file", "local_dir", "local_file"},
        _assert_symlink_escape_blocked=_assert_symlink_escape_blocked(helpers),
    )
    return helpers


def _assert_symlink_escape_blocked(helpers: ModuleType) -> object:
    # The SDK's makes the link on the host. The assertions are its own.
    async def check(session: BaseSandboxSession) -> None:
        root = shlex.quote(session.state.manifest.root)
        made = f"echo outside >/tmp/symlink-outside.txt; ln -s /tmp/symlink-outside.txt {root}/symlink_escape.txt"
        assert (await session.exec(made)).ok()
        try:
            await helpers._assert_read_blocked(session, "symlink_escape.txt")
            await helpers._assert_write_blocked(session, "symlink_escape.txt")
            await helpers._assert_patch_blocked(session, "symlink_escape.txt")
        finally:
            await session.exec(f"rm -f {root}/symlink_escape.txt")
        assert (await session.exec("cat /tmp/symlink-outside.txt; rm /tmp/symlink-outside.txt")).stdout == b"outside\n"

    return check


def entries_for(helpers: ModuleType, sources: Path, *, root: str = "/workspace") -> Manifest:
    """The helpers' manifest, less the entries that need git or rclone.

    Args:
        helpers: From :func:`load_helpers`.
        sources: An empty directory of the host.
        root: The workspace.
    """
    whole: Manifest = helpers.build_manifest_with_all_entry_types(
        workspace_root=Path(root), source_root=helpers.create_local_sources(sources)
    )
    kept = {name: entry for name, entry in whole.entries.items() if not str(name).startswith(_ENTRIES_NEEDING_MORE)}
    return whole.model_copy(update={"entries": kept})
