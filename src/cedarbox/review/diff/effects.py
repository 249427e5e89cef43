"""What of a bundle can have an effect on an action: the policies that can match it, and who the agents are.

Two versions with the same effects on an action decide every request of it alike, so nothing needs to be proved. The
digests here are also what an acceptance is bound to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from cedarbox.errors import BundleError
from cedarbox.policy.approval import approval_of
from cedarbox.review.declared import uid_text
from cedarbox.review.diff.agents import AgentState, agent_states, looked_into
from cedarbox.review.prove import Side
from cedarbox.review.subject import ReviewedPolicy, Subject

__all__ = ["Approving", "Effect", "Effects", "digest_of"]


@dataclass(frozen=True, slots=True)
class Approving:
    """What a permit asks for before a call goes through.

    Attributes:
        keys: Base64 of the public keys that can sign, sorted, with the name that each goes by.
        expires_s: How long a signature holds, in seconds.
    """

    keys: tuple[tuple[str, str], ...]
    expires_s: int

    @property
    def told(self) -> str:
        """Who, for people."""
        return " or ".join(name for _, name in self.keys) or "nobody"


@dataclass(frozen=True)
class Effect:
    """One policy, as far as it can have an effect.

    Attributes:
        policy: The policy.
        digest: ``sha256:…`` of its effect: its canonical form without annotations, and the approval that it asks for.
        approving: The approval that it asks for; None when it asks for none.
        actions: The qualified names of the actions and groups in its scope; None for any.
    """

    policy: ReviewedPolicy
    digest: str
    approving: Approving | None
    actions: frozenset[str] | None


class Effects:
    """The effects of one version.

    Args:
        subject: The version; None for none, which denies everything.
        groups: The groups that each action is in, by its qualified name such as ``Sandbox::Action::"connect"``.
        is_bundle: It is a bundle, not plain Cedar; also when there is none.
    """

    def __init__(self, subject: Subject | None, groups: Mapping[str, frozenset[str]], *, is_bundle: bool) -> None:
        self.subject, self.is_bundle = subject, is_bundle
        self._groups = groups
        # The prover keeps what it has encoded as long as it is given the same side again.
        self._sides: dict[str, Side] = {}
        self._on: dict[str, Mapping[str, Effect]] = {}

    @cached_property
    def policies(self) -> Mapping[str, Effect]:
        """Every policy by its id. A template has the links that are made of it in its digest."""
        if self.subject is None:
            return {}
        approvers = self.subject.bundle.approvers if self.subject.bundle else {}
        linked: dict[str, list[Any]] = {}
        for link in self.subject.links:
            linked.setdefault(str(link.get("templateId")), []).append(dict(link.get("values", {})))
        found: dict[str, Effect] = {}
        for policy in self.subject.policies:
            approving = _approving(policy, approvers) if self.subject.bundle else None
            content: dict[str, Any] = {"policy": {k: v for k, v in policy.est.items() if k != "annotations"}}
            if policy.template:
                content["links"] = sorted(linked.get(policy.id, []), key=repr)
            if approving is not None:
                content["approval"] = {"keys": [key for key, _ in approving.keys], "expires": approving.expires_s}
            if policy.id in found:
                path, hint = Path(policy.place.file), "give each policy an id of its own"
                raise BundleError(
                    f"second policy with the id {policy.id!r}", path=path, line=policy.place.line, hint=hint
                )
            found[policy.id] = Effect(policy, digest_of(content), approving, _named(policy.est["action"]))
        return found

    def instances(self, policy: str) -> tuple[str, ...]:
        """Return the ids of what decides for a policy: itself, or the links of a template.

        Args:
            policy: Its id.
        """
        if self.subject is None or not self.subject.by_id[policy].template:
            return (policy,)
        return tuple(str(link["newId"]) for link in self.subject.links if link.get("templateId") == policy)

    def owner(self, instance: str) -> Effect | None:
        """Return the policy that a replay names; None when it is none of these.

        Args:
            instance: Id of a policy, or of a link of a template.
        """
        links = self.subject.links if self.subject else ()
        template = next((str(link.get("templateId")) for link in links if link.get("newId") == instance), instance)
        return self.policies.get(template)

    def side(self, action: str) -> Side:
        """Return what the prover needs to know for requests of an action.

        Args:
            action: Its qualified name.
        """
        if action not in self._sides:
            self._sides[action] = self._side(action)
        return self._sides[action]

    def _side(self, action: str) -> Side:
        chosen = self.on(action)
        if self.subject is None:
            return Side({}, (), (), deny_on_error=self.is_bundle)
        links = [link for link in self.subject.links if link.get("templateId") in chosen]
        policies = {name: each.policy.est for name, each in chosen.items()}
        return Side(policies, self.subject.entities, links, deny_on_error=self.is_bundle)

    @cached_property
    def agents(self) -> Mapping[str, AgentState]:
        """The declared agents by id; empty for plain Cedar, where entities are not part of what is decided on."""
        if self.subject is None or self.subject.bundle is None:
            return {}
        return agent_states(self.subject.entities)

    def on(self, action: str) -> Mapping[str, Effect]:
        """Return the policies whose scope can match an action, by id.

        Args:
            action: Its qualified name.
        """
        if action not in self._on:
            named = {action} | self._groups.get(action, frozenset())
            self._on[action] = {
                key: each
                for key, each in self.policies.items()
                if each.actions is None or not each.actions.isdisjoint(named)
            }
        return self._on[action]

    def state(self, action: str) -> str:
        """Return a digest of all that the decisions on an action rest on.

        Args:
            action: Its qualified name.
        """
        agents = {name: state.to_json() for name, state in self.agents.items()}
        schema = None if self.subject is None or self.subject.bundle else self.subject.schema
        policies = digests(self.on(action).values())
        content: dict[str, Any] = {"action": action, "policies": policies, "agents": agents, "schema": schema}
        if self.subject is not None and self.subject.bundle is not None:
            inside = looked_into(self.subject.entities, [each.policy.est for each in self.on(action).values()])
            if inside:
                content["inside"] = {uid: state.to_json() if state else None for uid, state in inside.items()}
        return digest_of(content)


def digests(effects: Iterable[Effect]) -> list[str]:
    """Return the digests of some policies, sorted; each is there as often as it occurs."""
    return sorted(effect.digest for effect in effects)


def digest_of(content: object) -> str:
    """Return ``sha256:…`` of a value in JSON without spaces, keys sorted.

    Args:
        content: What JSON can tell. Whole numbers are told as text, as they may be of any size.
    """
    return "sha256:" + hashlib.sha256(orjson.dumps(_told(content), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _told(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_told(each) for each in value]
    # A number and the text of its digits stay apart.
    return {"whole": str(value)} if type(value) is int else value


def _named(scope: Mapping[str, Any]) -> frozenset[str] | None:
    if scope["op"] == "All":
        return None
    uids = [scope["entity"]] if "entity" in scope else scope["entities"]
    return frozenset(uid_text(uid["type"], uid["id"]) for uid in uids)


def _approving(policy: ReviewedPolicy, approvers: Mapping[str, str]) -> Approving | None:
    asked = approval_of(policy.annotations)
    # The bundle was checked: names are declared.
    keys = () if asked is None else tuple(sorted((approvers[name], name) for name in asked.approvers))
    return None if asked is None else Approving(keys, asked.expires_s)
