"""Attacks on how the text of policies is read: what Cedar decides by is what a reviewer sees and what tools keep."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.bundles import engine

from cedarbox.policy import PolicyBundle, actions
from cedarbox.policy.entities import Base

_PERMIT = '@id("all") permit (principal, action, resource);\n'


@pytest.mark.parametrize("ending", ["\r", "\r\n", "\n\r"])
def test_a_forbid_behind_the_carriage_return_of_a_comment(tmp_path: Path, ending: str) -> None:
    """A comment ends with a bare carriage return, which an editor shows as the end of the line and Cedar takes as one.

    The forbid after it is a policy of the bundle and decides, as it does for Cedar's own tools.
    """
    policies = f'{_PERMIT}// no commands{ending}@id("never") forbid (principal, action, resource);\n'
    gate = engine(tmp_path, policies)
    decision = gate.decide("agent", actions.use_capability(Base(datetime.now(UTC), "boxlite"), capability="shell"))
    assert not decision.allowed
    assert [policy.id for policy in PolicyBundle.load(tmp_path).policies] == ["all", "never"]
