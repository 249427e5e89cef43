"""A bundle at one moment, and at two: what a change lies between."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cedarbox.errors import BundleError
from cedarbox.policy.signing import (
    SIGNATURE_FILE,
    Manifest,
    Signers,
    compare,
    read_envelope,
    read_manifest,
    verify,
)
from cedarbox.review.configured import Configured
from cedarbox.review.finding import Place
from cedarbox.review.linked import checked
from cedarbox.review.stored import entities
from cedarbox.review.subject import Subject, shown

__all__ = ["Pair", "Version", "verified"]


@dataclass(frozen=True)
class Version:
    """One version of a bundle.

    Attributes:
        label: What to call it in a sentence, such as ``main (1f0c5a2b9d3e)``.
        root: What messages call its directory.
        files: The content of each file that decides, by its name; None when there is no bundle there.
        signed_by: Ids of the keys whose signatures were verified, sorted; empty when none was asked for.
        manifest: What was signed; None when no signature was asked for.
        schema: Text of the schema, for plain Cedar; None for a bundle.
        links: For plain Cedar the file with the links of its templates, as messages call it, and its content; None when
            they are not known, which is not the same as none.
        beside: The files that decide nothing and say how a bundle is reviewed: ``lint.toml``, baselines of the linter,
            ``tests/*.yaml`` and ``properties/*.yaml``, by name. None for one that is there and cannot be read.
        settings: What the repository is configured with, where that is part of the comparison.
        notes: What a reader must know of how it was read.
        committed: When it was committed; None for files on disk.
    """

    label: str
    root: Path
    files: Mapping[str, bytes] | None
    signed_by: tuple[str, ...] = ()
    manifest: Manifest | None = None
    schema: str | None = None
    links: tuple[Path, bytes] | None = None
    beside: Mapping[str, bytes | None] = field(default_factory=dict)
    settings: Configured | None = None
    notes: tuple[str, ...] = ()
    committed: datetime | None = None

    def subject(self) -> Subject | None:
        """Parse and check it; None when there is no bundle.

        Raises:
            BundleError: Anything is wrong with it.
        """
        if self.files is None:
            return None
        if self.schema is not None:
            people = entities(self.root / "entities.json", self.files.get("entities.json", b"[]"))
            plain = Subject.of_cedar(self.label, self.root, self.files, schema=self.schema, entities=people)
            return plain if self.links is None else replace(plain, links=checked(*self.links, plain))
        subject = Subject.of_bundle(self.label, self.root, self.files)
        said = None if self.manifest is None else (self.manifest.name, self.manifest.revision)
        if said is not None and subject.bundle is not None and said != (subject.bundle.name, subject.bundle.revision):
            hint = "sign the bundle again with cedarbox policy sign"
            raise BundleError("the signature is about another name or revision", path=self.root, hint=hint)
        return subject


@dataclass(frozen=True, slots=True)
class Pair:
    """A bundle in two versions.

    Attributes:
        bundle: Its path, as it is named to the reader.
        base: How it was.
        head: How it is to be.
    """

    bundle: str
    base: Version
    head: Version

    @property
    def place(self) -> Place:
        """Where to tell what is about no line: the first policies of the new version, ``bundle.toml`` for a bundle."""
        order = sorted(
            self.head.files or (), key=lambda name: (name != "bundle.toml", not name.endswith(".cedar"), name)
        )
        name = next(iter(order), "")
        return Place(shown(self.head.root / name))


def verified(version: Version, signers: Signers | None) -> Version:
    """Verify who signed a version, if that was asked for, and take the signature away from the files that decide.

    Args:
        version: As it was read.
        signers: Whose signatures count; with None none is looked at.

    Raises:
        BundleError: It is not signed by them, or not as it is.
    """
    if version.files is None:
        return version
    files = dict(version.files)
    signature = files.pop(SIGNATURE_FILE, None)
    if signers is None:
        return replace(version, files=files)
    path = version.root / SIGNATURE_FILE
    if signature is None:
        hint = "sign it with cedarbox policy sign"
        raise BundleError(f"{version.label} is not signed: {SIGNATURE_FILE} is missing", path=path, hint=hint)
    # In the order of PolicyBundle.load: nothing of it is parsed before the signatures hold.
    envelope = read_envelope(signature, path)
    signed_by = verify(envelope, signers, path)
    manifest = read_manifest(envelope.payload, path)
    compare(manifest, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, version.root)
    return replace(version, files=files, signed_by=signed_by, manifest=manifest)
