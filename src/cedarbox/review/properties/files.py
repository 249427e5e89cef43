r"""Property files: ``properties/*.yaml`` beside the policies.

.. code-block:: yaml

    properties:
      - name: nothing untrusted reaches private addresses
        never: agent in AgentGroup::"untrusted" connects to ipClass private

      - name: whoever builds can fetch packages
        always: agent in builders connects to host mirror.corp.example on port 443 with proto tls and ipClass private

      - name: the mirror is of use
        reachable: anyone connects to host mirror.corp.example

      - name: no plain HTTP but to the mirror
        never:
          action: connect
          when: context.proto == Sandbox::Proto::"http"
          unless: resource == Sandbox::Host::"mirror.corp.example"

      - name: no more than the baseline
        implies: ../baseline

      - name: the two exceptions are apart
        disjoint: [mirror-packages, mirror-system-packages]

Each is one of

* ``never``: no such request is allowed; ``always``: every such request is allowed, without an approval;
  ``reachable``: some such request is allowed. A sentence (see :mod:`cedarbox.review.properties.sentences`), or
  ``action`` with ``when``, ``unless`` or both, which are Cedar expressions;
* ``equivalent``, ``implies``, ``disjoint``: with a directory or a revision, about what is allowed by these policies
  and by those: the same, no more than there, nothing in common. With a list of two ids, about what these two match.

The files decide nothing, so they are not part of the digest of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import yaml

from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.finding import Place
from cedarbox.review.nodes import YamlFile
from cedarbox.review.properties.sentences import meaning
from cedarbox.review.subject import shown

__all__ = ["About", "Kind", "Property", "property_files", "read_properties", "sentence_property"]

Kind = Literal["never", "always", "reachable", "equivalent", "implies", "disjoint"]

_RELATIONS: Final = ("equivalent", "implies", "disjoint")
_KINDS: Final[tuple[Kind, ...]] = ("never", "always", "reachable", "equivalent", "implies", "disjoint")


@dataclass(frozen=True, slots=True)
class About:
    """Requests of one action.

    Attributes:
        action: Its id, such as ``connect``.
        when: A Cedar expression that is true of them; empty for all.
        unless: One that is not true of them; empty for none.
    """

    action: str
    when: str = ""
    unless: str = ""

    @property
    def told(self) -> str:
        """The condition as Cedar has it."""
        parts = [f"when {{ {self.when} }}"] * bool(self.when) + [f"unless {{ {self.unless} }}"] * bool(self.unless)
        return " ".join([self.action, *parts])


@dataclass(frozen=True, slots=True)
class Property:
    """One property.

    Attributes:
        name: What it is called.
        kind: What is claimed.
        about: The requests that it is about, for ``never``, ``always`` and ``reachable``.
        approved_too: A call that waits for an approval counts as allowed, for ``never`` and ``reachable``.
        other: What the policies are held against: a directory or revision; empty for two policies.
        policies: The two policies; empty otherwise.
        place: Where it stands; None for one of the command line.
        told: How it was written, in one line.
    """

    name: str
    kind: Kind
    about: tuple[About, ...] = ()
    approved_too: bool = True
    other: str = ""
    policies: tuple[str, ...] = ()
    place: Place | None = field(default=None, compare=False)
    told: str = ""


def property_files(bundle: Path) -> tuple[Path, ...]:
    """Return the property files beside the policies of a bundle, sorted; none when there is no such directory.

    Raises:
        BundleError: The directory cannot be read, or holds a ``.yml`` file.
    """
    directory = bundle / "properties"
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BundleError(f"cannot read it ({error.strerror})", path=directory, hint="check its mode") from None
    for entry in entries:
        if entry.suffix == ".yml":
            raise BundleError("only .yaml files are read", path=entry, hint="rename it")
    return tuple(entry for entry in entries if entry.suffix == ".yaml")


def sentence_property(kind: Kind, sentence: str, *, who: bool = True, name: str = "") -> Property:
    """Make a property of a sentence.

    Args:
        kind: What is claimed.
        sentence: The sentence.
        who: It begins with who does it.
        name: What to call it; the sentence by default.

    Raises:
        ConfigurationError: It is no sentence.
    """
    meant = meaning(sentence, who=who)
    about = tuple(About(action, "" if told == "true" else told) for action, told in meant.conditions.items())
    return Property(name or sentence, kind, about, meant.approved_too, told=f"{kind}: {sentence}")


def read_properties(path: Path, *, actions: Sequence[str] = tuple(ACTION_GROUPS)) -> tuple[Property, ...]:
    """Read a property file.

    Args:
        path: The file.
        actions: The actions that there are.

    Raises:
        BundleError: It cannot be read, or something in it cannot be used; the message names the line.
    """
    return _Reader(path, actions).properties()


class _Reader(YamlFile):
    def __init__(self, path: Path, actions: Sequence[str]) -> None:
        super().__init__(path)
        self._actions = actions

    def properties(self) -> tuple[Property, ...]:
        root = self.root()
        listed = self.mapping(root, "properties", known=("properties",)).get("properties")
        if listed is None or not isinstance(listed[1], yaml.SequenceNode) or not listed[1].value:
            self.fail(root, "no list of properties", "write properties: and below it - name: …")
        found = tuple(self._property(node) for node in listed[1].value)
        seen: dict[str, int] = {}
        for each, node in zip(found, listed[1].value, strict=True):
            if each.name in seen:
                self.fail(node, f"a second property called {each.name!r}", "give each a name of its own")
            seen[each.name] = 1
        return found

    def _property(self, node: yaml.Node) -> Property:
        table = self.mapping(node, "a property", known=("name", *_KINDS))
        kinds = [kind for kind in _KINDS if kind in table]
        if len(kinds) != 1:
            self.fail(node, "a property claims one thing", f"one of {', '.join(_KINDS)}")
        if "name" not in table:
            self.fail(node, "a property without a name", "add name: and a few words")
        kind = kinds[0]
        name, value = self.text(table["name"][1], "a few words"), table[kind][1]
        place = Place(shown(self.path), node.start_mark.line + 1, node.start_mark.column + 1)
        if kind in _RELATIONS:
            return self._relation(name, kind, value, place)
        if isinstance(value, yaml.MappingNode):
            about = self._general(value)
            told = f"{kind}: " + "; ".join(each.told for each in about)
            return Property(name, kind, about, place=place, told=told)
        sentence = self.text(value, "a sentence, or action: with when: or unless:")
        try:
            made = sentence_property(kind, sentence, name=name)
        except ConfigurationError as error:
            self.fail(value, error.message, error.hint)
        return Property(name, kind, made.about, made.approved_too, place=place, told=made.told)

    def _general(self, node: yaml.Node) -> tuple[About, ...]:
        table = self.mapping(node, "requests", known=("action", "when", "unless"))
        if "action" not in table:
            self.fail(node, "no action", f"one or a list of {', '.join(self._actions)}")
        actions = self.texts(table["action"][1], "an action or a list of actions")
        for action in actions:
            if action not in self._actions:
                self.fail(table["action"][1], f"unknown action {action!r}", f"known: {', '.join(self._actions)}")
        given: Mapping[str, str] = {
            name: self.text(table[name][1], "a Cedar expression") for name in ("when", "unless") if name in table
        }
        return tuple(About(action, given.get("when", ""), given.get("unless", "")) for action in actions)

    def _relation(self, name: str, kind: Kind, value: yaml.Node, place: Place) -> Property:
        if isinstance(value, yaml.SequenceNode):
            policies = self.texts(value, "the ids of two policies")
            if len(policies) != 2 or policies[0] == policies[1]:
                self.fail(value, "expected the ids of two policies", f"write {kind}: [one, other]")
            return Property(name, kind, policies=policies, place=place, told=f"{kind}: {' and '.join(policies)}")
        other = self.text(value, "a directory, a revision, or a list of two ids")
        return Property(name, kind, other=other, place=place, told=f"{kind}: {other}")
