"""Loads any Cedar policies with a schema of their own, whatever project they are from.

The schema, the entities and the template links are found by their names where only one file can be meant.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.policy.reading import utf8_text
from cedarbox.review.limited import limited_bytes
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import ParseError, schema_json
from cedarbox.review.syntax.expressions import Expressions
from cedarbox.review.syntax.schema import is_json
from cedarbox.review.syntax.tokens import Tokens

__all__ = ["CedarFiles", "find_cedar", "links_of", "load_cedar", "read_file", "read_links", "read_schema", "schema_of"]

_MAX_FILE: Final = 16 * 1024 * 1024
_MAX_FILES: Final = 10_000
_SCHEMAS: Final = (".cedarschema", ".cedarschema.json")


@dataclass(frozen=True, slots=True)
class CedarFiles:
    """The files of a directory of Cedar policies.

    Attributes:
        root: The directory.
        policies: The ``.cedar`` files, relative to the root, sorted.
        schema: The schema; None when there is none, or no single one.
        entities: The entities; None when there are none, or no single file.
        schemas: Every file that could be the schema.
    """

    root: Path
    policies: tuple[str, ...]
    schema: Path | None
    entities: Path | None
    schemas: tuple[Path, ...] = ()


def find_cedar(path: Path) -> CedarFiles:
    """Look for policies, a schema and entities in a directory and those below it, or for what stands beside one file.

    Neither links to directories nor hidden directories are followed.

    Args:
        path: A directory, or one ``.cedar`` file.

    Raises:
        BundleError: It cannot be read, or holds too many files.
    """
    if path.is_file() and path.suffix == ".cedar":
        root, found = path.parent, [path.name]
        beside = sorted(name.name for name in root.iterdir() if name.is_file())
    else:
        root, beside = path, _below(path)
        found = [name for name in beside if name.endswith(".cedar")]
    schemas = [name for name in beside if name.endswith(_SCHEMAS) or name.rsplit("/", 1)[-1] == "schema.json"]
    # The same schema may be there in both forms; Cedar's own syntax has the places.
    own = [name for name in schemas if name.endswith(".cedarschema")] or schemas
    entities = [name for name in beside if name.rsplit("/", 1)[-1] == "entities.json"]
    entities = entities or [name for name in beside if name.endswith("entities.json")]
    return CedarFiles(
        root,
        tuple(found),
        root / own[0] if len(own) == 1 else None,
        root / entities[0] if len(entities) == 1 else None,
        tuple(root / name for name in own),
    )


def _below(root: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise BundleError(f"cannot read it ({error.strerror})", path=root, hint="check the path and its mode") from None

    found: list[str] = []
    for directory, names, files in os.walk(root, onerror=fail):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(directory, name).relative_to(root).as_posix() for name in files]
        if len(found) > _MAX_FILES:
            raise BundleError(f"more than {_MAX_FILES} files", path=root, hint="give the directory of the policies")
    return sorted(found)


def load_cedar(
    path: Path | str, *, schema: Path | None = None, entities: Path | None = None, links: Path | None = None
) -> Subject:
    """Read Cedar policies that are no cedarbox bundle.

    Args:
        path: A directory, searched with those below it, or one ``.cedar`` file.
        schema: Their schema, in Cedar's own syntax or in JSON; by default the one ``.cedarschema`` or ``schema.json``.
        entities: Their entities, in JSON; by default the one ``entities.json``, none when there is none.
        links: Their template links, in JSON: ``[{"templateId", "newId", "values"}]``, as in Cedar's JSON form of policy
            sets, or ``[{"template_id", "link_id", "args"}]``, as the program ``cedar`` has them.

    Raises:
        BundleError: Anything is wrong with them; the message names the file and, where known, the line.
    """
    found = find_cedar(Path(path))
    if not found.policies:
        raise BundleError("no .cedar file", path=found.root, hint="check the path")
    schema_file = schema or found.schema
    if schema_file is None:
        many = ", ".join(str(name) for name in found.schemas[:3])
        message = f"several schemas: {many}" if many else "no schema: no .cedarschema and no schema.json"
        raise BundleError(message, path=found.root, hint="name it with --schema")
    files = {name: read_file(found.root / name) for name in found.policies}
    text = read_schema(schema_file)
    files[_name(found.root, schema_file)] = text.encode()
    document: Sequence[Mapping[str, Any]] = ()
    if entities_file := entities or found.entities:
        data = read_file(entities_file)
        files[_name(found.root, entities_file)] = data
        document = _entities(entities_file, data, text)
    linked = read_links(links) if links else ()
    return Subject.of_cedar(str(path), found.root, files, schema=text, entities=document, links=linked)


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        BundleError: It cannot be read, is no plain file or too large.
    """
    return limited_bytes(path, _MAX_FILE, hint="split it")


