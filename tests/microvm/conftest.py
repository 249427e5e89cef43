"""Tests that boot real BoxLite guests: on this host if its KVM boots them, else in the rig."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_ALLOWED = "CEDARBOX_MICROVM"
_LAYOUT = "CEDARBOX_TEST_LAYOUT"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test below this directory, and skips it where nobody said that this machine boots a guest."""
    skip = pytest.mark.skip(reason=f"boots microVMs: run `make test`, or set {_ALLOWED}=1 where the KVM boots a guest")
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.microvm)
            if os.environ.get(_ALLOWED) != "1":
                item.add_marker(skip)


@pytest.fixture(scope="session")
def oci_layout() -> Path:
    """The verified OCI layout of the image that `tests/rig/image` builds."""
    place = os.environ.get(_LAYOUT)
    if not place:
        pytest.skip(f"{_LAYOUT} does not name an OCI layout: run `make test`, or set it to what tests/rig/image prints")
    return Path(place)
