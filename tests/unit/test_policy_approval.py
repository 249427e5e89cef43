"""What a bundle may say about approvals, and what its permits come to together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.approving import ASKS, DESK, OFFICER, metadata, public
from tests.unit.bundles import PERMIT_ALL, write_bundle

from cedarbox import PolicyBundle, PolicyEngine
from cedarbox.errors import BundleError
from cedarbox.policy import Approval, actions
from cedarbox.policy.entities import Base

INVOKE = 'permit (principal, action == Sandbox::Action::"invokeTool", resource);'
EVERY_TOOL = (
    '@id("rest") permit (principal, action, resource) unless { action == Sandbox::Action::"invokeTool" };\n'
    f'@id("tools") @requires_approval("desk") {INVOKE}\n'
)


@pytest.mark.parametrize(
    ("policy", "line", "said"),
    [
        ('\n@requires_approval("desk") forbid' + INVOKE[6:], 2, "stands on a forbid"),
        ('@requires_approval("desk")\npermit (principal, action, resource);', 1, "not invokeTool alone"),
        (
            '@requires_approval("desk") permit (principal, action == Sandbox::Action::"exec", resource);',
            1,
            "not invoke",
        ),
        (
            '@requires_approval("desk") permit (principal, action in Sandbox::Action::"intelligence", resource);',
            1,
            "not",
        ),
        (f'@id("x")\n@requires_approval("boss")\n{INVOKE}', 2, "'boss', who is no declared approver"),
        (f'@requires_approval("desk, boss") {INVOKE}', 1, "'boss'"),
        (f'@requires_approval("") {INVOKE}', 1, "needs the names"),
        (f"@requires_approval {INVOKE}", 1, "needs the names"),
        (f'@requires_approval("desk,") {INVOKE}', 1, "needs the names"),
        (f'@requires_approval("desk") @approval_expires("soon") {INVOKE}', 1, "'soon', which is no duration"),
        (f'@requires_approval("desk") @approval_expires("0m") {INVOKE}', 1, "no duration"),
        (f'@requires_approval("desk") @approval_expires("9999999h") {INVOKE}', 1, "no duration"),
        (f'@requires_approval("desk") @approval_expires("\N{FULLWIDTH DIGIT ONE}m") {INVOKE}', 1, "no duration"),
        (f'@requires_approval("desk") @approval_expires {INVOKE}', 1, "no duration"),
        (f'@approval_expires("15m") {INVOKE}', 1, "stands without @requires_approval"),
        (f'@require_approval("desk") {INVOKE}', 1, "is not an annotation that cedarbox knows"),
        (f'@requiresApproval("desk") {INVOKE}', 1, "is not an annotation that cedarbox knows"),
    ],
)
def test_an_annotation_that_could_not_be_held_to(tmp_path: Path, policy: str, line: int, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        PolicyBundle.load(write_bundle(tmp_path, policy, metadata=metadata()))
    assert said in str(caught.value)
    assert (caught.value.path.name, caught.value.line) == ("policies.cedar", line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "line", "said"),
    [
        ('approvers = "desk"', 3, "must be a table"),
        ('[approvers]\ndesk = "not base64"', 4, "not a public key"),
        ("[approvers]\ndesk = 5", 4, "not a public key"),
        ('[approvers]\ndesk = "AAAA"', 4, "not a public key"),
        (f'[approvers]\ndesk = "{public(DESK)[:-2]}B="', 4, "not a public key"),
        (f'[approvers]\ndesk = "{public(DESK)}"\nboss = "{public(DESK)}"', 5, "has the key of 'desk'"),
        (f'[approvers]\ndesk = "{public(DESK)}"\ndesk = "{public(OFFICER)}"', None, "not TOML"),
        (f'[approvers]\n"a b" = "{public(DESK)}"', 4, "no usable name"),
        (f'[approver]\ndesk = "{public(DESK)}"', None, "unknown key 'approver'"),
    ],
)
def test_approvers_that_cannot_be_used(tmp_path: Path, table: str, line: int | None, said: str) -> None:
    toml = f'name = "test"\nschema = 1\n{table}\n'
    with pytest.raises(BundleError) as caught:
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, metadata=toml))
    assert said in str(caught.value)
    assert caught.value.path.name == "bundle.toml"
    assert "must be a table" in said or caught.value.line == line
    assert "\n" not in str(caught.value)


def test_the_declared_approvers_are_part_of_the_bundle_and_its_digest(tmp_path: Path) -> None:
    bundle = PolicyBundle.load(write_bundle(tmp_path / "a", ASKS, metadata=metadata()))
    assert bundle.approvers == {"desk": public(DESK), "officer": public(OFFICER)}
    swapped = metadata().replace("officer =", "other =").replace("desk =", "officer =").replace("other =", "desk =")
    assert PolicyBundle.load(write_bundle(tmp_path / "b", ASKS, metadata=swapped)).digest != bundle.digest


@pytest.mark.parametrize(
    ("permits", "expected"),
    [
        ([INVOKE], None),
        ([f'@requires_approval("desk") {INVOKE}'], Approval(("desk",), 900)),
        (
            [f'@requires_approval("officer, desk") @approval_expires("2h") {INVOKE}'],
            Approval(("desk", "officer"), 7200),
        ),
        ([f'@requires_approval("desk") {INVOKE}', INVOKE], Approval(("desk",), 900)),
        (
            [
                f'@requires_approval("desk,officer") @approval_expires("30s") {INVOKE}',
                f'@requires_approval("officer") @approval_expires("1h") {INVOKE}',
            ],
            Approval(("officer",), 30),
        ),
    ],
)
def test_what_satisfies_every_permit_that_asks(tmp_path: Path, permits: list[str], expected: Approval | None) -> None:
    write_bundle(tmp_path, "\n".join(permits), metadata=metadata())
    decide = PolicyEngine(PolicyBundle.load(tmp_path)).decide
    base = Base(at=datetime.now(UTC), backend="x")
    decision = decide("agent", actions.invoke_tool(base, name="t", kind="function"))
    assert decision.allowed
    assert decision.approval == expected
