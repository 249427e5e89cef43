"""Policy bundles: a directory of ``.cedar`` files and ``entities.json``, read once, checked whole, or refused.

Invariants of a loaded bundle:

* every file was read exactly once, all had been there at one moment, and digest and signatures are over those bytes;
* every policy parses, type-checks against the packaged schema, and has an id of its own;
* ``entities.json`` declares principals only: what a resource is, cedarbox derives.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.policy.approval import check_approval, declared_approvers
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.principals import declared_principals
from cedarbox.policy.reading import BundleFiles, read_bundle, utf8_text
from cedarbox.policy.request import ACTION_GROUPS
from cedarbox.policy.schema import SCHEMA_VERSION, packaged_schema
from cedarbox.policy.signing import SIGNATURE_FILE, Manifest, Signers, compare, read_envelope, read_manifest, verify
from cedarbox.policy.source import Statement, excess, locate, statements

__all__ = ["Policy", "PolicyBundle"]

_MAX_NAME = 100
_MAX_REVISION = 2**53 - 1  # what JSON can tell in a signature
# cedarpy looks at every policy of an action for each decision, about 1 µs each (measured on 4.12.2).
_MAX_POLICIES = 10_000
# cedarpy numbers policies in the text it was given; the number means nothing to the reader.
_OWN_NUMBER = re.compile(r"^for policy `policy\d+`[,:] ")
_METADATA_KEYS = frozenset({"name", "revision", "description", "schema", "on_denied_tool", "approvers"})


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
        files: SHA-256 in hex of every file that decides, by its name.
        signed_by: Ids of the trusted keys whose signatures were verified, sorted; empty when none was asked for.
        expires: From when on the bundle must not decide any more, in UTC; None for never, or when no signature was
            verified. See :meth:`check_current`.
        approvers: Base64 of the Ed25519 public key of each approver, by name; from ``bundle.toml``.
    """

    path: Path
    name: str
    revision: int
    digest: str
    policies: tuple[Policy, ...]
    entities: tuple[Mapping[str, Any], ...]
    on_denied_tool: Literal["error", "remove"] = "error"
    files: Mapping[str, str] = field(default_factory=dict)
    signed_by: tuple[str, ...] = ()
    expires: datetime | None = None
    approvers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str, *, signers: Signers | None = None, signature_required: bool = True) -> PolicyBundle:
        """Read and check a bundle.

        Whether it has expired or was rolled back is for :func:`cedarbox.policy.trust.load`, which calls this.

        Args:
            path: Its directory, or a link to it.
            signers: Whose signatures count; with None a signature file is not looked at.
            signature_required: With ``signers``: refuse a bundle without a signature file. One that is there is
                verified in either case.

        Raises:
            BundleError: Anything at all is wrong with it; the message names the file and, where known, the line.
        """
        root = Path(path)
        # 1. Read everything once, as it was at one moment. Nothing is read again after this.
        read = read_bundle(root, with_signature=signers is not None)
        contents = _with_the_needed(root, read)
        files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        # 2. to 5. come before anything of the bundle reaches a parser of policies.
        manifest, signed_by = (None, ()) if signers is None else _signed(root, read, files, signers, signature_required)
        return cls._checked(root, contents, files, manifest, signed_by)

    @classmethod
    def of_files(cls, root: Path, contents: Mapping[str, bytes]) -> PolicyBundle:
        """Check a bundle whose files were read already, from a revision of a repository for example.

        Args:
            root: What messages call its directory.
            contents: The content of each file that decides, by its name. No signature is looked at.

        Raises:
            BundleError: As for :meth:`load`.
        """
        contents = _with_the_needed(root, BundleFiles(contents, None))
        files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        return cls._checked(root, contents, files, None, ())

    @classmethod
    def _checked(
        cls,
        root: Path,
        contents: Mapping[str, bytes],
        files: Mapping[str, str],
        manifest: Manifest | None,
        signed_by: tuple[str, ...],
    ) -> PolicyBundle:
        # 6. Parse the metadata; what the signature says of it must be so.
        metadata = _metadata(root, contents["bundle.toml"])
        if manifest is not None:
            _agree(root, manifest, metadata)
        # 7. Parse the policies, and check them and the entities against the schema.
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
        approvers = metadata.get("approvers", {})
        for policy, statement in policies:
            check_approval(root / policy.file, policy, statement, approvers)
        return cls(
            path=root,
            name=metadata["name"],
            revision=metadata.get("revision", 0),
            digest=_digest(files),
            policies=tuple(policy for policy, _ in policies),
            entities=declared_principals(root / "entities.json", contents["entities.json"]),
            on_denied_tool=metadata.get("on_denied_tool", "error"),
            files=files,
            signed_by=signed_by,
            expires=None if manifest is None else manifest.expires,
            approvers=approvers,
        )

    def check_current(self, now: datetime) -> None:
        """Make sure that the bundle has not expired. A bundle can expire while it is in force.

        Args:
            now: The time, with its zone.

        Raises:
            BundleError: It has expired.
        """
        if self.expires is not None and now >= self.expires:
            when = self.expires.strftime("%Y-%m-%d %H:%M:%SZ")
            hint = "put a newer bundle in place, or have this one signed again"
            raise BundleError(f"the signature of the bundle expired at {when}", path=self.path, hint=hint)

    @cached_property
    def principals(self) -> frozenset[str]:
        """The ids of the agents that ``entities.json`` declares."""
        return frozenset(item["uid"]["id"] for item in self.entities if item["uid"]["type"] == f"{NAMESPACE}::Agent")


