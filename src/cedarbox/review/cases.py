"""The test cases of a policy bundle: ``tests/*.yaml``, one table for each action.

.. code-block:: yaml

    agents:                       # agents that only the tests of this file know, in no group unless it is given
      outsider: {}

    connect:                      # an action of the schema
      defaults: {principal: agent, port: 443, proto: tls}
      allow:
        - {case: the mirror, target: mirror.corp.example, ip: 10.0.0.5, by: mirror-packages}
      deny:
        - {case: the mirror on the internet, target: mirror.corp.example, ip: 203.0.113.7}
        - {case: metadata, target: [169.254.169.254, "[fd00:ec2::254]"], by: mirror-never}
        - {case: a number for a host, target: "0xA9FEA9FE", error: numeric}

A case has the arguments of the builder of its action (see :mod:`cedarbox.policy.actions`), and:

* ``case``: what it is about, in a few words;
* ``principal``: the agent that asks;
* ``by``: the policies that must determine the answer, one or a list. An *allow* needs it. A *deny* without it must be
  determined by no policy, because none permits it;
* ``error``: a *deny* because the request or a policy cannot be evaluated, and a part of what is said then. Without it
  no error may occur.

A list as the value of one argument makes a case of each member. The files decide nothing, so they are not part of the
digest of the bundle. Unknown keys, actions and arguments are refused, and so are values of the wrong type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from cedarbox.errors import BundleError, CanonicalizationError
from cedarbox.policy.actions import ACTION_GROUPS, Action
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.entities import NAMESPACE, Entity
from cedarbox.review.arguments import Argument, Scalar, Value, arguments_of, build
from cedarbox.review.nodes import Entries, YamlFile

__all__ = ["Case", "Suite"]

_OWN: Final = ("case", "principal", "by", "error")
_TRUST: Final = frozenset({"untrusted", "internal", "trusted"})


@dataclass(frozen=True, slots=True)
class Case:
    """One request and the answer it must get.

    Attributes:
        file: The file it stands in.
        line: 1-based line of its first key.
        action: The action of its table.
        title: What it is about.
        principal: The agent that asks.
        request: The request; None when it has no canonical form.
        refusal: Why it has none; empty when it has one.
        allowed: The answer must be *allow*.
        by: Ids of the policies that must determine the answer.
        error: A part of what must be said about an error; None when there must be none.
    """

    file: Path
    line: int
    action: str
    title: str
    principal: str
    request: Action | None
    refusal: str
    allowed: bool
    by: frozenset[str]
    error: str | None


@dataclass(frozen=True, slots=True)
class Suite:
    """A bundle with the cases beside it.

    Attributes:
        bundle: The bundle, with the agents that only the tests know.
        cases: In the order of file names, then of the text.
    """

    bundle: PolicyBundle
    cases: tuple[Case, ...]

    @classmethod
    def load(cls, bundle: PolicyBundle) -> Suite:
        """Read every file of test cases beside a bundle.

        Raises:
            BundleError: There is none, or anything at all is wrong with one; the message names the file and the line.
        """
        cases: list[Case] = []
        agents: dict[str, tuple[Mapping[str, Any], ...]] = {}
        for path in _files(bundle.path / "tests"):
            reader = _Reader(path, bundle, agents)
            cases += reader.cases()
        extra = tuple(entity for entities in agents.values() for entity in entities)
        known = {(entity["uid"]["type"], entity["uid"]["id"]) for entity in bundle.entities}
        unique = {(entity["uid"]["type"], entity["uid"]["id"]): entity for entity in extra}
        added = tuple(entity for uid, entity in unique.items() if uid not in known)
        return cls(replace(bundle, entities=(*bundle.entities, *added)), tuple(cases))


def _files(directory: Path) -> Sequence[Path]:
    hint = "write one table of cases for each action there"
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise BundleError(f"no test cases can be read ({error.strerror})", path=directory, hint=hint) from None
    for entry in entries:
        if entry.suffix == ".yml":
            raise BundleError("only .yaml files are read", path=entry, hint="rename it")
    found = [entry for entry in entries if entry.suffix == ".yaml"]
    if not found:
        raise BundleError("no .yaml file of test cases", path=directory, hint=hint)
    return found


class _Reader(YamlFile):
    """Reads one file of cases."""

    def __init__(self, path: Path, bundle: PolicyBundle, agents: dict[str, tuple[Mapping[str, Any], ...]]) -> None:
        super().__init__(path)
        self._bundle, self._agents = bundle, agents
        self._policies = frozenset(policy.id for policy in bundle.policies)

    def cases(self) -> list[Case]:
        tables = self.mapping(self.root(), "tables by action")
        found: list[Case] = []
        if "agents" in tables:
            self._declare(tables.pop("agents")[1])
        for name, (key, table) in tables.items():
            if name not in ACTION_GROUPS:
                self.fail(key, f"unknown action {name!r}", f"known: agents, {', '.join(ACTION_GROUPS)}")
            found += self._table(name, key, table)
        if not found:
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
            if trust not in _TRUST:
                self.fail(about["trust"][1], f"trust is {trust!r}", f"one of {', '.join(sorted(_TRUST))}")
            entities = _agent(name, groups, tenant, trust)
            if self._agents.setdefault(name, entities) != entities:
                self.fail(key, f"another file declares the agent {name!r} otherwise", "give this one another name")

    def _table(self, action: str, key: yaml.Node, node: yaml.Node) -> Iterator[Case]:
        table = self.mapping(node, "a table with allow, deny or both", known=("defaults", "allow", "deny"))
        defaults: Entries = {}
        if "defaults" in table:
            defaults = self.mapping(table["defaults"][1], "default values", known=("principal", *arguments_of(action)))
            for name, (_, value) in defaults.items():
                known = arguments_of(action).get(name)
                if known is None:
                    self.text(value, "one agent")
                elif len(self._values(known, value)) > 1:
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

    def _case(self, action: str, node: yaml.Node, defaults: Entries, *, allowed: bool) -> Iterator[Case]:
        arguments = arguments_of(action)
        given = self.mapping(node, "a case", known=(*_OWN, *arguments))
        title = self.text(given["case"][1], "a few words") if "case" in given else ""
        by = self._by(given["by"][1]) if "by" in given else frozenset()
        error = self.text(given["error"][1], "a part of the error") if "error" in given else None
        if allowed and not by:
            self.fail(node, "an allow that does not say by which policy", "add by: and the id of the policy")
        if error is not None and (allowed or by):
            self.fail(given["error"][1], "an error is a deny by no policy", "give error: or by:, not both")
        values = {**defaults, **given}
        if "principal" not in values:
            self.fail(node, "no principal", "name the agent that asks, here or in defaults")
        principals = self.texts(values["principal"][1], "an agent or a list of agents")
        lists: dict[str, Sequence[Value]] = {"principal": principals}
        for name, known in arguments.items():
            if name in values:
                lists[name] = self._values(known, values[name][1])
            elif known.required:
                self.fail(node, f"no {name}", f"{action} needs it: {known.expected}")
        varied = [name for name, members in lists.items() if len(members) > 1]
        if len(varied) > 1:
            self.fail(node, f"lists for {' and '.join(varied)}", "vary one argument in a case")
        for number in range(len(lists[varied[0]]) if varied else 1):
            chosen = {name: members[number if name in varied else 0] for name, members in lists.items()}
            principal = str(chosen.pop("principal"))
            told = [f"{name} {_shown(principal if name == 'principal' else chosen[name])}" for name in varied]
            plain = ", ".join(f"{name} {_shown(value)}" for name, value in chosen.items() if name in given)
            request, refusal = self._request(action, node, chosen)
            yield Case(
                file=self.path,
                line=node.start_mark.line + 1,
                action=action,
                title=", ".join([title, *told] if title else [plain or principal]),
                principal=principal,
                request=request,
                refusal=refusal,
                allowed=allowed,
                by=by,
                error=error,
            )

    def _request(self, action: str, node: yaml.Node, values: Mapping[str, Value]) -> tuple[Action | None, str]:
        try:
            return build(action, values), ""
        except CanonicalizationError as error:
            return None, str(error)
        except ValueError as error:
            self.fail(node, str(error), f"this is the table of {action}")

    def _by(self, node: yaml.Node) -> frozenset[str]:
        ids = self.texts(node, "the id of a policy, or a list of ids")
        for policy_id in ids:
            if policy_id not in self._policies:
                self.fail(node, f"no policy has the id {policy_id!r}", "see the @id of the policies")
        return frozenset(ids)

    def _values(self, known: Argument, node: yaml.Node) -> Sequence[Value]:
        """Return the value of an argument as a list of one, or every value of a case that varies it."""
        if known.kind == "words":
            if not isinstance(node, yaml.SequenceNode):
                return ((self.text(node, known.expected),),)
            if all(isinstance(member, yaml.SequenceNode) for member in node.value) and node.value:
                return tuple(self.texts(member, known.expected) for member in node.value)
            return (self.texts(node, known.expected),)
        if not isinstance(node, yaml.SequenceNode):
            return (self._value(known, node),)
        if not node.value:
            self.fail(node, f"{known.name} is an empty list", known.expected)
        return tuple(self._value(known, member) for member in node.value)

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
