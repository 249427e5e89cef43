"""Secrets do not survive redaction."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cedarbox.telemetry.redaction import MASK, digest, redact

SECRET = "Zx9qLm4Tv7Rw2Kp8"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

HIDDEN = [
    f"curl -H 'Authorization: Bearer {SECRET}' http://x/",
    f'curl -H "authorization: Basic {SECRET}=="',
    f"curl -H Authorization:Bearer\\ {SECRET} x",
    f"curl -H 'X-Api-Key: {SECRET}' x",
    f"curl --cookie 'Cookie: session={SECRET}' x",
    f"curl -u alice:{SECRET} http://x/",
    f"curl --user=alice:{SECRET} http://x/",
    f"git clone https://alice:{SECRET}@git.corp.example/r.git",
    f"git clone https://{SECRET}@git.corp.example/r.git",
    f"psql postgresql://u:p@ss{SECRET}@db/x",
    f"mysql --password {SECRET} -h db",
    f"mysql --password={SECRET}",
    f"tool --api-key '{SECRET} with blanks'",
    f'tool --apiKey="{SECRET} with blanks"',
    f"OPENAI_API_KEY={SECRET} python x.py",
    f"export AWS_SECRET_ACCESS_KEY={SECRET}",
    f"sh -c 'DB_PASSWORD={SECRET} run'",
    f'PASSWORD=ab"{SECRET} c"d',
    f"env A=1 TOKEN={SECRET}",
    f'{{"password": "{SECRET}"}}',
    f'{{"a":1,"client_secret":"{SECRET}","b":2}}',
    f"password: {SECRET}",
    f"http://x/?access_token={SECRET}&y=1",
    f"sshpass -p {SECRET} ssh host",
    f"echo sk-proj-{SECRET}",
    f"echo ghp_{SECRET}",
    f"echo github_pat_{SECRET}",
    f"echo glpat-{SECRET}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_a_secret_is_hidden(text: str) -> None:
    hidden = redact(text)
    assert SECRET not in hidden
    assert MASK in hidden
    assert redact(hidden) == hidden


@pytest.mark.parametrize("token", ["AKIAIOSFODNN7EXAMPLE", JWT, "xoxb-123456789012-abcdef", "hf_abcdefghijklmnop"])
def test_a_token_of_known_shape_is_hidden_anywhere(token: str) -> None:
    assert token not in redact(f"run {token} now")
    assert redact(f"run {token} now") == f"run {MASK} now"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "python -m pytest -q tests",
        "ls -la /workspace",
        "git commit -m 'fix the parser'",
        "curl http://mirror.corp.example/simple/",
        "make -j2 CFLAGS=-O2",
        "author: alice",
        "sed -n 1,5p passengers.csv",
    ],
)
def test_ordinary_commands_stay(text: str) -> None:
    assert redact(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert redact(f"env A=1 TOKEN={SECRET} python x.py") == f"env A=1 TOKEN={MASK} python x.py"
    assert redact(f"git clone https://u:{SECRET}@h/r.git") == f"git clone https://{MASK}@h/r.git"
    assert redact(f'{{"token":"{SECRET}","b":2}}') == f'{{"token":"{MASK}","b":2}}'


_HOSTILE = st.text(alphabet="ab=:;&|'\"\\ \n\t-@/[]{}.,_KEYkeytokenpassworduersk-AIBasicAuth0123456789", max_size=120)


@given(st.one_of(st.text(max_size=200), _HOSTILE))
@example("AKIA0123456789ABsk-aaaaaaaaaaaaaaaa")
@example("token=" * 50)
def test_idempotent_and_bounded(text: str) -> None:
    hidden = redact(text)
    assert redact(hidden) == hidden
    assert len(hidden) <= 3 * len(text) + len(MASK)


_NAMES = st.sampled_from(
    ["password", "DB_PASSWORD", "apiKey", "api-key", "TOKEN", "client_secret", "AWS_ACCESS_KEY_ID"]
)
_SECRETS = st.text(alphabet=string.ascii_letters + string.digits + "!%+,./:<=>?@^_~#$*()-", min_size=12, max_size=40)
_AROUND = st.text(alphabet=string.ascii_lowercase + " ./", max_size=11)


@given(_AROUND, _NAMES, _SECRETS, _AROUND)
def test_the_value_of_a_secret_name_never_survives(before: str, name: str, secret: str, after: str) -> None:
    for text in (f"--{name} {secret}", f"--{name}={secret}", f"{name}={secret}", f"'{name}': '{secret}'"):
        assert secret not in redact(f"{before} {text} {after}")


@given(st.binary(max_size=64))
def test_digest(data: bytes) -> None:
    assert digest(data) == "sha256:" + hashlib.sha256(data).hexdigest()


def test_long_input_is_handled() -> None:
    for text in (
        "a" * 200_000,
        "--" * 100_000,
        "'" * 100_000,
        "-----BEGIN A-----" * 5_000,
        "x-" * 50_000,
        "://" * 50_000,
    ):
        redact(text)
