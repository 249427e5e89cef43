"""Checks a cedarbox bundle or any Cedar policies, and makes one report of it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cedarpy

from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.reading import read_bundle, utf8_text
from cedarbox.policy.schema import schema_text
from cedarbox.policy.source import statements
from cedarbox.review.check.advice import Advice
from cedarbox.review.check.entities import check_entities
from cedarbox.review.check.metadata import check_metadata, check_tests, told
from cedarbox.review.check.policies import (
    ReadPolicy,
    against_schema,
    bidi_outside,
    duplicates,
    impossible,
    odd_text,
    read_policies,
)
from cedarbox.review.check.rules import RULES, finding
from cedarbox.review.finding import Check, Finding, Place, Report
from cedarbox.review.plain import find_cedar, read_file, read_links, read_schema
from cedarbox.review.reports.parts import counted
from cedarbox.review.subject import shown
from cedarbox.review.syntax import schema_json

__all__ = ["check"]

_PRINCIPALS: Final = ("Tenant", "AgentGroup", "Agent")
_OWN: Final = {"bundle.toml": "C007", "entities.json": "C006"}
_ORDER: Final = {"error": 0, "warning": 1, "note": 2}


@dataclass
class _Found:
    """What was looked at and what was found, as it comes."""

    files: list[str] = field(default_factory=list)
    policies: list[ReadPolicy] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        return any(each.severity == "error" for each in self.findings)

    def text(self, path: Path, data: bytes) -> str | None:
        """Return the text of a file that is looked at; None when it has none."""
        self.files.append(shown(path))
        try:
            return utf8_text(path, data)
        except BundleError as error:
            self.findings.append(told("C001", error))
            return None

    def read(self, path: Path, name: str, data: bytes) -> None:
        """Read the policies of a file."""
        text = self.text(path, data)
        if text is None:
            return
        policies, findings = read_policies(shown(path), name, list(statements(text)))
        self.policies += policies
        self.findings += findings
        if not text.isascii():
            self.findings += bidi_outside(shown(path), text, policies)

    def compare(self, text: str) -> None:
        """Hold the policies against a schema."""
        # With the text of the schema each question would take 8 ms, and there may be many.
        schema = cedarpy.Schema.from_str(text)
        refused = list(against_schema(self.policies, schema, lambda: Advice(schema_json(text))))
        self.findings += refused
        about = {(each.place.file, each.policy) for each in refused if each.place}
        good = [policy for policy in self.policies if (policy.file, policy.id) not in about]
        self.findings += impossible(good, schema)


def check(
    paths: Sequence[Path],
    *,
    schema: Path | None = None,
    entities: Path | None = None,
    links: Path | None = None,
    deny_warnings: bool = False,
) -> Report:
    """Check policies and what belongs to them.

    Args:
        paths: Directories of bundles (they have a ``bundle.toml``) or of any Cedar policies, or ``.cedar`` files.
        schema: The schema of policies that are no bundle; by default it is looked for.
        entities: The same for entities.
        links: Template links, for policies that are no bundle.
        deny_warnings: A warning fails the check too.

    Raises:
        ConfigurationError: A path or a file that was named is not there, or is nothing that can be checked.
    """
    for path in paths:
        _usable(path)
    for name, file in (("--schema", schema), ("--entities", entities), ("--links", links)):
        if file is not None and not file.is_file():
            why = "no regular file" if os.path.lexists(file) else "no such file"
            raise ConfigurationError(f"{name} {shown(file)}: {why}", hint="check the path")
    found = _Found()
    for path in paths:
        is_bundle = os.path.lexists(path / "bundle.toml")
        if schema is None and (entities or links) and is_bundle:
            wrong = f"{shown(path)} is a bundle, with its own entities and without templates"
            raise ConfigurationError(wrong, hint="leave --entities and --links out")
        if schema is None and is_bundle:
            _check_bundle(path, found)
        else:
            _check_cedar(path, found, schema=schema, entities=entities, links=links)
    return _report(paths, found, deny_warnings=deny_warnings)


def _usable(path: Path) -> None:
    hint = "give a bundle, a directory of Cedar policies, or a .cedar file"
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "a path with a NUL"
        raise ConfigurationError(f"{shown(path)}: cannot read it ({why})", hint=hint) from None
    if not stat.S_ISDIR(mode) and path.suffix != ".cedar":
        raise ConfigurationError(f"{shown(path)}: neither a directory nor a .cedar file", hint=hint)


def _check_bundle(root: Path, found: _Found) -> None:
    """Check a cedarbox bundle.

    Args:
        root: Its directory.
        found: What is found is added here.
    """
    try:
        files = read_bundle(root, with_signature=False).deciding
    except BundleError as error:
        found.findings.append(told("C001", error))
        return
    here = _Found()
    for name in sorted(files):
        if name.endswith(".cedar"):
            here.read(root / name, name, files[name])
    for policy in here.policies:
        if policy.template:
            hint = "write one permit or forbid for each principal instead"
            here.findings.append(
                finding("C005", "templates are not supported", policy.place(), policy=policy.id, hint=hint)
            )
        here.findings += odd_text(policy)
        here.findings += _refused(root, policy, files)
    here.findings += duplicates(here.policies)
    here.compare(schema_text())
    if "entities.json" in files:
        text = here.text(root / "entities.json", files["entities.json"])
        if text is not None:
            here.findings += check_entities(shown(root / "entities.json"), text, schema_text(), _no_principal)
    if "bundle.toml" in files:
        here.files.append(shown(root / "bundle.toml"))
        here.findings += check_metadata(root, files["bundle.toml"])
    bundle = None
    try:
        bundle = PolicyBundle.of_files(root, files)
    except BundleError as error:
        # Whatever was not found by itself is told as the loader tells it: what it refuses is never good.
        if not here.wrong:
            here.findings.append(told(_OWN.get(error.path.name, "C005"), error))
    here.findings += check_tests(root, bundle)
    found.files += here.files
    found.policies += here.policies
    found.findings += here.findings


def _no_principal(kind: str) -> str:
    if kind.removeprefix(f"{NAMESPACE}::") in _PRINCIPALS:
        return ""
    return f"only {', '.join(_PRINCIPALS)} are declared, cedarbox derives the rest"


def _refused(root: Path, policy: ReadPolicy, files: Mapping[str, bytes]) -> list[Finding]:
    """Have the loader look at one policy that asks for an approval; the place stays what it is in the file."""
    annotations: Mapping[str, Any] = policy.est.get("annotations") or {}
    if policy.template or not any("approv" in name.lower() for name in annotations):
        return []
    statement = policy.statement
    name = Path(policy.file).name
    alone = "\n" * (statement.line - 1) + " " * (statement.column - 1) + statement.text
    files = {"bundle.toml": files.get("bundle.toml", b""), "entities.json": b"[]", name: alone.encode()}
    try:
        PolicyBundle.of_files(root, files)
    except BundleError as error:
        if error.path.name == name and "does not fit the schema" not in error.message:
            return [told("C005", error)]
    return []


def _check_cedar(
    path: Path, found: _Found, *, schema: Path | None = None, entities: Path | None = None, links: Path | None = None
) -> None:
    """Check Cedar policies that are no bundle.

    Args:
        path: Their directory, or one file.
        found: What is found is added here.
        schema: The schema; by default it is looked for.
        entities: The entities; by default they are looked for.
        links: Template links; none by default.
    """
    try:
        there = find_cedar(path)
    except (BundleError, OSError, ValueError) as error:
        wrong = error if isinstance(error, BundleError) else BundleError("cannot read it", path=path)
        found.findings.append(told("C001", wrong))
        return
    here = _Found()
    if not there.policies:
        here.findings.append(finding("C001", "no .cedar file", Place(shown(path)), hint="check the path"))
    for name in there.policies:
        try:
            here.read(there.root / name, name, read_file(there.root / name))
        except BundleError as error:
            here.findings.append(told("C001", error))
    text = _schema(path, schema or there.schema, [shown(each) for each in there.schemas], here)
    for policy in here.policies:
        here.findings += odd_text(policy)
    if text is not None:
        here.compare(text)
    if entities_file := entities or there.entities:
        try:
            document = here.text(entities_file, read_file(entities_file))
        except BundleError as error:
            here.findings.append(told("C001", error))
        else:
            if document is not None:
                here.findings += check_entities(shown(entities_file), document, text)
    if links is not None:
        here.findings += _links(links, here.policies)
    found.files += here.files
    found.policies += here.policies
    found.findings += here.findings


def _schema(path: Path, file: Path | None, several: Sequence[str], found: _Found) -> str | None:
    if file is None:
        message = f"several schemas: {', '.join(several[:3])}" if several else "no schema"
        hint = "name it with --schema; a bundle of cedarbox has a bundle.toml"
        if (path.parent / "bundle.toml").is_file():
            hint = f"it is in a bundle: check that, {shown(path.parent)}"
        found.findings.append(finding("C009", message, Place(shown(path)), hint=hint))
        return None
    found.files.append(shown(file))
    try:
        return read_schema(file)
    except BundleError as error:
        found.findings.append(told("C009", error))
        return None


def _links(path: Path, policies: Sequence[ReadPolicy]) -> list[Finding]:
    try:
        links = read_links(path)
    except BundleError as error:
        return [told("C014", error)]
    templates = {policy.id: policy.est for policy in policies if policy.template}
    fixed = {policy.id: policy.est for policy in policies if not policy.template}
    findings = []
    taken: list[Mapping[str, Any]] = []
    for number, link in enumerate(links, start=1):
        document = {"staticPolicies": fixed, "templates": templates, "templateLinks": [*taken, link]}
        try:
            cedarpy.PolicySet.from_json_str(json.dumps(document))
        except ValueError as error:
            message = f"link {number}, {link['newId']!r}: {' '.join(str(error).split())}"
            findings.append(finding("C014", message, Place(shown(path)), key=message))
        else:
            taken.append(link)
    return findings


def _report(paths: Sequence[Path], found: _Found, *, deny_warnings: bool) -> Report:
    findings = sorted(
        dict.fromkeys(_Key(each) for each in found.findings),
        key=lambda key: (key.place.file, key.place.line, key.place.column or 0, _ORDER[key.finding.severity]),
    )
    told = [key.finding for key in findings]
    errors = sum(each.severity == "error" for each in told)
    warnings = sum(each.severity == "warning" for each in told)
    wrong = {each.place.file for each in told if each.place and each.severity == "error"}
    files = list(dict.fromkeys(found.files))
    counts = ((errors, "error"), (warnings, "warning"))
    number = len(found.policies)
    summary = f"{number} {'policy' if number == 1 else 'policies'} in {counted(len(files), 'file')}: "
    summary += ", ".join(counted(number, what) for number, what in counts if number) or "nothing wrong"
    return Report(
        command="check",
        subject=", ".join(shown(path) for path in paths),
        summary=summary,
        findings=told,
        # What is wrong with a file is a finding.
        checks=[Check(file, "check", "passed", place=Place(file)) for file in sorted(files) if file not in wrong],
        rules=[RULES[name] for name in sorted({each.rule for each in told})],
        data={"policies": len(found.policies), "files": files, "errors": errors, "warnings": warnings},
        failed=errors > 0 or (deny_warnings and warnings > 0),
    )


class _Key:
    """A finding that is the same as another with the same words at the same place."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.place = finding.place or Place("")

    def __hash__(self) -> int:
        return hash((self.finding.rule, self.finding.message, self.place))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and (self.finding.rule, self.finding.message, self.place) == (
            other.finding.rule,
            other.finding.message,
            other.place,
        )
