"""Placeholders, and values that do not come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.brokering import Kept

from cedarbox.egress.secrets import Mask, SecretError, names_in, put_in, reveal


def test_a_placeholder_is_found_and_filled() -> None:
    value = b"Bearer <CEDARBOX_SECRET:token> <CEDARBOX_SECRET:b-2.x>"
    assert names_in([b"x", value, value]) == ("token", "b-2.x")
    assert put_in(value, {"token": b"t", "b-2.x": b"<CEDARBOX_SECRET:token>"}) == b"Bearer t <CEDARBOX_SECRET:token>"


@pytest.mark.parametrize(
    "value", [b"<CEDARBOX_SECRET:>", b"<CEDARBOX_SECRET:a b>", b"<CEDARBOX_SECRET:a", b"<cedarbox_secret:a>"]
)
def test_a_placeholder_without_a_name_is_refused(value: bytes) -> None:
    with pytest.raises(SecretError, match="no name"):
        names_in([value])


@pytest.mark.parametrize("value", ["", "a\r\nX: y", "a\nb", "a\x00b", " a", "a ", "a\tb", "é", "x" * 8193, "\x7f"])
def test_a_value_that_no_header_can_carry_is_refused_and_not_told(value: str) -> None:
    with pytest.raises(SecretError) as caught:
        reveal("token", Kept(value))
    assert len(value) < 2 or value not in str(caught.value)


def test_a_vault_that_fails_tells_nothing() -> None:
    class Failing:
        def reveal(self) -> str:
            raise RuntimeError("s3cret could not be unwrapped")

    with pytest.raises(SecretError) as caught:
        reveal("token", Failing())
    assert str(caught.value) == "the secret token cannot be had"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_there_is_no_secret_of_that_name() -> None:
    with pytest.raises(SecretError, match="no secret token"):
        reveal("token", None)


def test_overlapping_values_are_hidden_whole() -> None:
    mask = Mask([b"aXa", b"Xab"])
    assert mask.feed(b"-aXaXab-") + mask.end() == b"-******-"


@given(
    st.lists(st.text(alphabet="abX", max_size=6), max_size=12),
    st.lists(st.text(alphabet="abX", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_a_value_is_hidden_however_it_is_cut(pieces: list[str], values: list[str]) -> None:
    text = "".join(pieces).encode()
    keys = [value.encode() for value in values]
    hidden = bytearray(text)
    for key in keys:
        for at in range(len(text)):
            if text.startswith(key, at):
                hidden[at : at + len(key)] = b"*" * len(key)
    mask = Mask(keys)
    shown = b"".join(mask.feed(piece.encode()) for piece in pieces) + mask.end()
    assert shown == bytes(hidden)
    assert Mask(keys).whole(text) == bytes(hidden)
