"""The kit on unix-local, guarded and not, and on clients that are broken on purpose."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from tests.conformance import shown
from tests.conformance.broken import BROKEN, client_of
from tests.unit.forked import command
from tests.unit.guarded import Guarded

from cedarbox.conformance import Backend, Outcome, all_checks, run_conformance
from cedarbox.conformance.backends import GUARD_KNOWN, UNIX_LOCAL_KNOWN, unix_local
from cedarbox.errors import ConfigurationError


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the kit's command line."""
    return command(*arguments, module="cedarbox.conformance")


@pytest.mark.timeout(1200)
async def test_unix_local_guarded_and_not(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    # At once, because most of the time goes by in waiting.
    plain, under_policy = await asyncio.gather(
        run_conformance(unix_local()),
        run_conformance(unix_local(guarded.client, name="guarded unix-local")),
    )
    shown.keep(pytestconfig, plain, under_policy)
    for report, known in ((plain, {*UNIX_LOCAL_KNOWN}), (under_policy, {*UNIX_LOCAL_KNOWN, *GUARD_KNOWN})):
        assert [(result.name, result.reason) for result in report.of(Outcome.FAILED)] == []
        assert {result.name for result in report.of(Outcome.KNOWN)} == known
        assert report.good
        assert report.counts[Outcome.PASSED] >= 150
    # What was asked outside the workspace was decided and recorded like all else.
    assert len(guarded.records("decision")) > 300


@pytest.mark.parametrize("what", sorted(BROKEN))
async def test_what_is_broken_is_found(what: str) -> None:
    session_class, must_fail = BROKEN[what]
    backend = dataclasses.replace(unix_local(client_of(session_class)), known={})
    report = await run_conformance(backend, only=sorted(must_fail))
    failed = {result.name: result.reason for result in report.of(Outcome.FAILED)}
    assert set(failed) == must_fail
    assert not report.good
    assert all(reason and "\n" not in reason for reason in failed.values())
    # And it is the broken thing that it finds: whole, the same client passes them, as the test above shows.
    assert not must_fail & UNIX_LOCAL_KNOWN.keys()


async def test_a_known_failure_that_passes_is_a_failure() -> None:
    backend = dataclasses.replace(unix_local(), known={"exec.two-streams": "it was broken"})
    report = await run_conformance(backend, only=["exec.two-streams"])
    assert not report.good
    assert [result.reason for result in report.results] == [
        "it passed, and is listed as a known failure: it was broken"
    ]


async def test_a_client_that_cannot_start_fails_every_check() -> None:
    backend = Backend("wrong root", UnixLocalSandboxClient(), root="/proc/nowhere")
    report = await run_conformance(backend)
    assert report.counts == {Outcome.FAILED: len(all_checks())}
    assert {result.reason.partition(":")[0] for result in report.results} == {"no session could be used"}


async def test_a_promise_that_is_not_kept_fails() -> None:
    backend = dataclasses.replace(unix_local(), features=frozenset(("isolation",)))
    report = await run_conformance(backend, only=["apart"])
    assert {result.outcome for result in report.results} == {Outcome.FAILED}


async def test_mistakes_of_the_caller() -> None:
    whole = unix_local()
    for only, changes, message in (
        (["nix"], {}, "there is no check 'nix'"),
        (None, {"features": frozenset(("wings",))}, "there is no feature 'wings'"),
        (None, {"known": {"exec.nix": "why"}}, "the known failure 'exec.nix' is no check"),
        (None, {"features": frozenset(("users",))}, "the feature users needs a value"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            await run_conformance(dataclasses.replace(whole, **changes), only=only)


def test_every_check_says_what_must_hold() -> None:
    checks = all_checks()
    assert len(checks) >= 60
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.says.endswith(".") and "\n" not in check.says for check in checks)


def test_the_command_line() -> None:
    listed = run_cli("--list", "--only", "names")
    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 21)
    one = run_cli("--json", "--only", "exec.two-streams")
    assert one.returncode == 0
    assert json.loads(one.stdout)["counts"]["passed"] == 1
    missing = run_cli("--backend", "boxlite", "--rootfs", "/nonexistent", "--only", "exec.two-streams")
    assert missing.returncode == 2
    wrong = run_cli("--only", "nix")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("conformance: there is no check 'nix'; ")
