"""Users of a guest, in one spelling."""

from __future__ import annotations

import re
from typing import Final

from agents.sandbox.types import User

from cedarbox.errors import CanonicalizationError

__all__ = ["account_name", "user_name"]

# POSIX.1-2017 §3.437 and §3.282: the portable names, in the length that Linux takes.
_NAME: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}").fullmatch


def account_name(text: str) -> str:
    """Return the one spelling of a user or group: user 0 is ``root``, other numbers stay as they are.

    Other spellings of a user that backends take are refused: ``uid:gid``, ``#0`` (sudo), ``00``. A rule that names a
    user does not hold for its number, which only the guest could tell; so permit users, rather than forbid some.

    Raises:
        CanonicalizationError: It is not a portable name or a plain number.
    """
    if not _NAME(text) or (text.isdigit() and str(int(text)) != text):
        raise CanonicalizationError(f"{text[:80]!r} is not the plain name of an account")
    return "root" if text == "0" else text


def user_name(user: str | User | None) -> str | None:
    """Return the user that an operation is done as, for a policy; None for the backend's default.

    Raises:
        CanonicalizationError: As :func:`account_name`.
    """
    text = user.name if isinstance(user, User) else user
    # The SDK takes an empty name for none.
    return account_name(text) if text else None
