"""The decision: Cedar's answer to one request, and nothing else.

A decision is *allow* if and only if Cedar says Allow **and** reports no error. Cedar itself skips a policy that fails
to evaluate, a ``forbid`` too, and answers without it; here that is a denial. So is an unknown principal, a request that
does not fit the schema, an exception, a panic in the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cedarpy
import orjson

from cedarbox.policy.approval import Approval, approval_of, combined
from cedarbox.policy.bundle import Policy, PolicyBundle
from cedarbox.policy.canonical import Address, Host
from cedarbox.policy.entities import Entity, target_entity
from cedarbox.policy.foresight import Foreseen, Handles, foresee, opened
from cedarbox.policy.request import ACTION_GROUPS, Action
from cedarbox.policy.schema import packaged_schema

__all__ = ["Decision", "PolicyEngine"]

# Only entities.json declares these. A request that brought one along could speak for it.
_PRINCIPALS = frozenset({"Tenant", "AgentGroup", "Agent"})
_TARGETS: Final = 4096
"""Of how many targets it is remembered whether one can be connected to."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request.

    Attributes:
        allowed: True only for Allow without errors.
        policies: Ids of the policies that determined the answer; empty when nothing matched.
        reason: One line for people and models.
        advice: The ``@advice`` of the determining policies: what to do instead; may be empty.
        errors: What went wrong while deciding; never empty on an allow.
        bundle: Digest of the policy bundle.
        micros: Time that Cedar spent evaluating, in microseconds, as the engine reports it; 0 when it did not run.
        approval: The signature that an allow still needs, without which it is none; None when it needs none.
    """

    allowed: bool
    policies: tuple[str, ...]
    reason: str
    advice: str
    errors: tuple[str, ...]
    bundle: str
    micros: int
    approval: Approval | None = None


class PolicyEngine:
    """Decides requests against one bundle, on handles that are parsed once.

    Each action has a policy set of its own: Cedar's cost grows with the number of policies, and a policy whose scope
    names another action can never be satisfied.

    Args:
        bundle: A checked bundle.
    """

    def __init__(self, bundle: PolicyBundle) -> None:
        self.bundle = bundle
        self._schema = packaged_schema()
        self._entities = cedarpy.Entities.from_json_str(orjson.dumps(list(bundle.entities)).decode(), self._schema)
        self._policies: Mapping[str, Policy] = {policy.id: policy for policy in bundle.policies}
        self._sets = {action: self._policy_set(action) for action in ACTION_GROUPS}
        self._targets = lru_cache(maxsize=_TARGETS)(self._to_target)

    def _policy_set(self, action: str) -> cedarpy.PolicySet:
        chosen = {policy.id: policy.est for policy in self.bundle.policies if action in policy.actions}
        document = {"staticPolicies": chosen, "templates": {}, "templateLinks": []}
        return cedarpy.PolicySet.from_json_str(orjson.dumps(document).decode())

    def decide(self, principal: str, action: Action) -> Decision:
        """Decide one request. Never raises for a request: whatever goes wrong is a denial that says so.

        Args:
            principal: Id of the agent, as ``entities.json`` declares it.
            action: The request.
        """
        if action.name not in self._sets:
            return self.refusal(f"unknown action {action.name!r}")
        if principal not in self.bundle.principals:
            return self._undeclared(principal)
        if not _PRINCIPALS.isdisjoint(_types((action.resource, *action.others))):
            return self.refusal("a request may not bring a principal along as a resource")
        try:
            delta = orjson.dumps(action.brought).decode()
            result = cedarpy.is_authorized(
                action.asked_by(principal),
                self._sets[action.name],
                self._entities.with_added_json_str(delta, self._schema),
                self._schema,
            )
            return self._decision(result)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # a panic in the engine derives from BaseException, not Exception
            return self.refusal(f"the policy engine failed: {type(error).__name__}: {error}")

    def could_connect(self, principal: str, target: Host | Address) -> bool:
        """Whether any connection to a host or address could be permitted, whatever its port, address and time.

        True permits nothing, it says that it is worth asking.
        """
        return self.never_connects(principal, target) is None

    def never_connects(self, principal: str, target: Host | Address) -> Decision | None:
        """Return the denial that every connection to a host or address meets; None when one could be permitted.

        Args:
            principal: As for :meth:`decide`.
            target: The host or address, canonical.
        """
        return self._targets(principal, target)

    def could_request(self, principal: str, action: Action) -> bool:
        """Whether a connection in plain HTTP could be permitted for some request, which is not known yet.

        Args:
            principal: As for :meth:`decide`.
            action: The ``connect``, with all that is known.
        """
        return self._foreseen(principal, action.name, action.resource, opened(action.context, "http")) is None

    def _to_target(self, principal: str, target: Host | Address) -> Decision | None:
        return self._foreseen(principal, "connect", target_entity(target), None)

    def _foreseen(
        self, principal: str, action: str, resource: Entity, context: Mapping[str, object] | None
    ) -> Decision | None:
        if principal not in self.bundle.principals:
            return self._undeclared(principal)
        handles = Handles(self._sets[action], self._entities, self._schema)
        try:
            seen = foresee(handles, principal, action, resource, context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # as in decide
            seen = Foreseen(possible=False, errors=(f"the policy engine failed: {type(error).__name__}: {error}",))
        if seen.possible:
            return None
        if seen.errors:
            return self.refusal("a policy or the request could not be evaluated", seen.errors)
        reasons = [reason for each in seen.forbids if (reason := self._policies[each].annotations.get("reason"))]
        advice = [advice for each in seen.forbids if (advice := self._policies[each].annotations.get("advice"))]
        return Decision(
            allowed=False,
            policies=seen.forbids,
            reason="; ".join(reasons) or "no policy permits any connection to it",
            advice="; ".join(advice),
            errors=(),
            bundle=self.bundle.digest,
            micros=0,
        )

    def _undeclared(self, principal: str) -> Decision:
        return self.refusal(f"the agent {principal!r} is not declared in entities.json of bundle {self.bundle.name!r}")

    def _decision(self, result: cedarpy.AuthzResult) -> Decision:
        errors = tuple(" ".join(str(error).split()) for error in result.diagnostics.errors)
        ids = tuple(sorted(result.diagnostics.reasons))
        micros = int(result.metrics.get("authz_duration_micros", 0))
        if errors or result.decision is cedarpy.Decision.NoDecision:
            return self.refusal("a policy or the request could not be evaluated", errors or ("no decision",), micros)
        determining = [self._policies[policy_id] for policy_id in ids]
        reasons = [policy.annotations["reason"] for policy in determining if policy.annotations.get("reason")]
        allowed = result.decision is cedarpy.Decision.Allow
        # One permit that asks is enough: another beside it cannot take the need away.
        asked = [approval for policy in determining if (approval := approval_of(policy.annotations)) is not None]
        approval = combined(asked) if allowed else None
        if approval is not None and not approval.approvers:
            return self.refusal(f"{', '.join(ids)} require approvals that no one approver can give", (), micros, ids)
        return Decision(
            allowed=allowed,
            policies=ids,
            reason="; ".join(reasons) or (f"by {', '.join(ids)}" if ids else "no policy permits it"),
            advice="; ".join(advice for policy in determining if (advice := policy.annotations.get("advice"))),
            errors=(),
            bundle=self.bundle.digest,
            micros=micros,
            approval=approval,
        )

    def refusal(
        self, reason: str, errors: tuple[str, ...] = (), micros: int = 0, policies: tuple[str, ...] = ()
    ) -> Decision:
        """Return a denial that no policy determined.

        Args:
            reason: Why, in one line for people and models.
            errors: What went wrong; the reason when there is nothing else to say.
            micros: Microseconds that the engine spent on it.
            policies: Ids of the policies that would have permitted it.
        """
        return Decision(
            allowed=False,
            policies=policies,
            reason=reason,
            advice="",
            errors=errors or (reason,),
            bundle=self.bundle.digest,
            micros=micros,
        )


def _types(entities: Iterable[Entity]) -> Iterator[str]:
    for entity in entities:
        yield entity.type
        for parent in entity.parents:
            yield parent.type
