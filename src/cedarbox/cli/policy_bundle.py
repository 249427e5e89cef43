"""Which bundle a command is about when nobody named one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["configured_bundle"]


def configured_bundle() -> Path:
    """Return the bundle of the settings.

    Raises:
        ConfigurationError: The settings cannot be read.
    """
    # Only when it is used: the settings know of the ledger, and load much that reviews do not need.
    from cedarbox.settings import load_settings

    return load_settings().policy.bundle
