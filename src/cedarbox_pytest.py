"""The plugin of cedarbox for pytest: test cases of policy bundles as test items, and fixtures that ask a bundle.

In the ini file, or as ``--cedarbox-bundle DIR``:

.. code-block:: ini

    [pytest]
    cedarbox_bundles = policies/*

Each case of ``DIR/tests/*.yaml`` is then a test item, such as
``policies/airgapped/tests/network.yaml::connect[deny any host]``. Without either option nothing is collected.

Tests in Python ask a bundle through fixtures, whether items are collected or not:

.. code-block:: python

    def test_the_mirror(decide):
        assert decide("agent", "connect", target="mirror.corp.example", port=443, proto="tls").allowed

* ``policy_bundle_path``: the bundle; the one of the options, or what a fixture of this name in your tests returns;
* ``policy_bundle`` and ``policy_engine``: it, loaded;
* ``decide``: the answer to one request, whose arguments are those of a case in YAML.

pytest imports this module in every run on a host that has cedarbox. So it imports nothing of cedarbox until one of
these is used: importing cedarbox also seals the tracing of the Agents SDK, which is not for a test tool to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cedarbox.policy import PolicyBundle, PolicyEngine
    from cedarbox.pytest_plugin import Decide

__all__ = [
    "decide",
    "policy_bundle",
    "policy_bundle_path",
    "policy_engine",
    "pytest_addoption",
    "pytest_configure",
]

_INI = "cedarbox_bundles"
_OPTION = "--cedarbox-bundle"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("cedarbox", "policy bundles (cedarbox)")
    group.addoption(
        _OPTION,
        action="append",
        default=[],
        metavar="DIR",
        dest="cedarbox_bundle",
        help="Run the test cases of this policy bundle too; may be repeated.",
    )
    parser.addini(_INI, "policy bundles whose test cases are run: directories, or patterns of them", "args", [])


def pytest_configure(config: pytest.Config) -> None:
    """Collect the cases of the bundles that the options name, if any."""
    if config.getoption("cedarbox_bundle") or config.getini(_INI):
        from cedarbox.pytest_plugin import register

        register(config)


@pytest.fixture
def policy_bundle_path(pytestconfig: pytest.Config) -> Path:
    """The directory of the policy bundle that a test is about: the one that is configured."""
    from cedarbox.pytest_plugin import only_bundle

    return only_bundle(pytestconfig)


@pytest.fixture
def policy_bundle(policy_engine: PolicyEngine) -> PolicyBundle:
    """The policy bundle, checked."""
    return policy_engine.bundle


@pytest.fixture
def policy_engine(pytestconfig: pytest.Config, policy_bundle_path: Path) -> PolicyEngine:
    """An engine that decides by the policy bundle."""
    from cedarbox.pytest_plugin import engine_of

    return engine_of(pytestconfig, Path(policy_bundle_path))


@pytest.fixture
def decide(policy_engine: PolicyEngine) -> Decide:
    """Asks the policy bundle: ``decide("agent", "connect", target="mirror.corp.example", port=443).allowed``."""
    from cedarbox.pytest_plugin import Decide

    return Decide(policy_engine)
