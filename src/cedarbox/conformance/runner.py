"""Runs the checks against one backend."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec

from cedarbox.conformance.backend import FEATURES, Backend
from cedarbox.conformance.bench import Bench, shared_manifest
from cedarbox.conformance.check import Check, Failure, NotApplicable, one_line
from cedarbox.conformance.checks import all_checks
from cedarbox.conformance.report import Outcome, Report, Result
from cedarbox.errors import CedarboxError, ConfigurationError

__all__ = ["run_conformance", "selected"]

_CLEAN_SECONDS = 120.0


def selected(only: Collection[str] | None = None) -> tuple[Check, ...]:
    """Return the checks to run.

    Args:
        only: Names of checks or areas; None for all.

    Raises:
        ConfigurationError: A name is neither.
    """
    checks = all_checks()
    if only is None:
        return checks
    known = {check.name for check in checks} | {check.area for check in checks}
    if unknown := sorted(set(only) - known):
        areas = ", ".join(sorted({check.area for check in checks}))
        raise ConfigurationError(f"there is no check {unknown[0]!r}", hint=f"name a check, or one of: {areas}")
    return tuple(check for check in checks if check.name in only or check.area in only)


async def run_conformance(
    backend: Backend,
    *,
    only: Collection[str] | None = None,
    progress: Callable[[Result], None] | None = None,
) -> Report:
    """Run the checks against a backend, one after the other.

    Most share one session; those of the area ``life`` make one more. Every check has a time limit and a directory of
    its own, and what the checks made in a session that is not the kit's own is removed at the end.

    Args:
        backend: The backend.
        only: Names of checks or areas; None for all.
        progress: Told each result as it comes.

    Returns:
        The report. When no session can be started, every check has failed for that reason.

    Raises:
        ConfigurationError: A name, a feature or a known failure does not exist.
        CedarboxError: This host or its settings do not let the backend start at all.
    """
    checks = selected(only)
    _check_backend(backend)
    run = _Run(backend, progress or (lambda _: None), [])
    with _host_variable() as variable:
        try:
            async with _shared(backend) as (session, ran_before):
                await run.all_of(
                    checks, Bench.around(backend, session, ran_before_start=ran_before, host_variable=variable)
                )
        except CedarboxError:
            raise
        except Exception as error:  # noqa: BLE001  # without a session every check has failed
            done = {result.name for result in run.results}
            for check in checks:
                if check.name not in done:
                    run.note(check, Outcome.FAILED, f"no session could be used: {one_line(error)}", 0.0)
    return Report(backend.name, tuple(run.results))


def _check_backend(backend: Backend) -> None:
    if unknown := sorted(backend.features - set(FEATURES)):
        raise ConfigurationError(f"there is no feature {unknown[0]!r}", hint=f"features are: {', '.join(FEATURES)}")
    if unknown := sorted(set(backend.known) - {check.name for check in all_checks()}):
        raise ConfigurationError(f"the known failure {unknown[0]!r} is no check", hint="take it off the list")
    for feature, value in (("users", backend.user), ("ports", backend.port)):
        if feature in backend.features and value is None:
            raise ConfigurationError(f"the feature {feature} needs a value", hint="name a user, or a declared port")


@contextmanager
def _host_variable() -> Iterator[str]:
    # Two runs at once must not take away each other's.
    name = f"CONFORMANCE_{secrets.token_hex(6)}"
    os.environ[name] = "leaked"
    try:
        yield name
    finally:
        os.environ.pop(name, None)


@asynccontextmanager
async def _shared(backend: Backend) -> AsyncIterator[tuple[SandboxSession, bool | None]]:
    if backend.session is not None:
        yield backend.session, None
        return
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        manifest = shared_manifest(Path(directory), root=backend.root)
        session = await backend.client.create(manifest=manifest, options=backend.options, snapshot=NoopSnapshotSpec())
        try:
            ran_before = await session.running()
            await session.start()
            yield session, ran_before
        finally:
            try:
                await session.shutdown()
            finally:
                await backend.client.delete(session)


@dataclass(frozen=True)
class _Run:
    backend: Backend
    progress: Callable[[Result], None]
    results: list[Result]

    async def all_of(self, checks: tuple[Check, ...], bench: Bench) -> None:
        features = set(self.backend.features)
        if bench.session.supports_pty():
            features.add("pty")
        await bench.prepare([check.name for check in checks])
        try:
            for check in checks:
                await self.one(check, bench.at(check.name), features)
        finally:
            async with asyncio.timeout(_CLEAN_SECONDS * self.backend.patience):
                await bench.clean()

    async def one(self, check: Check, bench: Bench, features: set[str]) -> None:
        if missing := sorted(check.needs - features):
            self.note(check, Outcome.NOT_APPLICABLE, f"the backend does not claim: {', '.join(missing)}", 0.0)
            return
        begun = time.monotonic()
        limit = check.limit_s * self.backend.patience
        outcome, reason = Outcome.PASSED, ""
        try:
            async with asyncio.timeout(limit) as timer:
                await check.run(bench)
        except NotApplicable as error:
            outcome, reason = Outcome.NOT_APPLICABLE, one_line(error)
        except Failure as error:
            outcome, reason = Outcome.FAILED, one_line(error)
        except Exception as error:  # noqa: BLE001  # whatever a backend raises unasked is its failure
            outcome = Outcome.FAILED
            reason = f"took longer than {limit:g} s" if timer.expired() else one_line(error)
        if "pty" in check.needs:
            await bench.session.pty_terminate_all()
        known = self.backend.known.get(check.name)
        if known is not None and outcome is Outcome.FAILED:
            outcome, reason = Outcome.KNOWN, f"{known} ({reason})"
        elif known is not None and outcome is Outcome.PASSED:
            outcome, reason = Outcome.FAILED, f"it passed, and is listed as a known failure: {known}"
        self.note(check, outcome, reason, time.monotonic() - begun)

    def note(self, check: Check, outcome: Outcome, reason: str, seconds: float) -> None:
        result = Result(check.name, check.area, check.says, outcome, reason, seconds)
        self.results.append(result)
        self.progress(result)
