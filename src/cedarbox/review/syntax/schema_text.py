"""Parses a schema in Cedar's own syntax into declarations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeVar

from cedarbox.review.syntax.declarations import (
    ActionName,
    Attribute,
    DeclaredAction,
    DeclaredEntity,
    Name,
    Namespace,
    RecordType,
    SetType,
    Type,
)
from cedarbox.review.syntax.strings import unescaped
from cedarbox.review.syntax.tokens import MAX_DEPTH, Span, Tokens

__all__ = ["parse_schema"]

# Cedar 4.12: cedar-policy-core/src/parser/cst_to_ast.rs and validator/json_schema.rs.
_RESERVED: Final = frozenset({"if", "true", "false", "then", "else", "in", "is", "has", "like"})
_NO_COMMON_TYPE: Final = frozenset({"Bool", "Boolean", "Entity", "Extension", "Long", "Record", "Set", "String"})
_OWN: Final = "__cedar"

_Item = TypeVar("_Item")


def parse_schema(text: str) -> dict[str, Namespace]:
    """Parse a schema.

    Args:
        text: In Cedar's own syntax.

    Returns:
        What each namespace declares; the declarations outside of any have the key ``""``.

    Raises:
        ParseError: It is not a schema.
    """
    parser = _Parser(Tokens(text))
    parser.schema()
    return parser.namespaces


class _Parser:
    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.namespaces: dict[str, Namespace] = {}
        self._depth = 0

    def schema(self) -> None:
        tokens = self._tokens
        while tokens.kind != "end":
            self._annotations()
            if tokens.next != "namespace":
                self._declaration(self.namespaces.setdefault("", Namespace()), "`namespace` or ")
                continue
            tokens.advance()
            name = self._path()
            if _OWN in name.text.split("::"):
                tokens.fail(f"`{_OWN}` is reserved", name.span)
            if name.text in self.namespaces:
                tokens.fail(f"the namespace `{name.text}` is declared twice", name.span, hint="put it into one")
            space = self.namespaces[name.text] = Namespace()
            tokens.expect("{", "after the name of the namespace")
            while not tokens.accept("}"):
                self._annotations()
                self._declaration(space, "`}` or ")

    def _declaration(self, space: Namespace, besides: str) -> None:
        tokens = self._tokens
        if tokens.accept("entity"):
            self._entity(space)
        elif tokens.accept("action"):
            self._action(space)
        elif tokens.accept("type"):
            self._common(space)
        else:
            tokens.unexpected(f"{besides}`entity`, `action` or `type`")
        tokens.expect(";", "at the end of the declaration")

    def _annotations(self) -> None:
        tokens = self._tokens
        seen: set[str] = set()
        while tokens.next == "@":
            tokens.advance()
            if tokens.kind != "word":
                tokens.unexpected("the name of an annotation")
            if tokens.next in seen:
                tokens.fail(f"the annotation `@{tokens.next}` is there twice")
            seen.add(tokens.advance())
            if tokens.accept("("):
                unescaped(tokens)
                tokens.expect(")")

    def _entity(self, space: Namespace) -> None:
        tokens = self._tokens
        names = self._listed(self._identifier)
        for name in names:
            if name.text == _OWN:
                tokens.fail(f"`{_OWN}` is reserved", name.span)
            if name.text in space.entities or [other.text for other in names].count(name.text) > 1:
                tokens.fail(f"the entity type `{name.text}` is declared twice", name.span)
        if tokens.accept("enum"):
            tokens.expect("[")
            choices = self._listed(lambda: unescaped(tokens))
            tokens.expect("]", "or `,`")
            declared = DeclaredEntity(choices=tuple(choices))
        else:
            parents = self._types() if tokens.accept("in") else ()
            shape = RecordType()
            if tokens.accept("=") or tokens.next == "{":
                shape = self._record()
            declared = DeclaredEntity(parents, shape, self._type() if tokens.accept("tags") else None)
        for name in names:
            space.entities[name.text] = declared

    def _action(self, space: Namespace) -> None:
        tokens = self._tokens
        names: list[str] = []

        def name() -> str:
            span = tokens.span()
            found = self._name()
            if found in space.actions or found in names:
                tokens.fail(f"the action `{found}` is declared twice", span)
            names.append(found)
            return found

        self._listed(name)
        parents: tuple[ActionName, ...] = ()
        if tokens.accept("in"):
            if tokens.accept("["):
                parents = tuple(self._listed(self._action_name))
                tokens.expect("]", "or `,`")
            else:
                parents = (self._action_name(),)
        declared = DeclaredAction(parents)
        if tokens.accept("appliesTo"):
            declared = self._applies_to(parents)
        if tokens.accept("attributes"):
            tokens.expect("{")
            tokens.expect("}")
        for found in names:
            space.actions[found] = declared

    def _applies_to(self, parents: tuple[ActionName, ...]) -> DeclaredAction:
        tokens = self._tokens
        whole = tokens.span()
        tokens.expect("{", "after `appliesTo`")
        lists: dict[str, tuple[Name, ...]] = {}
        context: Type | None = None
        while True:
            part, span = tokens.next, tokens.span()
            if part not in {"principal", "resource", "context"}:
                tokens.unexpected("`principal`, `resource` or `context`")
            if part in lists or (part == "context" and context is not None):
                tokens.fail(f"`{part}` is there twice", span)
            tokens.advance()
            tokens.expect(":")
            if part == "context":
                context = self._record() if tokens.next == "{" else self._path("common")
            else:
                lists[part] = self._types()
                if not lists[part]:
                    tokens.fail(f"`{part}` is an empty list", span, hint="leave out appliesTo for a group of actions")
            # A comma may be left out at the end only.
            if tokens.accept("}"):
                break
            tokens.expect(",", "or `}`")
            if tokens.accept("}"):
                break
        for part in ("principal", "resource"):
            if part not in lists:
                tokens.fail(f"`appliesTo` has no `{part}`", whole)
        return DeclaredAction(parents, lists["principal"], lists["resource"], context or RecordType())

    def _common(self, space: Namespace) -> None:
        tokens = self._tokens
        name = self._identifier()
        if name.text in _NO_COMMON_TYPE or name.text == _OWN:
            tokens.fail(f"`{name.text}` cannot be the name of a type of your own", name.span)
        if name.text in space.common:
            tokens.fail(f"the type `{name.text}` is declared twice", name.span)
        tokens.expect("=")
        space.common[name.text] = self._type()

    def _type(self) -> Type:
        tokens = self._tokens
        if tokens.next == "{":
            return self._record()
        if tokens.next == "Set" and tokens.ahead() == "<":
            tokens.advance()
            self._deeper()
            tokens.advance()
            element = self._type()
            tokens.expect(">", "after the type of the members")
            self._depth -= 1
            return SetType(element)
        if tokens.kind != "word":
            tokens.unexpected("a type")
        return self._path()

    def _record(self) -> RecordType:
        tokens = self._tokens
        self._deeper()
        tokens.expect("{")
        attributes: dict[str, Attribute] = {}
        while not tokens.accept("}"):
            self._annotations()
            name = self._name()
            required = not tokens.accept("?")
            tokens.expect(":", f"and the type of `{name}`")
            attributes[name] = Attribute(self._type(), required)
            if tokens.next != "}":
                tokens.expect(",", "or `}`")
        self._depth -= 1
        return RecordType(attributes)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._tokens.fail(f"types are nested more than {MAX_DEPTH} deep")

    def _types(self) -> tuple[Name, ...]:
        tokens = self._tokens
        if not tokens.accept("["):
            return (self._path("entity"),)
        if tokens.accept("]"):
            return ()
        found = self._listed(lambda: self._path("entity"))
        tokens.expect("]", "or `,`")
        return tuple(found)

    def _listed(self, read: Callable[[], _Item]) -> list[_Item]:
        found = [read()]
        while self._tokens.accept(","):
            found.append(read())
        return found

    def _identifier(self) -> Name:
        tokens = self._tokens
        if tokens.kind != "word":
            tokens.unexpected("a name")
        span = tokens.span()
        if tokens.next in _RESERVED:
            tokens.fail(f"`{tokens.next}` is reserved")
        return Name(tokens.advance(), span)

    def _path(self, kind: Literal["any", "common", "entity"] = "any") -> Name:
        tokens = self._tokens
        start = tokens.start
        parts = [self._identifier().text]
        while tokens.accept("::"):
            parts.append(self._identifier().text)
        return Name("::".join(parts), Span(start, tokens.end), kind)

    def _name(self) -> str:
        return unescaped(self._tokens) if self._tokens.kind == "text" else self._identifier().text

    def _action_name(self) -> ActionName:
        tokens = self._tokens
        start = tokens.start
        if tokens.kind == "text":
            return ActionName(unescaped(tokens), None, Span(start, tokens.end))
        parts = [self._identifier().text]
        while tokens.accept("::"):
            if tokens.kind == "text":
                return ActionName(unescaped(tokens), "::".join(parts), Span(start, tokens.end))
            parts.append(self._identifier().text)
        if len(parts) > 1:
            tokens.unexpected("`::` and the id of an action in quotes")
        return ActionName(parts[0], None, Span(start, tokens.end))
