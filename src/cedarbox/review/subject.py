"""What is reviewed: policies with the schema and the entities they are about, wherever they came from.

A subject is a cedarbox bundle, or any Cedar policies with a schema of their own. It is whole and type-checks: what does
not is for :mod:`cedarbox.review.check`, which tells everything that is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.reading import read_bundle, utf8_text
from cedarbox.policy.schema import schema_text
from cedarbox.policy.source import Statement, excess, locate, statements
from cedarbox.review.finding import Place

__all__ = ["ReviewedPolicy", "Subject", "shown"]


@dataclass(frozen=True, slots=True)
class ReviewedPolicy:
    """One policy or template.

    Attributes:
        id: Its ``@id``, or ``<file>#<number>`` when it has none; the number counts from 1.
        effect: ``permit`` or ``forbid``.
        annotations: All its annotations.
        file: Name of the file it stands in, relative to the root of the subject.
        place: From its first token, an annotation if it has one, to its semicolon.
        offset: Where it begins in the file, in characters.
        text: Its text.
        est: Cedar's JSON form.
        template: It has slots, and decides nothing until it is linked.
    """

    id: str
    effect: Literal["permit", "forbid"]
    annotations: Mapping[str, str]
    file: str
    place: Place
    offset: int
    text: str
    est: Mapping[str, Any]
    template: bool = False


@dataclass(frozen=True)
class Subject:
    """What is reviewed.

    Attributes:
        label: What to call it: a path, or a path and a revision.
        root: Its directory, as messages name it.
        files: The content of each file that decides, by its name relative to the root: ``.cedar`` files,
            ``entities.json``, ``bundle.toml``; for plain Cedar the schema too.
        schema: Text of the schema.
        policies: In the order of file names, then of the text. Templates are among them.
        links: Template links in Cedar's JSON form; empty for a bundle.
        entities: The declared entities in Cedar's JSON form.
        bundle: The bundle; None for plain Cedar. With a bundle, an error while evaluating denies (see
            :class:`cedarbox.policy.engine.PolicyEngine`); with plain Cedar the policy is skipped, as Cedar does.
    """

    label: str
    root: Path
    files: Mapping[str, bytes]
    schema: str
    policies: tuple[ReviewedPolicy, ...]
    links: tuple[Mapping[str, Any], ...] = ()
    entities: tuple[Mapping[str, Any], ...] = ()
    bundle: PolicyBundle | None = None

    @classmethod
    def load(cls, path: Path | str) -> Subject:
        """Read a cedarbox bundle from a directory. No signature is looked at.

        Raises:
            BundleError: Anything is wrong with it.
        """
        root = Path(path)
        return cls.of_bundle(str(path), root, read_bundle(root, with_signature=False).deciding)

    @classmethod
    def of_bundle(cls, label: str, root: Path, files: Mapping[str, bytes]) -> Subject:
        """Make one of the files of a cedarbox bundle, read from a revision for example.

        Raises:
            BundleError: Anything is wrong with it.
        """
        bundle = PolicyBundle.of_files(root, files)
        # Parsed and checked already, in the same order.
        parsed = iter(policy.est for policy in bundle.policies)
        policies = [
            policy for name in sorted(files) if name.endswith(".cedar") for policy in _read(root, name, files, parsed)
        ]
        return cls(label, root, files, schema_text(), tuple(policies), (), bundle.entities, bundle)

    @classmethod
    def of_cedar(
        cls,
        label: str,
        root: Path,
        files: Mapping[str, bytes],
        *,
        schema: str,
        entities: Sequence[Mapping[str, Any]] = (),
        links: Sequence[Mapping[str, Any]] = (),
    ) -> Subject:
        """Make one of any Cedar policies.

        Args:
            label: What to call it.
            root: Its directory.
            files: As in :attr:`files`.
            schema: Text of the schema, in Cedar's own syntax.
            entities: Entities in Cedar's JSON form.
            links: Template links in Cedar's JSON form.

        Raises:
            BundleError: Anything is wrong with it.
        """
        policies = tuple(
            policy for name in sorted(files) if name.endswith(".cedar") for policy in _read(root, name, files)
        )
        found = cedarpy.validate_policies("\n".join(policy.text for policy in policies), schema)
        for error in () if found.validation_passed else found.errors:
            number = str(error.policy_id or "").removeprefix("policy")
            about = policies[int(number)].place if number.isdigit() and int(number) < len(policies) else None
            message = f"does not fit the schema: {' '.join(str(error.error).split())}"
            raise BundleError(message, path=Path(about.file) if about else root, line=about.line if about else None)
        return cls(label, root, files, schema, policies, tuple(links), tuple(entities))

    @cached_property
    def by_id(self) -> Mapping[str, ReviewedPolicy]:
        """The policies by their ids."""
        return {policy.id: policy for policy in self.policies}

    def text(self, name: str) -> str:
        """Return the text of a file of the subject.

        Args:
            name: A key of :attr:`files`.
        """
        return utf8_text(self.root / name, self.files[name])


def shown(path: Path) -> str:
    """Return a path as a place names it: relative to the working directory where it is below it, with ``/``."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def _read(
    root: Path, name: str, files: Mapping[str, bytes], parsed: Iterator[Mapping[str, Any]] | None = None
) -> list[ReviewedPolicy]:
    path = root / name
    found = []
    for number, statement in enumerate(statements(utf8_text(path, files[name])), start=1):
        est, template = (next(parsed), False) if parsed is not None else _parsed(path, statement)
        annotations = {key: value or "" for key, value in est.get("annotations", {}).items()}
        lines = statement.text.split("\n")
        end_column = len(lines[-1]) + 1 if len(lines) > 1 else statement.column + len(lines[0])
        place = Place(shown(path), statement.line, statement.column, statement.line + len(lines) - 1, end_column)
        found.append(
            ReviewedPolicy(
                id=annotations.get("id") or f"{name}#{number}",
                effect=est["effect"],
                annotations=annotations,
                file=name,
                place=place,
                offset=statement.offset,
                text=statement.text,
                est=est,
                template=template,
            )
        )
    return found


def _parsed(path: Path, statement: Statement) -> tuple[Mapping[str, Any], bool]:
    """Return a statement in Cedar's JSON form, and whether it is a template."""
    if too_deep := excess(statement):
        raise BundleError(too_deep, path=path, line=statement.line, hint="split the policy")
    try:
        document = json.loads(cedarpy.policies_to_json_str(statement.text))
    except ValueError as error:
        message = str(error).splitlines()[0] if str(error) else "not a policy"
        line, column = locate(statement, message)
        raise BundleError(f"not Cedar: {message}", path=path, line=line, column=column) from None
    parts = {**document["staticPolicies"], **document["templates"]}
    return next(iter(parts.values())), bool(document["templates"])
