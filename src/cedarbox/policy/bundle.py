"""Policy bundles: a directory of ``.cedar`` files and ``entities.json``, read once, checked whole, or refused.

Invariants of a loaded bundle:

* every file was read exactly once, and the digest is over those bytes;
* every policy parses, type-checks against the packaged schema, and has an id of its own;
* ``entities.json`` declares principals only: what a resource is, cedarbox derives.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.source import Statement, excess, locate, statements

__all__ = ["SCHEMA_VERSION", "Policy", "PolicyBundle", "schema_text"]

SCHEMA_VERSION = 1
_MAX_FILE = 4 * 1024 * 1024
# cedarpy looks at every policy of an action for each decision, about 1 µs each, and reckons the ancestors of every
# entity when it loads them: a chain of 4,000 groups takes 15 s (measured on 4.12.2).
_MAX_POLICIES = 10_000
_MAX_ENTITIES = 10_000
_MAX_GROUPS = 1_000
_MAX_GROUP_DEPTH = 16
_PRINCIPAL_TYPES = frozenset({"Tenant", "AgentGroup", "Agent"})
# cedarpy numbers policies in the text it was given; the number means nothing to the reader.
_OWN_NUMBER = re.compile(r"^for policy `policy\d+`[,:] ")
_METADATA_KEYS = frozenset({"name", "revision", "description", "schema", "on_denied_tool"})


def schema_text() -> str:
    """Return the Cedar schema that this version of cedarbox enforces."""
    return resources.files("cedarbox.policy").joinpath("schema.cedarschema").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of a bundle.

    Attributes:
        id: Its ``@id``, or ``<file>#<number>`` when it has none.
        effect: ``permit`` or ``forbid``.
        annotations: All its annotations.
        actions: The actions that its scope can match.
        file: The file it stands in, relative to the bundle.
        line: 1-based line of its first token.
        est: Cedar's JSON form.
    """

    id: str
    effect: Literal["permit", "forbid"]
    annotations: Mapping[str, str]
    actions: frozenset[str]
    file: str
    line: int
    est: Mapping[str, Any]


@dataclass(frozen=True)
class PolicyBundle:
    """A checked policy bundle. Make one with :meth:`load`.

    Attributes:
        path: Where it was read.
        name: From ``bundle.toml``.
        revision: From ``bundle.toml``; 0 when it has none.
        digest: ``sha256:…`` over the names and contents of every file that decides.
        policies: In the order of file names, then of the text.
        entities: The content of ``entities.json``.
        on_denied_tool: What becomes of a tool that a model may not be offered: the turn is an ``error``, or the tool is
            ``remove``d and the turn goes on without it.
    """

    path: Path
    name: str
    revision: int
    digest: str
    policies: tuple[Policy, ...]
    entities: tuple[Mapping[str, Any], ...]
    on_denied_tool: Literal["error", "remove"] = "error"

    @classmethod
    def load(cls, path: Path | str) -> PolicyBundle:
        """Read and check a bundle.

        Raises:
            BundleError: Anything at all is wrong with it; the message names the file and, where known, the line.
        """
        root = Path(path)
        contents = _read_all(root)
        metadata = _metadata(root, contents["bundle.toml"])
        cedar_files = sorted(name for name in contents if name.endswith(".cedar"))
        if not cedar_files:
            raise BundleError(
                "no .cedar file in this bundle", path=root, hint="add policies, or deny all with an empty file"
            )
        policies = [policy for name in cedar_files for policy in _policies(root, name, contents[name])]
        if len(policies) > _MAX_POLICIES:
            raise BundleError(f"more than {_MAX_POLICIES} policies", path=root, hint="split the bundle")
        _refuse_duplicates(root, [policy for policy, _ in policies])
        _validate(root, policies)
        return cls(
            path=root,
            name=metadata["name"],
            revision=metadata.get("revision", 0),
            digest=_digest(contents),
            policies=tuple(policy for policy, _ in policies),
            entities=_entities(root, contents["entities.json"]),
            on_denied_tool=metadata.get("on_denied_tool", "error"),
        )

    @cached_property
    def principals(self) -> frozenset[str]:
        """The ids of the agents that ``entities.json`` declares."""
        return frozenset(item["uid"]["id"] for item in self.entities if item["uid"]["type"] == f"{NAMESPACE}::Agent")


