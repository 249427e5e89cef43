"""The program that runs in the guest, as text."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["relay_source"]


def relay_source() -> str:
    """Return the source of the relay, to be run as ``python3 -I -S -c SOURCE [port]``."""
    return files("cedarbox.egress").joinpath("relay.py").read_text("utf-8")
