"""Tests that boot real BoxLite guests: on this host if its KVM boots them, else in the rig."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from tests.conformance import shown
from tests.microvm.boxes import options
from tests.unit.conftest import _alone

from cedarbox.boxlite import BoxLiteSandboxClient

# What a guarded client puts in force is for one test, here as there.
__all__ = ["_alone"]

_HERE = Path(__file__).parent
_ALLOWED = "CEDARBOX_MICROVM"
_LAYOUT = "CEDARBOX_TEST_LAYOUT"
_LONG = "CEDARBOX_LONG"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test below this directory, and skips it where nobody said that this machine boots a guest."""
    left_out = os.environ.get("CEDARBOX_RIG") == "1" and os.environ.get(_LONG) != "1"
    long = pytest.mark.skip(reason=f"takes minutes in the emulated machine: set {_LONG}=1 to run it there")
    skip = pytest.mark.skip(reason=f"boots microVMs: run `make test`, or set {_ALLOWED}=1 where the KVM boots a guest")
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.microvm)
            if os.environ.get(_ALLOWED) != "1":
                item.add_marker(skip)
            elif left_out and item.get_closest_marker("long"):
                item.add_marker(long)


@pytest.fixture(scope="session")
def oci_layout() -> Path:
    """The verified OCI layout of the image that `tests/rig/image` builds."""
    place = os.environ.get(_LAYOUT)
    if not place:
        pytest.skip(f"{_LAYOUT} does not name an OCI layout: run `make test`, or set it to what tests/rig/image prints")
    return Path(place)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BoxLite home of all modules: the first start in a home unpacks the image, and takes three times as long.

    It is where programs that are told of no home have theirs, below ``$XDG_STATE_HOME``.
    """
    made = tmp_path_factory.mktemp("state") / "cedarbox" / "boxlite"
    made.mkdir(mode=0o700, parents=True)
    return made


@pytest.fixture(scope="session")
async def client(home: Path) -> AsyncIterator[BoxLiteSandboxClient]:
    """The client of that home."""
    made = BoxLiteSandboxClient(home=home)
    yield made
    await made.close()


@pytest.fixture(scope="module")
async def session(client: BoxLiteSandboxClient, oci_layout: Path) -> AsyncIterator[SandboxSession]:
    """A started session without a network card, for a module."""
    made = await client.create(options=options(oci_layout))
    await made.start()
    yield made
    await client.delete(made)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the tables of the conformance kit."""
    shown.write(config, terminalreporter)