def _read_all(root: Path) -> dict[str, bytes]:
    # A link could change between review and load, or lead out of the bundle, so only regular files count.
    try:
        entries = sorted(root.iterdir())
    except ValueError:
        raise BundleError("a path with a NUL", path=Path("(bundle)"), hint="check the path") from None
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        hint = "check the path, or make a bundle there" if missing else "it must be a directory that this user can read"
        raise BundleError(f"cannot read the policy bundle ({error.strerror})", path=root, hint=hint) from None
    contents = {}
    for entry in entries:
        if entry.suffix != ".cedar" and entry.name not in {"entities.json", "bundle.toml"}:
            continue
        try:
            status = entry.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise BundleError("not a regular file", path=entry, hint="a bundle holds plain files, no links")
            if status.st_size > _MAX_FILE:
                raise BundleError(f"larger than {_MAX_FILE} bytes", path=entry, hint="split it")
            contents[entry.name] = entry.read_bytes()
        except OSError as error:
            raise BundleError(
                f"cannot read it ({error.strerror})", path=entry, hint="check its owner and mode"
            ) from None
    for name, hint in (
        ("bundle.toml", f'write at least: name = "…" and schema = {SCHEMA_VERSION}'),
        ("entities.json", "declare the agents; [] when there are none"),
    ):
        if name not in contents:
            raise BundleError(f"{name} is missing", path=root, hint=hint)
    return contents


def _digest(contents: Mapping[str, bytes]) -> str:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(contents.items())]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BundleError("not UTF-8 text", path=path, line=line, hint="save it as UTF-8") from None


def _metadata(root: Path, data: bytes) -> dict[str, Any]:
    path = root / "bundle.toml"
    try:
        metadata = tomllib.loads(_text(path, data))
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"not TOML: {error}", path=path) from None
    if unknown := sorted(metadata.keys() - _METADATA_KEYS):
        raise BundleError(f"unknown key {unknown[0]!r}", path=path, hint=f"known: {', '.join(sorted(_METADATA_KEYS))}")
    name, revision, schema = metadata.get("name"), metadata.get("revision", 0), metadata.get("schema")
    if not isinstance(name, str) or not name.strip():
        raise BundleError("name must be a non-empty string", path=path)
    if type(revision) is not int or revision < 0:
        raise BundleError("revision must be a whole number, 0 or more", path=path)
    if metadata.get("on_denied_tool", "error") not in {"error", "remove"}:
        raise BundleError('on_denied_tool must be "error" or "remove"', path=path)
    if type(schema) is not int or schema != SCHEMA_VERSION:
        hint = f"this cedarbox enforces schema {SCHEMA_VERSION}"
        raise BundleError(f"schema is {schema!r}, expected {SCHEMA_VERSION}", path=path, hint=hint)
    return metadata


def _policies(root: Path, name: str, data: bytes) -> list[tuple[Policy, Statement]]:
    path = root / name
    parsed = []
    found = list(statements(_text(path, data)))
    if len(found) > _MAX_POLICIES:
        hint = "name many hosts or paths by a domain or a directory above them"
        raise BundleError(f"more than {_MAX_POLICIES} policies", path=path, line=found[_MAX_POLICIES].line, hint=hint)
    for number, statement in enumerate(found, start=1):
        if too_deep := excess(statement):
            raise BundleError(too_deep, path=path, line=statement.line, hint="split the policy")
        try:
            document = _document(cedarpy.policies_to_json_str(statement.text))
        except RecursionError:
            hint = "split the policy, or use a set in place of a chain of conditions"
            raise BundleError("conditions are nested too deeply", path=path, line=statement.line, hint=hint) from None
        except ValueError as error:
            message = str(error).splitlines()[0] if str(error) else "not a policy"
            line, column = locate(statement, message)
            raise BundleError(f"not Cedar: {message}", path=path, line=line, column=column) from None
        if document["templates"] or len(document["staticPolicies"]) != 1:
            hint = "write one permit or forbid for each principal instead"
            raise BundleError("templates are not supported", path=path, line=statement.line, hint=hint)
        est = next(iter(document["staticPolicies"].values()))
        annotations = {key: value or "" for key, value in est.get("annotations", {}).items()}
        policy = Policy(
            id=annotations.get("id") or f"{name}#{number}",
            effect=est["effect"],
            annotations=annotations,
            actions=_scope_actions(path, statement, est["action"]),
            file=name,
            line=statement.line,
            est=est,
        )
        parsed.append((policy, statement))
    return parsed


def _document(text: str) -> dict[str, Any]:
    """Read Cedar's JSON form, and make sure that the engine can make a handle of it: it reads 127 levels, no more."""
    document: dict[str, Any] = json.loads(text)
    try:
        cedarpy.PolicySet.from_json_str(text)
    except ValueError as error:
        raise RecursionError from error
    return document


