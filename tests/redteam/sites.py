"""A site that demands signed policies, to be attacked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from tests.unit.bundles import PERMIT_ALL
from tests.unit.signed import make_key, signed_bundle

from cedarbox import PolicySandboxClient
from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle
from cedarbox.policy.trust import load
from cedarbox.settings import Settings, load_settings

__all__ = ["Site"]


class Site:
    """A site that demands signatures by the first ``threshold`` of its keys, with one signed bundle in place."""

    def __init__(self, directory: Path, *, keys: int = 1, threshold: int = 1, required: bool = True) -> None:
        made = [make_key(directory / "keys", f"key{number}") for number in range(keys)]
        self.directory = directory
        self.keys = [key for key, _ in made]
        self.state = directory / "state" / "bundles.json"
        policy = {
            "require_signature": required,
            "public_keys": [str(path) for _, path in made],
            "signature_threshold": threshold,
            "state": self.state,
        }
        settings = load_settings(policy=policy, audit={"directory": directory / "state" / "ledger"})
        self.settings: Settings = settings.model_copy(
            update={"otlp": settings.otlp.model_copy(update={"endpoint": None})}
        )
        self.bundle = signed_bundle(directory / "bundle", *self.keys[:threshold], policies=PERMIT_ALL)

    def accept(self, path: Path | None = None) -> PolicyBundle:
        return load(path or self.bundle, self.settings.trust(), datetime.now(UTC))

    def client(self, source: PolicyBundle | Path | None = None) -> PolicySandboxClient:
        return PolicySandboxClient(UnixLocalSandboxClient(), policies=source or self.bundle, settings=self.settings)

    def assert_refused(self, said: str, source: PolicyBundle | Path | None = None) -> None:
        with pytest.raises(BundleError, match=said) as caught:
            self.client(source)
        assert "\n" not in str(caught.value)
        assert not self.settings.audit.directory.exists()
