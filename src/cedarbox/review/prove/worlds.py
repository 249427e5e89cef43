"""What entities are: their attributes, tags and ancestors, when anything that fits the schema may be so.

Every entity that a policy looks into is taken to exist, as Cedar's own symbolic compiler does: a request whose entities
are left out of the store is not looked for. In a bundle cedarbox brings them along; elsewhere it is for the caller.
"""

from __future__ import annotations

from cedarbox.review.prove.payloads import Member, Value
from cedarbox.review.prove.terms import Term
from cedarbox.review.prove.types import EntityOf, RecordOf
from cedarbox.review.prove.values import Values

__all__ = ["World", "attribute_name", "tag_name"]


def attribute_name(entity_type: str, attribute: str) -> str:
    """Return the name of the function that gives an attribute of the entities of a type.

    A part of the request has a name with a dot where this has an exclamation mark.
    """
    return f"{entity_type}!{attribute}"


def tag_name(entity_type: str) -> str:
    """Return the name of the function that gives the tags of entities of a type; with ``?``, whether there is one."""
    return f"{entity_type}#"


class World:
    """Entities of which only the schema is known.

    Attributes:
        values: Makes the values.
    """

    def __init__(self, values: Values) -> None:
        self.values = values

    def attribute(self, entity_type: str, entity: Term, name: str) -> Member | None:
        """Return an attribute of an entity; None when no entity of the type has it."""
        known = self.values.types.entities.get(entity_type)
        given = known.attributes.get(name) if known else None
        if given is None:
            return None
        function = attribute_name(entity_type, name)
        payload = self.values.unknown(given.type, function, (entity,))
        terms = self.values.terms
        present = terms.true if given.required else terms.app(f"{function}?", (entity,), "Bool")
        return Member(given.type, payload, present)

    def tag(self, entity_type: str, entity: Term, key: Term) -> Member | None:
        """Return a tag of an entity; None when no entity of the type has tags."""
        known = self.values.types.entities.get(entity_type)
        if known is None or known.tags is None:
            return None
        name = tag_name(entity_type)
        payload = self.values.unknown(known.tags, name, (entity, key))
        return Member(known.tags, payload, self.values.terms.app(f"{name}?", (entity, key), "Bool"))

    def ancestor(self, below: str, x: Term, above: str, y: Term) -> Term:
        """Return whether an entity is a proper ancestor of another; see :meth:`Terms.anc`."""
        if not self.values.types.may_be_below(below, above):
            return self.values.terms.false
        return self.values.terms.anc(below, x, above, y)

    def within(self, below: str, x: Term, above: str, y: Term) -> Term:
        """Return whether an entity is another one, or has it as an ancestor."""
        kinds = EntityOf(below), EntityOf(above)
        same = self.values.equal(kinds[0], x, kinds[1], y)
        return self.values.terms.or_(same, self.ancestor(below, x, above, y))

    def variable(self, name: str, entity_type: str) -> Value:
        """Return the principal or the resource."""
        return Value(EntityOf(entity_type), self.values.unknown(EntityOf(entity_type), name), self.values.terms.false)

    def context(self, kind: RecordOf) -> Value:
        """Return the context."""
        return Value(kind, self.values.unknown(kind, "context"), self.values.terms.false)
