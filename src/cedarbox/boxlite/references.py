"""Image references, brought into one spelling.

The grammar and the defaults are those of distribution/reference and of Docker: a name without a registry is on
``docker.io``, one without a directory there is below ``library/``, and one without a tag or digest means ``latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cedarbox.errors import ImageError

__all__ = ["DIGEST", "Reference", "parse_reference"]

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
"""The only form of digest that is taken."""

_DEFAULT_REGISTRY = "docker.io"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"(?:(?P<registry>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?)/)?"
    rf"(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference in parts.

    Attributes:
        registry: Host and port of the registry.
        path: The path there.
        tag: The tag; ``None`` when only a digest is given.
        digest: ``sha256:…``, or ``None`` when the reference is not pinned.
    """

    registry: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    @property
    def name(self) -> str:
        """The canonical name without the digest: ``docker.io/library/python:3.12-slim``."""
        return self.repository if self.tag is None else f"{self.repository}:{self.tag}"

    @property
    def short(self) -> str:
        """The name as people write it: ``python:3.12-slim``."""
        return self.name.removeprefix(f"{_DEFAULT_REGISTRY}/").removeprefix("library/")

    def __str__(self) -> str:
        return self.name if self.digest is None else f"{self.name}@{self.digest}"


def parse_reference(text: str) -> Reference:
    """Read an image reference.

    Args:
        text: The reference, with or without registry, tag and digest.

    Returns:
        Its canonical form.

    Raises:
        ImageError: It is not a reference.
    """
    found = _REFERENCE.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if found is None:
        raise ImageError(
            f"image: {text!r} is not an image reference", hint="write it like mirror.corp.example/python:3.12-slim"
        )
    registry, path = found["registry"], found["path"]
    if registry is not None and not ("." in registry or ":" in registry or registry == "localhost"):
        # Docker's rule: a first part that cannot be a host belongs to the path.
        if not re.fullmatch(_PART, registry):
            raise ImageError(f"image: {text!r} is not an image reference", hint="write the repository in lower case")
        registry, path = None, f"{registry}/{path}"
    if registry is not None:
        # Policies compare text, and a host has no capitals.
        registry, colon, port = registry.lower().partition(":")
        if colon and (port.startswith("0") or port == "443" or int(port) > 65535):
            raise ImageError(
                f"image: the port of {text!r} cannot be used", hint="leave 443 out, and write others without zeros"
            )
        registry += colon + port
    if registry in (None, "index.docker.io"):
        registry = _DEFAULT_REGISTRY
    if registry == _DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    tag = found["tag"] or (None if found["digest"] else "latest")
    return Reference(registry, path, tag, found["digest"])
