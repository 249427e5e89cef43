"""Attacks on the way out of real microVMs, in every mode of egress: what counts is what the outside saw."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.microvm.boxes import options
from tests.microvm.given import GIVEN, PROBES, lend
from tests.microvm.listeners import Listeners
from tests.microvm.outside import ATTACKS, POLICY, outside, table, unforeseen, verdict
from tests.microvm.probes.tools import WHERE
from tests.unit.guarded import Guarded

from cedarbox.boxlite import BoxLiteSandboxClient, Mount, api

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("CEDARBOX_RIG") != "1", reason="makes an interface: only in the emulated machine"
    ),
    pytest.mark.timeout(600),
]

_TABLES = "CEDARBOX_TABLES"
_FILE = "egress-matrix.table"
_OPEN = "published adapter's deny-all"
_MODES = ("none", "nic", "broker", _OPEN)
_CONTROLS = {attack.name for attack in ATTACKS if attack.kind == "control"}
_BURDENS = {attack.name for attack in ATTACKS if attack.kind == "burden"}

Verdicts = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def world() -> Iterator[Listeners]:
    with outside() as listeners:
        yield listeners


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lend(tmp_path_factory.mktemp("egress") / "given")


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Verdicts]:
    """The columns of the matrix; printed, and kept where the suite collects tables, once they are there."""
    found: Verdicts = {}
    yield found
    shown = table({mode: found[mode] for mode in _MODES if mode in found})
    print(f"\n{shown}")
    if place := os.environ.get(_TABLES):
        (Path(place) / _FILE).write_text(shown)


def judged(world: Listeners, said: str) -> tuple[dict[str, str], str]:
    """The verdicts on all attacks, and a text that tells what happened, for a failure."""
    told: dict[str, Any] = json.loads(said)
    seen = list(world.seen)
    found = {attack.name: verdict(attack, told[attack.name], seen) for attack in ATTACKS}
    lines = [f"{name}: {how}; the guest: {told[name]}" for name, how in found.items()]
    return found, "\n".join([*lines, "seen outside:", *map(str, seen)])


async def attacked(session: SandboxSession, world: Listeners) -> tuple[dict[str, str], str]:
    world.forget()
    result = await session.exec(PROBES)
    assert result.exit_code == 0, (result.stdout + result.stderr).decode(errors="replace")
    return judged(world, result.stdout.decode())


@pytest.fixture
async def plain(client: BoxLiteSandboxClient, oci_layout: Path, given: Path) -> AsyncIterator[Any]:
    """Makes started sessions without a guard, and removes them."""
    made: list[SandboxSession] = []

    async def make(**values: Any) -> SandboxSession:
        chosen = options(oci_layout, mounts=(Mount(str(given), GIVEN),), **values)
        made.append(await client.create(snapshot=NoopSnapshotSpec(), options=chosen))
        await made[-1].start()
        return made[-1]

    yield make
    for session in made:
        await client.delete(session)


@pytest.mark.long
async def test_without_egress_nothing_gets_out(plain: Any, world: Listeners, verdicts: Verdicts) -> None:
    found, happened = await attacked(await plain(egress_mode="none"), world)
    verdicts["none"] = found
    assert world.seen == [], happened
    assert set(found.values()) <= {"blocked", "no proxy"}, happened


@pytest.mark.long
async def test_with_a_card_names_get_out_whatever_is_listed(plain: Any, world: Listeners, verdicts: Verdicts) -> None:
    session = await plain(egress_mode="nic", egress_allowlist=("allowed.example",))
    found, happened = await attacked(session, world)
    verdicts["nic"] = found
    # What is said of this mode elsewhere: it carries what is listed, and every look-up.
    assert found["permitted"] == "reached", happened
    assert "reached" in {found["dnsudp"], found["dnstxt"]}, happened


async def test_through_the_broker_nothing_gets_out_but_what_is_permitted(
    client: BoxLiteSandboxClient,
    oci_layout: Path,
    given: Path,
    world: Listeners,
    verdicts: Verdicts,
    tmp_path: Path,
) -> None:
    guarded = Guarded(tmp_path, POLICY, inner=client)
    chosen = options(oci_layout, mounts=(Mount(str(given), GIVEN),))
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), options=chosen)
    try:
        await session.start()
        found, happened = await attacked(session, world)
        after = await session.exec("echo alive")
    finally:
        await guarded.client.delete(session)
    verdicts["broker"] = found
    for name, how in found.items():
        wanted = {"reached"} if name in _CONTROLS else {"harmless"} if name in _BURDENS else {"blocked"}
        assert how in wanted, f"{name}: {how}\n{happened}"
    assert [str(one) for one in unforeseen(world.seen)] == [], happened
    # Whoever ends the relay ends the way out of one sandbox, and nothing else.
    assert after.stdout == b"alive\n"
    # What was permitted is on record, what was refused too, and no more was admitted than arrived.
    decisions = {(said, resource.partition('"')[2].rstrip('"')) for said, action, resource in guarded.decisions()
                 if action == "connect"}  # fmt: skip
    assert ("allow", WHERE["allowed"]) in decisions
    assert ("deny", WHERE["denied_ip"]) in decisions
    # What was written into the pipes of the relay was no frame, and that is on record too.
    assert [resource for _, action, resource in guarded.decisions() if resource == "the connections of the guest"]
    assert {name for said, name in decisions if said == "allow"} <= {
        "allowed.example",
        "mixed.example",
        "rebind.example",
    }
    assert guarded.records("egress.closed")


@pytest.mark.long
async def test_what_the_published_adapter_calls_deny_all_lets_everything_out(
    client: BoxLiteSandboxClient, oci_layout: Path, given: Path, world: Listeners, verdicts: Verdicts
) -> None:
    """Its network for *nothing is allowed* is a card with an empty list. It does not run itself, so its box is made."""
    runtime = client._open()
    made = api.box_options(
        image=None,
        rootfs=str(oci_layout),
        cpus=1,
        memory_mib=256,
        disk_size_gb=None,
        network=api.network_spec_object(mode="enabled", allow_net=()),
        ports=(),
        entrypoint=("/bin/sh", "-c", "while :; do sleep 3600; done"),
        volumes=[(str(given), GIVEN)],
    )
    box = await runtime.create(made, "open")
    try:
        await box.start()
        world.forget()
        execution = await box.exec("/bin/sh", ["-c", PROBES])
        said = "".join([piece async for piece in execution.stdout()])
        assert (await execution.wait()).exit_code == 0, said
    finally:
        await runtime.remove(box.id, True)
    found, happened = judged(world, said)
    verdicts[_OPEN] = found
    assert {found[name] for name in ("tcpraw", "udp", "dnsudp")} == {"reached"}, happened
