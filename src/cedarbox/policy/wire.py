"""What of a connection's first bytes the policies see: a request in plain HTTP, and how TLS begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.entities import present

__all__ = ["check_hello", "http_request"]

# RFC 9110 §5.6.2, a token; methods are case-sensitive (§9.1), and no method in use has small letters.
_METHOD: Final = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~-]{1,64}")
# RFC 9110 §7.8: a name, with a version or without.
_UPGRADE: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}(/[a-z0-9!#$%&'*+.^_`|~-]{1,64})?")
_MAX_PATH: Final = 8192  # Characters; RFC 9110 §4.1 recommends that 8000 octets of a URI be supported.


def http_request(proto: str, method: str | None, path: str | None, upgrade: str | None) -> Mapping[str, str] | None:
    """Return a request as the context of ``connect`` holds it; None when there is none.

    Raises:
        CanonicalizationError: The method, the path or the upgrade is not in the form that policies compare.
        ValueError: A part is missing, or it is not HTTP.
    """
    if (method is None) is not (path is None):
        raise ValueError("method and path come together")
    if method is None or path is None:
        if upgrade is not None:
            raise ValueError("upgrade needs a method and a path")
        return None
    if proto != "http":
        raise ValueError(f"a request in plain HTTP is not {proto}")
    if not _METHOD.fullmatch(method):
        raise CanonicalizationError(f"{method[:80]!r} is not a method of HTTP in upper case")
    if upgrade is not None and not _UPGRADE.fullmatch(upgrade):
        raise CanonicalizationError(f"{upgrade[:80]!r} is not one protocol in lower case")
    _check_path(path)
    return present(method=method, path=path, upgrade=upgrade)


def check_hello(proto: str, hello: str | None) -> None:
    """Refuse what no connection is.

    Raises:
        ValueError: ``tls`` with a hello that does not name the target, or a hello in what is no TLS.
    """
    expected = "tls" if hello == "named" else "tcp"
    if hello is not None and proto != expected:
        raise ValueError(f"a connection with the hello {hello} is asked about as {expected}")


def _check_path(path: str) -> None:
    if len(path) > _MAX_PATH:
        raise CanonicalizationError(f"path {path[:80]!r}… has {len(path)} characters")
    if not path.startswith("/"):
        raise CanonicalizationError(f"path {path[:80]!r} does not begin with a slash")
    if any(char < " " or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) <= 0xDFFF for char in path):
        raise CanonicalizationError(f"path {path[:80]!r} has a control character, or is not Unicode")
    if "\\" in path or "?" in path or "#" in path:
        raise CanonicalizationError(f"path {path[:80]!r} has a backslash, a query or a fragment")
    # A server may read each of these as another path. The empty part at the end is the slash of a directory.
    parts = path.split("/")[1:]
    if any(part in {".", ".."} for part in parts) or "" in parts[:-1]:
        raise CanonicalizationError(f"path {path[:80]!r} has an empty part, or one of dots")
