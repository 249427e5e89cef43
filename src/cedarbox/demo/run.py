"""Plays the scenes and gathers what they left: decisions, spans, and a ledger that verifies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from agents.models.interface import Model
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from openai import AsyncOpenAI

from cedarbox.audit import Record, Report, read_records, verify_ledger
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, check_kvm
from cedarbox.collector.server import EmbeddedCollector
from cedarbox.demo.scenes import SCENES, Seen, World
from cedarbox.errors import ConfigurationError
from cedarbox.hardened import PolicySandboxClient, harden
from cedarbox.policy import PolicyBundle
from cedarbox.settings import load_settings

__all__ = ["DemoOptions", "DemoResult", "run_demo"]

_DELIVERY_SECONDS = 20.0
# An emulated machine boots a guest in 8 to 20 s, more on a busy host, and unpacks the image the first time.
_BOOT_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo is run with.

    Attributes:
        directory: Where everything it leaves is put; must not exist, or be empty.
        policies: Directory of the policy bundle.
        rootfs: Local OCI layout to boot.
        image: Image reference to boot instead.
        endpoint: OTLP/HTTP collector; None for an embedded one.
        model_url: Base URL of an OpenAI-compatible model server; None for the scripted model.
        model: Name of the model there.
        api_key: Key of that server; most local ones take any.
    """

    directory: Path
    policies: Path
    rootfs: Path | None = None
    image: str | None = None
    endpoint: str | None = None
    model_url: str | None = None
    model: str | None = None
    api_key: str = "none"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo left.

    Attributes:
        seen: Every attempt and how it ended.
        decisions: Every decision record, in order.
        report: The verification of the ledger.
        ledger: Its directory.
        collected: Directory of the embedded collector's store; None when another collector was used.
        delivered: Everything on disk has been acknowledged by the collector.
    """

    seen: tuple[Seen, ...]
    decisions: tuple[Record, ...]
    report: Report
    ledger: Path
    collected: Path | None
    delivered: bool

    @property
    def good(self) -> bool:
        """Everything ended as it had to, was delivered, and verifies."""
        return all(seen.as_expected for seen in self.seen) and self.report.ok and self.delivered


async def run_demo(options: DemoOptions, *, tell: Callable[[str, Seen | None], None]) -> DemoResult:
    """Run the demo.

    Args:
        options: What to run it with.
        tell: Is told the title of each scene as it begins, then each attempt as it ends.

    Raises:
        CedarboxError: The host, the image, the bundle or an option cannot be used; nothing is left behind then.
    """
    # Everything that can be refused without leaving a trace is checked before the first file is made.
    bundle = PolicyBundle.load(options.policies)
    model = _model(options)
    layout = str(options.rootfs) if options.rootfs else None
    box = BoxLiteSandboxClientOptions(image=options.image, rootfs=layout, boot_timeout_s=_BOOT_SECONDS)
    check_kvm()
    made = _check_empty(options.directory)
    try:
        return await _play(options, bundle, box, model, tell)
    except BaseException:
        if made:
            shutil.rmtree(options.directory, ignore_errors=True)
        raise


async def _play(
    options: DemoOptions,
    bundle: PolicyBundle,
    box: BoxLiteSandboxClientOptions,
    model: Model | None,
    tell: Callable[[str, Seen | None], None],
) -> DemoResult:
    seen: list[Seen] = []
    directory, collected = options.directory, None
    ledger = directory / "ledger"
    with ExitStack() as stack:
        endpoint = options.endpoint
        if endpoint is None:
            collected = directory / "collector"
            endpoint = stack.enter_context(EmbeddedCollector(collected, port=0)).url
        settings = load_settings(
            audit={"directory": ledger, "signing_key": directory / "ledger.key"},
            otlp={"endpoint": endpoint, "spans": directory / "spans"},
        )
        home = directory / "boxlite"
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        config = harden(policies=bundle, client=BoxLiteSandboxClient(home=home), options=box, settings=settings)
        client = cast("PolicySandboxClient", config.sandbox.client if config.sandbox else None)
        try:
            world = World(config, client, box, model)
            for scene in SCENES:
                tell(scene.title, None)
                for attempt in await scene.play(world):
                    seen.append(attempt)
                    tell(scene.title, attempt)
        finally:
            delivered = client.close(flush=_DELIVERY_SECONDS)
    records = [record for _, record in read_records(ledger)]
    decisions = tuple(record for record in records if record.entry.event == "decision")
    return DemoResult(tuple(seen), decisions, verify_ledger(ledger), ledger, collected, delivered)


def _model(options: DemoOptions) -> Model | None:
    if options.model_url is None:
        return None
    if not options.model:
        raise ConfigurationError("--model-url needs --model", hint="name the model that the server offers")
    client = AsyncOpenAI(base_url=options.model_url, api_key=options.api_key)
    return OpenAIChatCompletionsModel(options.model, openai_client=client)


def _check_empty(directory: Path) -> bool:
    """Return whether the directory is still to be made; refuse one that holds anything."""
    try:
        if not directory.exists():
            return True
        if any(directory.iterdir()):
            raise ConfigurationError(f"{directory} is not empty", hint="name a new directory, or remove this one")
    except OSError as error:
        hint = "name a directory that this user can write"
        raise ConfigurationError(f"{directory} cannot be used ({error.strerror})", hint=hint) from None
    return False
