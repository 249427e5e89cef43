"""Reads one file of test cases: what its tables say, and which requests that makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Final

import yaml

from cedarbox.errors import BundleError, CanonicalizationError
from cedarbox.policy.actions import ACTION_GROUPS, Action
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.entities import NAMESPACE, Entity
from cedarbox.policy.schema import enumerations
from cedarbox.review.arguments import Argument, Scalar, Value, arguments_of, build
from cedarbox.review.case import Case
from cedarbox.review.fixtures import FIXTURES_FILE, Fixtures
from cedarbox.review.nodes import Entries, YamlFile
from cedarbox.times import duration_s

__all__ = ["OWN_KEYS", "TableFile"]

OWN_KEYS: Final = ("case", "principal", "by", "error", "approval", "with", "matrix", "rows")
"""The keys of a case that are no arguments of its action."""

_PRINCIPAL: Final = "principal"
_MAX_VARIANTS: Final = 1000
"""Of how many requests one case is at most: nobody could review what ten lists of ten values make."""


@dataclass(frozen=True, slots=True)
class _Expected:
    allowed: bool
    by: frozenset[str]
    error: str | None
    approvers: frozenset[str] | None
    approval_s: int | None


class TableFile(YamlFile):
    """One file of cases.

    Args:
        path: The file.
        bundle: The bundle it stands beside.
        agents: The agents of every file that was read so far, by name; those of this one are added.
    """

    def __init__(self, path: Path, bundle: PolicyBundle, agents: dict[str, tuple[Mapping[str, Any], ...]]) -> None:
        super().__init__(path)
        self._bundle, self._agents = bundle, agents
        self._policies = frozenset(policy.id for policy in bundle.policies)
        self._fixtures = Fixtures()

    @cached_property
    def _tables(self) -> Entries:
        return self.mapping(self.root(), "tables by action")

    def declare_fixtures(self, fixtures: Fixtures) -> None:
        """Put what the file says under ``fixtures`` into ``fixtures``.

        Raises:
            BundleError: The file cannot be read, or one of them cannot be used.
        """
        if "fixtures" in self._tables:
            fixtures.declare(self, self._tables["fixtures"][1])

    def cases(self, fixtures: Fixtures) -> list[Case]:
        """Return the cases of the file.

        Args:
            fixtures: What they can use; those of the file are added unless it is the one that all files share.

        Raises:
            BundleError: Anything is wrong with the file.
        """
        self._fixtures = fixtures
        found: list[Case] = []
        shared = self.path.name == FIXTURES_FILE
        if not shared:
            self.declare_fixtures(fixtures)
        if "agents" in self._tables:
            self._declare(self._tables["agents"][1])
        for name, (key, table) in self._tables.items():
            if name in {"agents", "fixtures"}:
                continue
            if name not in ACTION_GROUPS:
                self.fail(key, f"unknown action {name!r}", f"known: agents, fixtures, {', '.join(ACTION_GROUPS)}")
            found += self._table(name, key, table)
        if not found and not shared:
            raise BundleError("no test case in this file", path=self.path, hint="write one, or remove the file")
        return found

    def _declare(self, node: yaml.Node) -> None:
        for name, (key, given) in self.mapping(node, "agents by name").items():
            if name in self._bundle.principals:
                self.fail(key, f"entities.json declares the agent {name!r}", "give this one another name")
            about = self.mapping(given, "what the agent is, or {}", known=("groups", "tenant", "trust"))
            groups = self.texts(about["groups"][1], "a group or a list of groups") if "groups" in about else ()
            tenant = self.text(about["tenant"][1], "a tenant") if "tenant" in about else "tests"
            trust = self.text(about["trust"][1], "a trust") if "trust" in about else "untrusted"
            if trust not in (known := enumerations()["Trust"]):
                self.fail(about["trust"][1], f"trust is {trust!r}", f"one of {', '.join(sorted(known))}")
            entities = _agent(name, groups, tenant, trust)
            if self._agents.setdefault(name, entities) != entities:
                self.fail(key, f"another file declares the agent {name!r} otherwise", "give this one another name")

    def _table(self, action: str, key: yaml.Node, node: yaml.Node) -> Iterator[Case]:
        table = self.mapping(node, "a table with allow, deny or both", known=("defaults", "allow", "deny"))
        defaults: Mapping[str, yaml.Node] = {}
        if "defaults" in table:
            defaults = self._arguments(action, table["defaults"][1], "default values")
            for name, value in defaults.items():
                if name == _PRINCIPAL:
                    self.text(self._fixtures.plain(self, value), "one agent")
                elif len(self._listed(action, name, value)) > 1:
                    self.fail(value, f"a list as the default of {name}", "lists are for cases")
        if not {"allow", "deny"} & table.keys():
            self.fail(key, f"the table {action!r} has no cases", "list them under allow and deny")
        for answer in ("allow", "deny"):
            if answer not in table:
                continue
            listed = table[answer][1]
            if not isinstance(listed, yaml.SequenceNode) or not listed.value:
                self.fail(listed, f"{answer} must be a list of cases", "write each as - {…}")
            for item in listed.value:
                yield from self._case(action, item, defaults, allowed=answer == "allow")

    def _case(
        self, action: str, node: yaml.Node, defaults: Mapping[str, yaml.Node], *, allowed: bool
    ) -> Iterator[Case]:
        arguments = arguments_of(action)
        given = self.mapping(node, "a case", known=(*OWN_KEYS, *arguments))
        title = self.text(given["case"][1], "a few words") if "case" in given else ""
        expected = self._expected(node, given, allowed=allowed)
        own = {name: value for name, (_, value) in given.items() if name in arguments or name == _PRINCIPAL}
        base = {**defaults, **self._with(action, given), **own}
        for told, varied in self._variants(action, given, own):
            values = {**base, **varied}
            if _PRINCIPAL not in values:
                self.fail(node, "no principal", "name the agent that asks, here or in defaults")
            order = [name for name in (_PRINCIPAL, *arguments) if name in values]
            lists = {name: self._listed(action, name, values[name]) for name in order}
            for name, known in arguments.items():
                if known.required and name not in values:
                    self.fail(node, f"no {name}", f"{action} needs it: {known.expected}")
            many = [name for name, members in lists.items() if len(members) > 1]
            if told is not None and many:
                self.fail(node, f"a list for {many[0]} beside matrix or rows", "vary a case in one way")
            if len(many) > 1:
                hint = "vary one, or try every combination with matrix: {…}"
                self.fail(node, f"lists for {' and '.join(many)}", hint)
            for number in range(len(lists[many[0]]) if many else 1):
                chosen = {name: members[number if name in many else 0] for name, members in lists.items()}
                principal = str(chosen.pop(_PRINCIPAL))
                about = [f"{name} {_shown(principal if name == _PRINCIPAL else chosen[name])}" for name in many]
                about = about if told is None else [told]
                plain = ", ".join(f"{name} {_shown(chosen[name])}" for name in chosen if name in given)
                request, refusal = self._request(action, node, chosen)
                yield Case(
                    file=self.path,
                    line=node.start_mark.line + 1,
                    action=action,
                    title=", ".join([title, *about] if title else about if told else [plain or principal]),
                    principal=principal,
                    request=request,
                    refusal=refusal,
                    allowed=expected.allowed,
                    by=expected.by,
                    error=expected.error,
                    approvers=expected.approvers,
                    approval_s=expected.approval_s,
                )

    def _expected(self, node: yaml.Node, given: Entries, *, allowed: bool) -> _Expected:
        by = self._by(given["by"][1]) if "by" in given else frozenset()
        error = self.text(given["error"][1], "a part of the error") if "error" in given else None
        if allowed and not by:
            self.fail(node, "an allow that does not say by which policy", "add by: and the id of the policy")
        if error is not None and (allowed or by):
            self.fail(given["error"][1], "an error is a deny by no policy", "give error: or by:, not both")
        if "approval" not in given:
            return _Expected(allowed, by, error, None, None)
        if not allowed:
            self.fail(given["approval"][0], "an approval on a deny", "only an allow can wait for one")
        return _Expected(allowed, by, error, *self._approval(given["approval"][1]))

    def _approval(self, node: yaml.Node) -> tuple[frozenset[str], int | None]:
        node = self._fixtures.plain(self, node)
        if isinstance(node, yaml.ScalarNode) and self.scalar(node, "an approver") is None:
            return frozenset(), None
        who, seconds = node, None
        if isinstance(node, yaml.MappingNode):
            about = self.mapping(node, "who approves", known=("approvers", "expires"))
            if "approvers" not in about:
                self.fail(node, "no approvers", "write approvers: and a name or a list of names")
            who = about["approvers"][1]
            if "expires" in about:
                seconds = duration_s(self.text(about["expires"][1], "a duration"))
                if seconds is None:
                    self.fail(about["expires"][1], "expires is no duration", "write it like 10m")
        names = self.texts(who, "an approver, a list of approvers, or null")
        for name in names:
            if name not in self._bundle.approvers:
                known = ", ".join(sorted(self._bundle.approvers)) or "none"
                self.fail(who, f"{name!r} is no declared approver", f"declared in bundle.toml: {known}")
        return frozenset(names), seconds

    def _arguments(self, action: str, node: yaml.Node, expected: str) -> dict[str, yaml.Node]:
        known = (_PRINCIPAL, *arguments_of(action))
        return {name: value for name, (_, value) in self.mapping(node, expected, known=known).items()}

    def _with(self, action: str, given: Entries) -> dict[str, yaml.Node]:
        """Return the arguments of the fixtures that a case is ``with``."""
        if "with" not in given:
            return {}
        node = given["with"][1]
        found: dict[str, yaml.Node] = {}
        for member in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            fixture = self._fixtures.use(self, member)
            arguments = self._arguments(action, fixture, f"a fixture of arguments of {action}")
            if twice := sorted(found.keys() & arguments.keys()):
                self.fail(member, f"two fixtures give {twice[0]}", "keep one")
            found |= arguments
        return found

    def _variants(
        self, action: str, given: Entries, own: Mapping[str, yaml.Node]
    ) -> Iterator[tuple[str | None, Mapping[str, yaml.Node]]]:
        """Yield what each variant of a case is called, and what it gives; one without a name for a plain case."""
        if "matrix" in given and "rows" in given:
            self.fail(given["rows"][0], "rows beside matrix", "vary a case in one way")
        if "matrix" in given:
            yield from self._matrix(action, given["matrix"][1], own)
        elif "rows" in given:
            yield from self._rows(action, given["rows"][1], own)
        else:
            yield None, {}

    def _matrix(
        self, action: str, node: yaml.Node, own: Mapping[str, yaml.Node]
    ) -> Iterator[tuple[str, Mapping[str, yaml.Node]]]:
        axes: list[list[tuple[str, yaml.Node, str]]] = []
        for name, (key, value) in self.mapping(node, "lists by argument").items():
            self._refuse_twice(action, name, key, own)
            plain = self._fixtures.plain(self, value)
            if not isinstance(plain, yaml.SequenceNode):
                self.fail(value, f"{name} is no list", "a matrix tries every combination of its lists")
            axis = []
            for member in self._members(plain):
                members = self._listed(action, name, member)
                if len(members) != 1:
                    self.fail(member, f"a list in the list of {name}", "write its members out")
                axis.append((name, member, f"{name} {_shown(members[0])}"))
            axes.append(axis)
        if not axes:
            self.fail(node, "an empty matrix", "write lists by argument")
        self._refuse_many(node, prod(map(len, axes)))
        for chosen in product(*axes):
            told = ", ".join(text for _, _, text in chosen)
            yield told, {name: member for name, member, _ in chosen}

    def _rows(
        self, action: str, node: yaml.Node, own: Mapping[str, yaml.Node]
    ) -> Iterator[tuple[str, Mapping[str, yaml.Node]]]:
        rows = self.mapping(self._fixtures.plain(self, node), "rows by name")
        if not rows:
            self.fail(node, "no rows", "write name: {…} for each")
        self._refuse_many(node, len(rows))
        for told, (_, row) in rows.items():
            values = self.mapping(row, "the arguments of a row", known=(_PRINCIPAL, *arguments_of(action)))
            for name, (key, _) in values.items():
                self._refuse_twice(action, name, key, own)
            yield told, {name: value for name, (_, value) in values.items()}

    def _refuse_twice(self, action: str, name: str, key: yaml.Node, own: Mapping[str, yaml.Node]) -> None:
        if name != _PRINCIPAL and name not in arguments_of(action):
            self.fail(key, f"unknown key {name!r}", f"known: {_PRINCIPAL}, {', '.join(arguments_of(action))}")
        if name in own:
            self.fail(own[name], f"{name} is given by the case and by what it varies", "keep one")

    def _refuse_many(self, node: yaml.Node, number: int) -> None:
        if number > _MAX_VARIANTS:
            self.fail(node, f"one case makes {number} requests", f"at most {_MAX_VARIANTS}")

    def _request(self, action: str, node: yaml.Node, values: Mapping[str, Value]) -> tuple[Action | None, str]:
        try:
            return build(action, values), ""
        except CanonicalizationError as error:
            return None, str(error)
        except ValueError as error:
            self.fail(node, str(error), f"this is the table of {action}")

    def _by(self, node: yaml.Node) -> frozenset[str]:
        ids = self.texts(self._fixtures.plain(self, node), "the id of a policy, or a list of ids")
        for policy_id in ids:
            if policy_id not in self._policies:
                self.fail(node, f"no policy has the id {policy_id!r}", "see the @id of the policies")
        return frozenset(ids)

    def _members(self, node: yaml.SequenceNode) -> list[yaml.Node]:
        """Return the members of a list, with those of a fixture in its place."""
        found: list[yaml.Node] = []
        for member in node.value:
            plain = self._fixtures.plain(self, member)
            found += plain.value if plain is not member and isinstance(plain, yaml.SequenceNode) else [plain]
        return found

    def _listed(self, action: str, name: str, node: yaml.Node) -> Sequence[Value]:
        """Return the value of an argument as a list of one, or every value of a case that varies it."""
        node = self._fixtures.plain(self, node)
        if name == _PRINCIPAL:
            many = isinstance(node, yaml.SequenceNode)
            members = self._members(node) if isinstance(node, yaml.SequenceNode) else [node]
            if not members:
                self.fail(node, "an empty list", "expected an agent or a list of agents")
            return [self.text(member, "an agent" if many else "an agent or a list of agents") for member in members]
        known = arguments_of(action)[name]
        if known.kind == "words":
            if not isinstance(node, yaml.SequenceNode):
                return ((self.text(node, known.expected),),)
            if all(isinstance(member, yaml.SequenceNode) for member in node.value) and node.value:
                return tuple(self.texts(member, known.expected) for member in node.value)
            return (self.texts(node, known.expected),)
        if not isinstance(node, yaml.SequenceNode):
            return (self._value(known, node),)
        members = self._members(node)
        if not members:
            self.fail(node, f"{known.name} is an empty list", known.expected)
        return tuple(self._value(known, member) for member in members)

    def _value(self, known: Argument, node: yaml.Node) -> Scalar:
        value = self.scalar(node, known.expected)
        fits = {"text": str, "number": int, "truth": bool}[known.kind]
        if value is None:
            if not known.nullable:
                self.fail(node, f"{known.name} is null", f"expected {known.expected}")
        elif type(value) is not fits:
            hint = ", in quotes" if fits is str else ""
            self.fail(node, f"{known.name} is {_shown(value)}", f"expected {known.expected}{hint}")
        elif known.members and value not in known.members:
            self.fail(node, f"{known.name} is {_shown(value)}", f"expected {known.expected}")
        return value


def _shown(value: Value) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    return {True: "true", False: "false", None: "null"}[value] if value is None or type(value) is bool else str(value)


def _agent(name: str, groups: Sequence[str], tenant: str, trust: str) -> tuple[Mapping[str, Any], ...]:
    home = Entity("Tenant", tenant)
    parents = tuple(Entity("AgentGroup", group) for group in groups)
    attrs = {"tenant": home.ref, "trust": Entity("Trust", trust).ref}
    agent = Entity("Agent", name, attrs, parents)
    assert agent.uid["type"].startswith(NAMESPACE)  # noqa: S101 - the engine finds principals by it
    return tuple(entity.to_json() for entity in (agent, home, *parents))
