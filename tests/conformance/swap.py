"""A pytest plugin for the SDK's own tests: where they use the unix-local client, they get it behind our guard.

It is loaded by name in a process of its own, whose package ``tests`` is the SDK's, so it imports nothing of ours but
``cedarbox``. What it needs comes by the environment: ``SWAP_BUNDLE``, a policy bundle; ``SWAP_OUTPUT``, a directory
for the ledger and for ``outcomes.json``, the outcome of every test.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from agents.sandbox.sandboxes import unix_local

if TYPE_CHECKING:
    from cedarbox.guard import Gate

_WORST = ("passed", "skipped", "failed")


class _Outcomes:
    """Keeps the worst outcome of each test's set-up, call and tear-down, and gives each client a ledger of its own.

    A test that pretends to be on another system may stop the ledger that it uses, so none is shared.
    """

    def __init__(self, bundle: Path, output: Path) -> None:
        self._bundle, self._output = bundle, output
        self._found: dict[str, tuple[str, str]] = {}
        self._open: list[Gate] = []
        self._made = 0

    def gate(self) -> Gate:
        """Make the gate of one client."""
        self._made += 1
        self._open.append(_gate(self._bundle, self._output / str(self._made)))
        return self._open[-1]

    def pytest_runtest_logfinish(self) -> None:
        while self._open:
            gate = self._open.pop()
            gate.ledger.close()
            gate.telemetry.close()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = str(report.outcome)
        before = self._found.get(report.nodeid, ("passed", ""))
        if report.nodeid not in self._found or _WORST.index(outcome) > _WORST.index(before[0]):
            self._found[report.nodeid] = (outcome, _reason(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._found[report.nodeid] = ("failed", _reason(report))

    def pytest_sessionfinish(self) -> None:
        from cedarbox.audit import read_records

        records = sum(1 for place in self._output.glob("*/ledger") for _ in read_records(place))
        (self._output / "outcomes.json").write_text(
            json.dumps({"records": records, "clients": self._made, "tests": self._found})
        )


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    lines = [line for line in str(report.longrepr or "").splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:300] if lines else ""


def _unsealed() -> None:
    # The SDK's tests put a trace provider of their own in place, which the seal that `import cedarbox` sets refuses.
    spec = importlib.util.find_spec("cedarbox")
    if spec is None or spec.submodule_search_locations is None:
        raise pytest.UsageError("cedarbox is not installed in this interpreter")
    package = ModuleType("cedarbox")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["cedarbox"] = package


def _gate(bundle: Path, output: Path) -> Gate:
    from cedarbox.audit import Ledger
    from cedarbox.guard import Gate
    from cedarbox.policy import PolicyBundle, PolicyEngine
    from cedarbox.telemetry.spans import Telemetry

    ledger = Ledger.open(output / "ledger", signing_key=output / "ledger.key")
    engine = PolicyEngine(PolicyBundle.load(bundle))
    telemetry = Telemetry(directory=output / "spans")
    return Gate(engine=engine, ledger=ledger, telemetry=telemetry, principal="agent", backend="unix_local")


def pytest_configure(config: pytest.Config) -> None:
    """Puts the guarded client in place before any test module is imported."""
    output = Path(os.environ["SWAP_OUTPUT"])
    _unsealed()
    outcomes = _Outcomes(Path(os.environ["SWAP_BUNDLE"]), output)
    guarded: Any = importlib.import_module("cedarbox.guard").GuardedClient
    original = unix_local.UnixLocalSandboxClient

    class UnixLocalSandboxClient(guarded):  # type: ignore[misc]  # imported late, so its type is not known here
        backend_id = original.backend_id
        supports_default_options = original.supports_default_options

        def __init__(self, **options: Any) -> None:
            # Tests that save with one client and resume with another stand for one site, which has one key; tests that
            # pause a run expect that its workspace is saved without their asking.
            key = output / "sandbox.key"
            super().__init__(original(**options), outcomes.gate(), key=key, snapshots="sealed")

        def __getattr__(self, name: str) -> Any:
            # Some tests look at private parts of the client that they made.
            if name.startswith("__") or "inner" not in self.__dict__:
                raise AttributeError(name)
            return getattr(self.inner, name)

    unix_local.UnixLocalSandboxClient = UnixLocalSandboxClient  # type: ignore[misc]  # the point of this plugin
    config.pluginmanager.register(outcomes)
