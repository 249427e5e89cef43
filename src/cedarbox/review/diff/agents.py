"""Who the agents of two versions are, which of them are alike, and what changed about each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785

from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.declared import AGENT, Declared, Named, Uid, uid_of

__all__ = [
    "AgentChange",
    "AgentClass",
    "AgentState",
    "agent_changes",
    "agent_states",
    "changed_entity",
    "classes",
    "looked_into",
]

_GROUP = f"{NAMESPACE}::AgentGroup"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class AgentState:
    """What policies can see of an agent.

    Attributes:
        groups: Ids of the groups that it is in, through others too, sorted.
        direct: Those that it is in directly, sorted.
        attributes: Its attributes in canonical JSON.
        tags: Its tags in canonical JSON.
    """

    groups: tuple[str, ...]
    direct: tuple[str, ...]
    attributes: str
    tags: str

    def to_json(self) -> dict[str, Any]:
        """Return it for a digest. Which groups are direct makes no difference to any policy."""
        return {"groups": list(self.groups), "attributes": self.attributes, "tags": self.tags}

    def seen(self, groups: frozenset[str]) -> tuple[tuple[str, ...], str, str]:
        """Return what tells it from another agent, where only some groups are looked at."""
        return tuple(group for group in self.groups if group in groups), self.attributes, self.tags


@dataclass(frozen=True, slots=True)
class AgentClass:
    """Agents that every policy of both versions treats alike.

    Attributes:
        ids: Their ids, sorted; empty for plain Cedar: anybody.
        changed: What policies can see when they decide about them differs between the versions.
        kind: Type of the principal, for plain Cedar.
    """

    ids: tuple[str, ...]
    changed: bool
    kind: str = ""

    @property
    def told(self) -> str:
        """Who they are, in a few words."""
        if not self.ids:
            return f"any {self.kind}"
        more = len(self.ids) - _SHOWN
        shown = self.ids if more <= 1 else self.ids[:_SHOWN]
        return ", ".join(shown) + (f" and {more} more" if more > 1 else "")


@dataclass(frozen=True, slots=True)
class AgentChange:
    """One thing that changed in ``entities.json``.

    Attributes:
        agent: Id of the agent; of the group, for a change of a group.
        told: What changed, in words.
    """

    agent: str
    told: str


def agent_states(entities: Sequence[Mapping[str, Any]]) -> Mapping[str, AgentState]:
    """Return what policies can see of each declared agent, by id.

    Args:
        entities: The declared entities in Cedar's JSON form, checked.
    """
    return {name: state for (kind, name), state in _states(entities).items() if kind == AGENT}


def _states(entities: Sequence[Mapping[str, Any]]) -> Mapping[Uid, AgentState]:
    declared, found = Declared(entities), {}
    for uid, item in declared.entities.items():
        groups = sorted({group for _, group in declared.above(uid)})
        direct = sorted({uid_of(parent)[1] for parent in item.get("parents", ())})
        attributes = rfc8785.dumps(_plain(item.get("attrs", {}))).decode()
        tags = rfc8785.dumps(_plain(item.get("tags", {}))).decode()
        found[uid] = AgentState(tuple(groups), tuple(direct), attributes, tags)
    return found


def _inspected(node: Any) -> Iterator[Uid]:
    """Yield the entities of which more may be asked than which they are."""
    if isinstance(node, list | tuple):
        for each in node:
            yield from _inspected(each)
    elif isinstance(node, Mapping):
        value = node.get("Value")
        if isinstance(value, Mapping) and "__entity" in value:
            yield uid_of(value)
            return
        for operator, given in node.items():
            # The names in a record are no operators, and nothing can be taken out of a set again.
            if operator == "Record":
                yield from (uid for each in given.values() for uid in _inspected(each))
            elif operator == "Set":
                yield from (uid for each in given if not _is_entity(each) for uid in _inspected(each))
            elif operator in ("==", "!="):
                yield from (uid for each in given.values() if not _is_entity(each) for uid in _inspected(each))
            elif operator == "in" and isinstance(given, Mapping) and _is_entity(given.get("right")):
                yield from _inspected(given["left"])
            else:
                yield from _inspected(given)


def _is_entity(node: Any) -> bool:
    value = node.get("Value") if isinstance(node, Mapping) else None
    return isinstance(value, Mapping) and "__entity" in value


def looked_into(
    entities: Sequence[Mapping[str, Any]], policies: Iterable[Mapping[str, Any]]
) -> Mapping[str, AgentState | None]:
    """Return what policies see of agents and groups that they name and look into, whoever asks; None for undeclared.

    ``Agent::"x".trust`` and ``AgentGroup::"x" in AgentGroup::"y"`` are so of every request, or of none.

    Args:
        entities: The declared entities in Cedar's JSON form, checked.
        policies: Policies in Cedar's JSON form.
    """
    wanted = sorted({uid for policy in policies for uid in _inspected(policy.get("conditions", ()))})
    known = _states(entities) if wanted else {}
    return {f"{kind}::{name}": known.get((kind, name)) for kind, name in wanted if kind in (AGENT, _GROUP)}


def classes(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], policies: Sequence[Mapping[str, Any]]
) -> tuple[AgentClass, ...]:
    """Put the agents of two versions into classes.

    Policies see a group only where they name it: no attribute of the schema, and no request, holds one.

    Args:
        old: The declared entities of the old version.
        new: Those of the new one.
        policies: The policies of both, in Cedar's JSON form.
    """
    named = Named.by(policies).entities
    groups = frozenset(name for kind, name in named if kind == _GROUP)
    states = agent_states(old), agent_states(new)
    alike: dict[tuple[object, object, str], list[str]] = {}
    for name in sorted(states[0].keys() | states[1].keys()):
        before, after = (side[name].seen(groups) if name in side else None for side in states)
        # An agent that a policy names is like no other.
        alike.setdefault((before, after, name if (AGENT, name) in named else ""), []).append(name)
    inside = (looked_into(side, policies) for side in (old, new))
    one, two = ({uid: state and state.seen(groups) for uid, state in side.items()} for side in inside)
    # What is so of an entity that a policy looks into is so for everybody.
    return tuple(AgentClass(tuple(ids), before != after or one != two) for (before, after, _), ids in alike.items())


def agent_changes(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> tuple[AgentChange, ...]:
    """Return what changed in ``entities.json``, in words.

    Args:
        old: The declared entities of the old version.
        new: Those of the new one.
    """
    found: list[AgentChange] = []
    before, after = agent_states(old), agent_states(new)
    for name in sorted(before.keys() | after.keys()):
        one, two = before.get(name), after.get(name)
        if one is None and two is not None:
            found.append(AgentChange(name, f"agent {name} is new, in {_groups(two.groups)}"))
        elif two is None and one is not None:
            found.append(AgentChange(name, f"agent {name} is not declared any more: it is denied everything"))
        elif one is not None and two is not None:
            found += [AgentChange(name, f"agent {name}: {told}") for told in _differences(one, two)]
    for kind, name in sorted(_kinds(old) ^ _kinds(new)):
        added = (kind, name) in _kinds(new)
        found.append(AgentChange(name, f"{_word(kind)} {name} is {'new' if added else 'not declared any more'}"))
    groups_old, groups_new = _group_parents(old), _group_parents(new)
    for name in sorted(groups_old.keys() & groups_new.keys()):
        for parent in sorted(groups_new[name] - groups_old[name]):
            found.append(AgentChange(name, f"group {name} was put into group {parent}, with every agent in it"))
        for parent in sorted(groups_old[name] - groups_new[name]):
            found.append(AgentChange(name, f"group {name} was taken out of group {parent}, with every agent in it"))
    return tuple(found)


def changed_entity(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], agents: Sequence[str]
) -> Uid | None:
    """Return what was changed in ``entities.json`` for some agents: one of them, or a group that they are in.

    Args:
        old: The declared entities of the old version.
        new: Those of the new one.
        agents: Ids of the agents.

    Returns:
        An entity of the new version; None when what changed is not in it any more.
    """
    before = {uid_of(item["uid"]): rfc8785.dumps(_plain(item)) for item in old}
    after = {uid_of(item["uid"]): rfc8785.dumps(_plain(item)) for item in new}
    changed = [uid for uid, item in after.items() if before.get(uid) != item]
    states = agent_states(new)
    near = {(AGENT, name) for name in agents}
    above = {(_GROUP, group) for name in agents if name in states for group in states[name].groups}
    return min(changed, key=lambda uid: (uid not in near, uid not in above), default=None)


def _differences(old: AgentState, new: AgentState) -> Iterator[str]:
    for group in sorted(set(new.groups) - set(old.groups)):
        how = "" if group in new.direct else ", through another group"
        yield f"added to group {group}{how}"
    for group in sorted(set(old.groups) - set(new.groups)):
        yield f"no longer in group {group}"
    if old.attributes != new.attributes:
        yield f"attributes {old.attributes} are now {new.attributes}"
    if old.tags != new.tags:
        yield f"tags {old.tags} are now {new.tags}"


def _groups(groups: Sequence[str]) -> str:
    return f"group {', '.join(groups)}" if groups else "no group"


def _kinds(entities: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {uid_of(item["uid"]) for item in entities} - {(AGENT, uid_of(item["uid"])[1]) for item in entities}


def _word(kind: str) -> str:
    return {"AgentGroup": "group", "Tenant": "tenant"}.get(kind.rsplit("::", 1)[-1], kind)


def _group_parents(entities: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    return {
        uid_of(item["uid"])[1]: {uid_of(parent)[1] for parent in item.get("parents", ())}
        for item in entities
        if uid_of(item["uid"])[0] == _GROUP
    }


def _plain(value: Any) -> Any:
    # Cedar takes a reference with and without the escape; both mean the same.
    if isinstance(value, Mapping):
        inner = value.get("__entity")
        if isinstance(inner, Mapping):
            return _plain(inner)
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if type(value) is int else value
