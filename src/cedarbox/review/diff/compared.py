"""Two versions, parsed and made ready to be compared; or why they cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cedarbox.errors import BundleError
from cedarbox.review.diff.agents import AgentChange, AgentClass, agent_changes, classes
from cedarbox.review.diff.effects import Effects, digest_of, digests
from cedarbox.review.diff.metadata import MetadataChange, metadata_changes
from cedarbox.review.diff.settings import settings_changes
from cedarbox.review.diff.texts import TextChange, text_changes
from cedarbox.review.kinds import action_groups
from cedarbox.review.prove import Environment, environments
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import schema_json
from cedarbox.review.version import Pair

__all__ = ["Compared", "Incomparable", "compared"]


@dataclass(frozen=True, slots=True)
class Incomparable:
    """A pair of which nothing can be said.

    Attributes:
        pair: The pair.
        why: Why, in one line.
    """

    pair: Pair
    why: str


@dataclass(frozen=True)
class Compared:
    """Two versions that both mean something.

    Attributes:
        pair: Where they come from.
        old: The effects of the old version.
        new: Those of the new one.
        schema: Text of the schema that both are decided with.
        environments: Every kind of request that there is.
        notes: What a reader must know.
        known: The kinds of requests that the old schema had; None for the same as the new.
        unproved: What changed that no search over the policies covers, each with why; it is never taken for safe.
    """

    pair: Pair
    old: Effects
    new: Effects
    schema: str
    environments: tuple[Environment, ...]
    notes: tuple[str, ...] = ()
    known: frozenset[Environment] | None = None
    unproved: tuple[tuple[str, str], ...] = ()

    @property
    def is_bundle(self) -> bool:
        """They are bundles, not plain Cedar."""
        return self.new.is_bundle

    @property
    def name(self) -> str:
        """Name of the bundle, as it was if it was there; for plain Cedar its path.

        With the name that it takes on, what was accepted for the other bundle of that name would count for it.
        """
        for effects in (self.old, self.new):
            if effects.subject is not None and effects.subject.bundle is not None:
                return effects.subject.bundle.name
        return self.pair.bundle

    @cached_property
    def texts(self) -> tuple[TextChange, ...]:
        """What changed in the text of the policies."""
        return text_changes(self.old.policies, self.new.policies)

    @cached_property
    def agent_changes(self) -> tuple[AgentChange, ...]:
        """What changed about the agents."""
        if not self.is_bundle or self.old.subject is None or self.new.subject is None:
            return ()
        return agent_changes(self.old.subject.entities, self.new.subject.entities)

    @cached_property
    def metadata(self) -> tuple[MetadataChange, ...]:
        """What changed in ``bundle.toml``, and in the settings where they are looked at; first what widens."""
        old, new = self.old.subject, self.new.subject
        found = [*metadata_changes(old.bundle if old else None, new.bundle if new else None)]
        found += settings_changes(self.pair.base.settings, self.pair.head.settings)
        return tuple(sorted(found, key=lambda change: (not change.widens, change.file, change.key)))

    @cached_property
    def agents(self) -> tuple[AgentClass, ...]:
        """The classes of agents; none for plain Cedar, where a principal is any of its type."""
        if not self.is_bundle:
            return ()
        subjects = [effects.subject for effects in (self.old, self.new) if effects.subject is not None]
        policies = [policy.est for subject in subjects for policy in subject.policies]
        old, new = (effects.subject.entities if effects.subject else () for effects in (self.old, self.new))
        return classes(old, new, policies)

    @cached_property
    def changed_agents(self) -> tuple[AgentClass, ...]:
        """Those for whom policies see something else than before."""
        return tuple(each for each in self.agents if each.changed)

    def before(self, environment: Environment) -> Effects:
        """Return what decided a kind of request before: nothing, where the old schema had no such requests.

        Args:
            environment: The kind of request.
        """
        if self.known is None or environment in self.known:
            return self.old
        return Effects(None, {}, is_bundle=self.is_bundle)

    def differs(self, environment: Environment) -> bool:
        """Whether the policies that can match a kind of request differ.

        Args:
            environment: The kind of request.
        """
        old, new = self.before(environment).on(environment.action), self.new.on(environment.action)
        return digests(old.values()) != digests(new.values())


def compared(pair: Pair) -> Compared | Incomparable:
    """Parse both versions.

    Args:
        pair: Where they come from.

    Raises:
        BundleError: Anything is wrong with the new version.
    """
    new = pair.head.subject()
    try:
        old = pair.base.subject()
    except BundleError as error:
        return Incomparable(pair, f"the old version cannot be loaded: {error}")
    is_bundle = pair.head.schema is None and pair.base.schema is None
    present = new or old
    if present is None:
        return Incomparable(pair, "there is no bundle, before or after")
    schema, notes, known = present.schema, [], None
    unproved = () if is_bundle else tuple(_unproved(pair, old, new))
    if old is not None and new is not None and old.schema != new.schema:
        schema_before = old.schema
        try:
            old = Subject.of_cedar(old.label, old.root, old.files, schema=new.schema, entities=(), links=old.links)
        except BundleError as error:
            return Incomparable(pair, f"the schema changed, and the old policies do not fit the new one: {error}")
        notes.append("the schema changed: both versions are compared over the new one")
        known = frozenset(environments(schema_json(schema_before)))
    if old is None:
        notes.append(f"{pair.bundle} is new: it is compared with denying everything")
    if new is None:
        notes.append(f"{pair.bundle} is gone: nothing is permitted any more")
    document = schema_json(schema)
    groups = action_groups(document)
    before, after = (Effects(subject, groups, is_bundle=is_bundle) for subject in (old, new))
    return Compared(pair, before, after, schema, environments(document), tuple(notes), known, unproved)


def _unproved(pair: Pair, old: Subject | None, new: Subject | None) -> Iterator[tuple[str, str]]:
    """Yield what decides plain Cedar besides its policies, and is not part of what is searched."""
    if old is not None and new is not None:
        # An action in another group, an attribute that can be absent: old policies mean something else with it.
        for name in sorted(_shared_changes(schema_json(old.schema), schema_json(new.schema))):
            yield f"the change of {name} in the schema", "old and new policies are both read with the new schema"
        # By digest: for Python the attributes 1 and true are equal.
        if digest_of(old.entities) != digest_of(new.entities):
            yield "the change of entities.json", "a search is over all entities that there could be, not over these"
    for version, subject in ((pair.base, old), (pair.head, new)):
        if subject is not None and version.links is None and any(policy.template for policy in subject.policies):
            why = f"the links of {version.label} are not known, and a template decides nothing by itself: see --links"
            yield "what is linked from templates", why


def _shared_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for namespace in old.keys() & new.keys():
        for kind in ("entityTypes", "actions"):
            before, after = old[namespace].get(kind, {}), new[namespace].get(kind, {})
            yield from (name for name in before.keys() & after.keys() if before[name] != after[name])
