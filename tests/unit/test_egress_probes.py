"""The attacks on egress, shown to be attacks: against a proxy that carries everything, each of them gets out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.microvm.outside import ATTACKS, table
from tests.microvm.probes import outward, through
from tests.microvm.probes.tools import ATTACKS as PROBES
from tests.microvm.probes.tools import PROXIED

# The attacks add themselves when their module is imported.
assert outward.__all__
assert through.__all__

_UNSHARED = ["unshare", "--map-root-user", "--net", "--mount"]
# It kills the proxy and takes its place, which gains nothing.
_HELPLESS = {"relay"}
_BURDENS = {attack.name for attack in ATTACKS if attack.kind == "burden"}


def attacked(mode: str) -> dict[str, Any]:
    if not shutil.which("ip") or not Path("/dev/net/tun").exists():
        pytest.skip("makes an interface: needs iproute2 and a tun device")
    if subprocess.run([*_UNSHARED, "true"], capture_output=True, check=False).returncode:
        pytest.skip("makes an interface: needs namespaces of its own, which this user may not make")
    root = Path(__file__).parents[2]
    around = os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*_UNSHARED, sys.executable, "-m", "tests.unit.leaky", mode]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=around, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_each_attack_has_a_probe_and_each_probe_a_line_in_the_matrix() -> None:
    assert [attack.name for attack in ATTACKS if attack.name not in PROBES] == []
    assert set(PROBES) - {attack.name for attack in ATTACKS} == set()


def test_a_proxy_that_asks_nobody_lets_every_attack_out() -> None:
    said = attacked("open")
    wrong = {name: (how, said["told"][name]) for name, how in said["verdicts"].items() if how != "reached"}
    assert set(wrong) == _HELPLESS | _BURDENS, wrong
    assert {said["verdicts"][name] for name in _BURDENS} == {"harmless"}
    assert said["unforeseen"] > 100


def test_without_a_proxy_only_the_attacks_on_one_are_not_made() -> None:
    said = attacked("direct")
    assert {name for name, how in said["verdicts"].items() if how == "no proxy"} == PROXIED
    assert {how for name, how in said["verdicts"].items() if name not in PROXIED} == {"reached"}


def test_the_matrix_shows_what_got_out() -> None:
    shown = table({"none": {"udp": "blocked"}, "nic": {"udp": "reached", "permitted": "reached"}})
    lines = {line.split(" | ")[0]: line for line in shown.splitlines()}
    assert lines["| UDP to an address"] == "| UDP to an address | blocked | **reached** |"
    assert lines["| *permitted: plain HTTP to a listed host*"].endswith("| not tried | reached |")
