"""Seals the tracing of the Agents SDK the moment the SDK is imported, so that nothing needs to import it early.

The SDK takes seconds to import, and a command that verifies a ledger needs none of it. So `watch` imports nothing: it
puts a finder before all others that waits for the package ``agents``, lets it load, and seals it before whoever asked
for it gets it. Where the SDK is loaded already, it is sealed at once.
"""

from __future__ import annotations

import sys

# Every start of the command line waits for this module, and for nothing less than it needs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Final

__all__ = ["settle", "watch"]

_SDK: Final = "agents"
_SEALER: Final = "cedarbox.telemetry.tracing"
_PARTS: Final = (_SEALER, "cedarbox.telemetry.bridge", "cedarbox.telemetry.describe")
"""The modules of the seal that load the SDK themselves, when they are the first to do so."""


def watch() -> None:
    """Seal the tracing of the SDK now where the SDK is loaded, and otherwise as soon as it is.

    Raises:
        SealError: The SDK is loaded, and its tracing was taken over by something else or is not one that is known.
    """
    if _SDK in sys.modules:
        _seal()
    elif not any(isinstance(finder, _Sealer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Sealer())


def settle() -> None:
    """Seal what could not be sealed while a module of the seal was loading the SDK; called at the end of each."""
    if _Sealer.owed:
        _Sealer.owed = False
        _seal()


def _seal() -> None:
    # A module that has no __all__ yet is still busy with its imports, and cannot be imported from.
    if any(name in sys.modules and not hasattr(sys.modules[name], "__all__") for name in _PARTS):
        _Sealer.owed = True
    else:
        from importlib import import_module

        import_module(_SEALER).seal()


class _Sealer:
    """Finds the SDK as the others would, and has it sealed once it is loaded."""

    owed = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _SDK:
            return None
        spec = _found(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            _seal_after(spec.loader)
        return spec


def _found(besides: _Sealer, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    from importlib.machinery import ModuleSpec, PathFinder

    for finder in [*sys.meta_path, PathFinder]:
        find = getattr(finder, "find_spec", None)
        if finder is not besides and find is not None and (spec := find(name, path, target)) is not None:
            return spec if isinstance(spec, ModuleSpec) else None
    return None


def _seal_after(loader: Any) -> None:
    load = loader.exec_module

    def load_and_seal(module: ModuleType) -> None:
        load(module)
        _seal()

    # The loader stays the one it was: importlib.resources and others ask it for more than loading.
    loader.exec_module = load_and_seal