def read_schema(path: Path) -> str:
    """Return a schema in Cedar's own syntax.

    Args:
        path: It, or one in Cedar's JSON form.

    Raises:
        BundleError: It cannot be read or is none; the message names the line and the column.
    """
    text = schema_of(path, read_file(path))
    return str(cedarpy.Schema.from_json_str(text)) if is_json(text) else text


def schema_of(path: Path, data: bytes) -> str:
    """Return the text of a schema, in the form that it has.

    Args:
        path: What to call it.
        data: The content of its file.

    Raises:
        BundleError: It is none; the message names the line and the column.
    """
    text = utf8_text(path, data)
    try:
        schema_json(text)
    except ParseError as error:
        message = f"not a schema: {error.said}"
        raise BundleError(message, path=path, line=error.line, column=error.column, hint=error.hint) from None
    return text


def _entities(path: Path, data: bytes, schema: str) -> tuple[Mapping[str, Any], ...]:
    items = _json(path, data)
    try:
        cedarpy.Entities.from_json_str(json.dumps(items), cedarpy.Schema.from_str(schema))
    except ValueError as error:
        hint = "cedarbox policy check names each entity that does not, and why"
        raise BundleError(f"does not fit the schema: {error}", path=path, hint=hint) from None
    return tuple(items)


def read_links(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return template links in Cedar's JSON form.

    Args:
        path: A file with them, in one of the forms that :func:`load_cedar` takes.

    Raises:
        BundleError: It cannot be read, or has another form.
    """
    return links_of(path, read_file(path))


def links_of(path: Path, data: bytes) -> tuple[Mapping[str, Any], ...]:
    """Return template links in Cedar's JSON form from the content of a file.

    Args:
        path: What messages call it.
        data: Its content, in one of the forms that :func:`load_cedar` takes.

    Raises:
        BundleError: It has another form.
    """
    items = _json(path, data)
    if isinstance(items, dict):
        items = items.get("templateLinks", items)
    if not isinstance(items, list):
        raise BundleError("expected a list of template links", path=path)
    return tuple(_link(path, number, item) for number, item in enumerate(items, start=1))


def _link(path: Path, number: int, item: object) -> Mapping[str, Any]:
    hint = 'each needs "templateId", "newId" and "values"'
    if not isinstance(item, dict):
        raise BundleError(f"link {number} is no object", path=path, hint=hint)
    template = item.get("templateId", item.get("template_id"))
    name = item.get("newId", item.get("link_id"))
    values = item.get("values", item.get("args"))
    if not isinstance(template, str) or not isinstance(name, str) or not isinstance(values, dict):
        raise BundleError(f"link {number} is incomplete", path=path, hint=hint)
    return {
        "templateId": template,
        "newId": name,
        "values": {slot: _uid(path, number, value) for slot, value in values.items()},
    }


def _uid(path: Path, number: int, value: object) -> Mapping[str, str]:
    if isinstance(value, dict):
        value = value.get("__entity", value)
    if isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("id"), str):
        return {"type": value["type"], "id": value["id"]}
    if isinstance(value, str):
        try:
            uid: Mapping[str, str] = Expressions(Tokens(value)).entity("an entity")["Value"]["__entity"]
        except ParseError as error:
            raise BundleError(f"link {number}: {error.said}", path=path) from None
        return {"type": uid["type"], "id": uid["id"]}
    raise BundleError(f"link {number} has a value that is no entity", path=path, hint='write {"type": …, "id": …}')


def _json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(utf8_text(path, data))
    except json.JSONDecodeError as error:
        raise BundleError(f"not JSON: {error.msg}", path=path, line=error.lineno, column=error.colno) from None
    except (RecursionError, ValueError):
        raise BundleError("not JSON that can be read: too deep, or a number too long", path=path) from None


def _name(root: Path, path: Path) -> str:
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.as_posix()