def _with_the_needed(root: Path, read: BundleFiles) -> Mapping[str, bytes]:
    for name, hint in (
        ("bundle.toml", f'write at least: name = "…" and schema = {SCHEMA_VERSION}'),
        ("entities.json", "declare the agents; [] when there are none"),
    ):
        if name not in read.deciding:
            raise BundleError(f"{name} is missing", path=root, hint=hint)
    return read.deciding


def _signed(
    root: Path, read: BundleFiles, files: Mapping[str, str], signers: Signers, required: bool
) -> tuple[Manifest | None, tuple[str, ...]]:
    path = root / SIGNATURE_FILE
    if read.signature is None:
        if required:
            hint = "sign it with cedarbox policy sign"
            raise BundleError(f"the bundle is not signed: {SIGNATURE_FILE} is missing", path=root, hint=hint)
        return None, ()
    # 2. Parse the envelope, strictly: it is not trusted yet.
    envelope = read_envelope(read.signature, path)
    # 3. Verify who signed the bytes of the payload, before they are parsed.
    signed_by = verify(envelope, signers, path)
    # 4. Parse the payload, strictly.
    manifest = read_manifest(envelope.payload, path)
    # 5. Every file that decides is in the manifest, with the digest of the bytes that were read, and no other is.
    compare(manifest, files, root)
    return manifest, signed_by


def _agree(root: Path, manifest: Manifest, metadata: Mapping[str, Any]) -> None:
    said = (manifest.name, manifest.revision, manifest.schema)
    if said != (metadata["name"], metadata.get("revision", 0), metadata["schema"]):
        hint = "sign the bundle again with cedarbox policy sign"
        raise BundleError(
            "the signature is about another name, revision or schema", path=root / "bundle.toml", hint=hint
        )


def _digest(files: Mapping[str, str]) -> str:
    # No file name holds a line feed, see reading.py, so each text has one meaning.
    lines = [f"{digest}  {name}\n" for name, digest in sorted(files.items())]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _metadata(root: Path, data: bytes) -> dict[str, Any]:
    path = root / "bundle.toml"
    try:
        metadata = tomllib.loads(utf8_text(path, data))
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"not TOML: {error}", path=path) from None
    if unknown := sorted(metadata.keys() - _METADATA_KEYS):
        raise BundleError(f"unknown key {unknown[0]!r}", path=path, hint=f"known: {', '.join(sorted(_METADATA_KEYS))}")
    name, revision, schema = metadata.get("name"), metadata.get("revision", 0), metadata.get("schema")
    # It stands in messages, records and the state file.
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
        raise BundleError(f"name must be one line of text, {_MAX_NAME} characters at most", path=path)
    if not isinstance(metadata.get("description", ""), str):
        raise BundleError("description must be text", path=path)
    if type(revision) is not int or not 0 <= revision <= _MAX_REVISION:
        raise BundleError("revision must be a whole number from 0 to 2**53 - 1", path=path)
    if metadata.get("on_denied_tool", "error") not in ("error", "remove"):
        raise BundleError('on_denied_tool must be "error" or "remove"', path=path)
    if type(schema) is not int or schema != SCHEMA_VERSION:
        hint = f"this cedarbox enforces schema {SCHEMA_VERSION}"
        raise BundleError(f"schema is {schema!r}, expected {SCHEMA_VERSION}", path=path, hint=hint)
    metadata["approvers"] = declared_approvers(path, utf8_text(path, data), metadata.get("approvers"))
    return metadata


def _policies(root: Path, name: str, data: bytes) -> list[tuple[Policy, Statement]]:
    path = root / name
    parsed = []
    found = list(statements(utf8_text(path, data)))
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
    # An empty list is Cedar too: it matches nothing.
    named: Sequence[Mapping[str, str]] = scope["entities"] if "entities" in scope else [scope["entity"]]
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
    result = cedarpy.validate_policies(text, packaged_schema())
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