def _scope_actions(path: Path, statement: Statement, scope: Mapping[str, Any]) -> frozenset[str]:
    if scope["op"] == "All":
        return frozenset(ACTION_GROUPS)
    named: Sequence[Mapping[str, str]] = scope.get("entities") or [scope["entity"]]
    matched: set[str] = set()
    for uid in named:
        hits = {
            action
            for action, group in ACTION_GROUPS.items()
            if uid["type"] == f"{NAMESPACE}::Action" and uid["id"] in {action, group}
        }
        if not hits:
            where = f'{uid["type"]}::"{uid["id"]}"'
            hint = f"known actions: {', '.join(ACTION_GROUPS)}"
            raise BundleError(f"unknown action {where}", path=path, line=statement.line, hint=hint)
        matched |= hits
    return frozenset(matched)


def _refuse_duplicates(root: Path, policies: Sequence[Policy]) -> None:
    seen: dict[str, Policy] = {}
    for policy in policies:
        if first := seen.get(policy.id):
            hint = f"the first is at {first.file}:{first.line}; give each policy an id of its own"
            raise BundleError(
                f"second policy with the id {policy.id!r}", path=root / policy.file, line=policy.line, hint=hint
            )
        seen[policy.id] = policy


def _validate(root: Path, policies: Sequence[tuple[Policy, Statement]]) -> None:
    text = "\n".join(statement.text for _, statement in policies)
    result = cedarpy.validate_policies(text, schema_text())
    if result.validation_passed:
        return
    for error in result.errors:
        number = str(error.policy_id or "").removeprefix("policy")
        if number.isdigit() and int(number) < len(policies):
            policy, statement = policies[int(number)]
            message = _OWN_NUMBER.sub("", str(error.error))
            line, column = locate(statement, message)
            message = f"policy {policy.id!r} does not fit the schema: {message}"
            raise BundleError(message, path=root / policy.file, line=line, column=column)
    raise BundleError("the policies do not fit the schema", path=root)


def _entities(root: Path, data: bytes) -> tuple[Mapping[str, Any], ...]:
    path = root / "entities.json"
    try:
        items = json.loads(_text(path, data))
    except json.JSONDecodeError as error:
        raise BundleError(f"not JSON: {error.msg}", path=path, line=error.lineno, column=error.colno) from None
    except (RecursionError, ValueError):
        raise BundleError("not JSON that can be read: too deep, or a number too long", path=path) from None
    if not isinstance(items, list):
        raise BundleError("expected a list of entities", path=path)
    for number, item in enumerate(items, start=1):
        uid = item.get("uid") if isinstance(item, dict) else None
        if not isinstance(uid, dict) or not isinstance(uid.get("type"), str) or not isinstance(uid.get("id"), str):
            hint = 'each needs "uid": {"type": …, "id": …}, "attrs" and "parents"'
            raise BundleError(f"entity {number} has no uid", path=path, hint=hint)
        if uid["type"].removeprefix(f"{NAMESPACE}::") not in _PRINCIPAL_TYPES:
            hint = f"only {', '.join(sorted(_PRINCIPAL_TYPES))} are declared; cedarbox derives the rest"
            raise BundleError(f"entity {number} is a {uid['type']}", path=path, hint=hint)
    _refuse_large_hierarchy(path, items)
    try:
        cedarpy.Entities.from_json_str(json.dumps(items), cedarpy.Schema.from_str(schema_text()))
    except ValueError as error:
        raise BundleError(f"does not fit the schema: {error}", path=path) from None
    return tuple(items)


def _refuse_large_hierarchy(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    if len(items) > _MAX_ENTITIES:
        raise BundleError(f"more than {_MAX_ENTITIES} entities", path=path, hint="declare the agents that run here")
    above = {
        item["uid"]["id"]: _group_ids(item.get("parents"))
        for item in items
        if item["uid"]["type"] == f"{NAMESPACE}::AgentGroup"
    }
    if len(above) > _MAX_GROUPS:
        raise BundleError(f"more than {_MAX_GROUPS} agent groups", path=path, hint="use fewer groups")
    level, depth = set(above), 0
    while level := {parent for group in level for parent in above.get(group, ())}:
        depth += 1
        if depth > _MAX_GROUP_DEPTH:
            hint = "a group must not be in itself, and groups in groups are for a few levels"
            raise BundleError(f"agent groups are nested more than {_MAX_GROUP_DEPTH} deep", path=path, hint=hint)


def _group_ids(parents: object) -> frozenset[str]:
    # What is malformed here is refused by the schema a moment later.
    uids = (
        [parent.get("__entity", parent) for parent in parents if isinstance(parent, dict)]
        if isinstance(parents, list)
        else []
    )
    return frozenset(uid["id"] for uid in uids if isinstance(uid, dict) and isinstance(uid.get("id"), str))
