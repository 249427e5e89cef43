"""Git repositories of a manifest: what the SDK would clone, in one form, or a refusal.

The SDK builds ``https://{host}/{repo}.git`` as text and gives ``ref`` to git as an argument (agents 0.24,
``entries/artifacts.py``). So a host that ends early, a path that climbs and a ref that is an option are refused here.
Git follows a redirect of the first request; where that leads is for the egress of the sandbox to decide.
"""

from __future__ import annotations

import re
from typing import Final

from agents.sandbox.entries import GitRepo

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, Host, canonical_host

__all__ = ["host_of"]

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_~][A-Za-z0-9_.~+-]{0,254}").fullmatch
# git-check-ref-format(1), without what a shell or an option parser could take for something else.
_REF: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+#/-]{0,254}").fullmatch
_SUBPATH: Final = re.compile(r"[^\\\x00-\x1f\x7f\ud800-\udfff]{0,1024}").fullmatch


def host_of(entry: GitRepo) -> Host | Address:
    """Return the host that a repository is fetched from, over TLS on port 443.

    Raises:
        CanonicalizationError: The host is not a plain host, the repository is not a plain path on it, or the ref or
            the subpath could mean something else.
    """
    if "@" in entry.host:
        # The text may hold a token, which no record may.
        raise CanonicalizationError("the repository host has a user part")
    target = canonical_host(entry.host)
    if isinstance(target, Address) and target.ip.version != 4:
        raise CanonicalizationError(f"the repository host {entry.host[:80]!r} is an IPv6 address")
    if str(target) != entry.host.lower().removesuffix("."):
        # Git would resolve the text itself, and perhaps to another name.
        raise CanonicalizationError(f"the repository host {entry.host[:80]!r} is not spelled as {target}")
    if not all(_SEGMENT(part) for part in entry.repo.split("/")):
        raise CanonicalizationError(f"the repository {entry.repo[:80]!r} is not a plain path such as owner/name")
    if not _REF(entry.ref) or any(part in entry.ref for part in ("..", "//")) or entry.ref.endswith((".lock", "/")):
        raise CanonicalizationError(f"the ref {entry.ref[:80]!r} is not a plain branch, tag or commit")
    below = entry.subpath or ""
    if below.startswith("/") or ".." in below.split("/") or not _SUBPATH(below):
        raise CanonicalizationError(f"the subpath {below[:80]!r} leaves the repository")
    return target
