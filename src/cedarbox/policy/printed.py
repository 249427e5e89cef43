"""An entity in the very spelling that Cedar itself prints it in: which characters it escapes is for Cedar to say."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import cedarpy
import orjson

__all__ = ["printed_uid"]

_PRINTED: Final = re.compile(r"permit\(principal == (.*), action, resource\);", re.DOTALL)


@lru_cache(maxsize=1024)
def printed_uid(kind: str, name: str) -> str:
    """Return an entity as Cedar prints it. Partial evaluation, and ``cedar run-tests``, take no other spelling.

    Args:
        kind: Its qualified type.
        name: Its id.

    Raises:
        ValueError: Cedar prints it in a way that is not understood.
    """
    scope = {"op": "All"}
    policy: dict[str, Any] = {"effect": "permit", "action": scope, "resource": scope, "conditions": []}
    policy["principal"] = {"op": "==", "entity": {"type": kind, "id": name}}
    document = {"staticPolicies": {"_": policy}, "templates": {}, "templateLinks": []}
    printed = _PRINTED.fullmatch(cedarpy.policies_from_json_str(orjson.dumps(document).decode()).strip())
    if printed is None:
        raise ValueError(f"Cedar prints {name[:80]!r} in a way that is not understood")
    return printed[1]
