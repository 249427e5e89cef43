"""Hides secrets in command lines, and names data by its digest.

`redact` is a net, not a proof: it knows certain names and shapes, and hides too much rather than too little. What must
not be recorded at all (file content, output, prompts) is never handed to it; see `digest`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import Final

__all__ = ["MASK", "clip", "digest", "redact"]

_MAX_TEXT: Final = 256

MASK: Final = "[redacted]"
"""What stands where a secret was."""

_ROUNDS: Final = 8
"""A mask can uncover one more match beside it; two rounds were the most seen in tests."""

_SHAPES: Final = (
    # PEM, RFC 7468 §2; without an end line everything that follows is hidden.
    re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----(?:(?!-----END ).)*(?:-----END [A-Z0-9 ]{1,40}-----)?", re.DOTALL),
    # JSON Web Tokens, RFC 7519 §3: a base64url header that begins with '{"'.
    re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,}+\.[A-Za-z0-9_-]{2,}(?:\.[A-Za-z0-9_-]*){0,3}"),
    # Published prefixes of OpenAI, GitHub, GitLab, AWS, Slack, Google, Hugging Face, npm and PyPI tokens.
    re.compile(r"\bsk-[A-Za-z0-9_-]{12,}"),
    re.compile(r"(?:\bgh[pousr]_|github_pat_|glpat-|\bxox[abeoprs]-|\bhf_|\bnpm_|\bpypi-)[A-Za-z0-9_-]{10,}"),
    re.compile(r"(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{12,}"),
    re.compile(r"\bAIza[A-Za-z0-9_-]{20,}"),
)

_URL: Final = re.compile(r"(://)[^\s/?#'\"]+@")
_HEADER: Final = re.compile(
    r"((?:authorization|cookie|x-[a-z-]{0,40}(?:token|key|auth|secret)[a-z-]{0,40})"
    r"['\"]?[ \t]{0,8}[:=][ \t]{0,8}['\"]?)[^'\"\r\n]+",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"\b((?:bearer|basic)(?:[ \t]|%20|\\ ){1,8})[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_LOGIN: Final = re.compile(r"((?:^|\s)(?:-u|--user|--proxy-user|-U)(?:[ \t]{1,8}|=)['\"]?[^\s:'\"]{0,128}:)[^\s'\"]+")
_SSHPASS: Final = re.compile(r"(\bsshpass[ \t]{1,8}-p[ \t]{0,8})\S+")

_NAME: Final = re.compile(
    r"(?<![A-Za-z0-9_.-])(?P<flag>-++)?(?P<name>[A-Za-z0-9_.][A-Za-z0-9_.-]*+)"
    r"(?P<sep>['\"]?[ \t]{0,8}[:=][ \t]{0,8}|[ \t]{1,8})"
)
_QUOTED: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"(?=[\s,;&|}\])]|$)|'[^']*'(?=[\s,;&|}\])]|$)", re.DOTALL)
_WORD: Final = re.compile(
    r"(?:\"(?:[^\"\\]|\\.)*+\"?|'[^']*+'?|\\.|[^\s\"'\\&;|])+",
    re.DOTALL,
)

_WORDS: Final = frozenset(
    {"auth", "credential", "credentials", "dsn", "key", "pass", "passphrase", "passwd", "password", "pat", "pw", "pwd"}
    | {"secret", "secrets", "token", "tokens"}
)
_ENDINGS: Final = ("password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "accesskey", "keyid")


@lru_cache(maxsize=1024)
def clip(text: str) -> str:
    """Hide secrets in a name and cut it to 256 characters."""
    return redact(text[: 4 * _MAX_TEXT])[:_MAX_TEXT]


def digest(data: bytes) -> str:
    """Return ``sha256:`` and the 64 hexadecimal digits of the SHA-256 of the data."""
    return "sha256:" + sha256(data).hexdigest()


def redact(text: str) -> str:
    """Replace secrets in a command line by ``[redacted]``.

    Hidden are: values of options, variables and JSON fields whose name looks secret, authorization headers and
    cookies, the user part of URLs, PEM blocks, JSON Web Tokens and tokens of well-known shape.

    Args:
        text: One command line, header or URL.

    Returns:
        The text without the secrets; redacting it again changes nothing. It is at most three times as long.
    """
    for _ in range(_ROUNDS):
        hidden = _once(text)
        if hidden == text:
            return text
        text = hidden
    return MASK


def _once(text: str) -> str:
    for shape in _SHAPES:
        text = shape.sub(MASK, text)
    text = _URL.sub(rf"\1{MASK}@", text)
    text = _HEADER.sub(rf"\1{MASK}", text)
    for pattern in (_SCHEME, _LOGIN, _SSHPASS):
        text = pattern.sub(rf"\1{MASK}", text)
    return _named(text)


def _named(text: str) -> str:
    parts: list[str] = []
    done = at = 0
    while (found := _NAME.search(text, at)) is not None:
        at = found.end()
        by_blank = not found["sep"].strip()
        if (by_blank and not found["flag"]) or not _looks_secret(found["name"]):
            continue
        quoted = _QUOTED.match(text, at)
        value = quoted or _WORD.match(text, at)
        if value is None:
            continue
        mark = text[at] if quoted else ""
        parts += (text[done:at], mark, MASK, mark)
        done = at = value.end()
    parts.append(text[done:])
    return "".join(parts)


def _looks_secret(name: str) -> bool:
    words = [word.lower() for word in re.split(r"[_.-]+|(?<=[a-z0-9])(?=[A-Z])", name) if word]
    if not words:
        return False
    joined = "".join(words)
    return any(word in _WORDS or word.endswith(_ENDINGS) for word in words) or joined.endswith(_ENDINGS)
