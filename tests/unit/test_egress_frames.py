"""Frames: what the relay writes the host reads, the other way too, and nothing else is read."""

from __future__ import annotations

import ast
import base64
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.relaying import GREETING, data, grant, text

from cedarbox.egress import relay
from cedarbox.egress.frames import MAX_LINE, ChannelError, Frame, FrameDecoder, credit_of, head, hello, window
from cedarbox.egress.source import relay_source

_NUMBERS = st.integers(1, 2**32 - 1)
_TO_HOST = st.one_of(
    st.builds(
        lambda version, port: Frame(relay.HELLO, 0, struct.pack(">HH", version, port)),
        st.integers(0, 65535),
        st.integers(0, 65535),
    ),
    st.builds(Frame, st.sampled_from([relay.OPEN, relay.EOF, relay.RESET]), _NUMBERS, st.just(b"")),
    st.builds(Frame, st.just(relay.DATA), _NUMBERS, st.binary(min_size=1, max_size=300)),
    st.builds(Frame, st.just(relay.WINDOW), _NUMBERS, st.binary(min_size=4, max_size=4)),
)
_TO_GUEST = st.one_of(
    st.builds(Frame, st.sampled_from([relay.EOF, relay.RESET]), _NUMBERS, st.just(b"")),
    st.builds(Frame, st.just(relay.DATA), _NUMBERS, st.binary(min_size=1, max_size=300)),
    st.builds(lambda n, c: Frame(relay.WINDOW, n, struct.pack(">I", c)), _NUMBERS, _NUMBERS),
)


def _bytes(frame: Frame) -> bytes:
    if frame.kind == relay.WINDOW:
        return window(frame.stream, credit_of(frame))
    return head(frame.kind, frame.stream, len(frame.payload)) + frame.payload


def _cut(draw: st.DrawFn, length: int) -> list[slice]:
    cuts = [0, *sorted(draw(st.lists(st.integers(0, length), max_size=20))), length]
    return [slice(a, b) for a, b in pairwise(cuts)]


@st.composite
def _said(draw: st.DrawFn) -> tuple[list[Frame], list[str]]:
    frames = draw(st.lists(_TO_HOST, max_size=12))
    whole = "".join(text(*frame) for frame in frames)
    return frames, [whole[part] for part in _cut(draw, len(whole))]


@st.composite
def _told(draw: st.DrawFn) -> tuple[list[Frame], list[bytes]]:
    frames = draw(st.lists(_TO_GUEST, max_size=12))
    whole = b"".join(_bytes(frame) for frame in frames)
    return frames, [whole[part] for part in _cut(draw, len(whole))]


@given(_said())
def test_what_the_relay_writes_the_host_reads_however_it_is_cut(said: tuple[list[Frame], list[str]]) -> None:
    frames, pieces = said
    decoder = FrameDecoder()
    assert [frame for piece in pieces for frame in decoder.feed(piece)] == frames


@given(_told())
def test_what_the_host_writes_the_relay_reads_however_it_is_cut(told: tuple[list[Frame], list[bytes]]) -> None:
    frames, pieces = told
    decoder = relay.Decoder()
    assert [frame for piece in pieces for frame in decoder.feed(piece)] == [tuple(frame) for frame in frames]


@given(st.text(max_size=400))
def test_text_is_frames_or_an_error_and_nothing_else(anything: str) -> None:
    decoder = FrameDecoder()
    try:
        found = list(decoder.feed(anything))
    except ChannelError:
        return
    assert "".join(text(*frame) for frame in found) == anything[: anything.rfind("\n") + 1]


def _line(raw: bytes) -> str:
    return base64.b64encode(raw).decode() + "\n"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("\n", "shorter than its head"),
        ("AAAA\n", "shorter than its head"),
        ("not base64!\n", "not base64"),
        (GREETING.replace("\n", "\r\n"), "not base64"),
        (GREETING.replace("=", ""), "not base64"),
        (" " + GREETING, "not base64"),
        ("\ufffd" + GREETING, "not base64"),
        ("\ud800\n", "not base64"),
        (text(0, 1), "unknown type 0"),
        (text(7, 1), "unknown type 7"),
        (text(255, 1), "unknown type 255"),
        (_line(struct.pack(">BIH", relay.DATA, 1, 2) + b"x"), "says 2"),
        (_line(struct.pack(">BIH", relay.DATA, 1, 1) + b"xy"), "says 1"),
        (data(1, b""), "with 0 bytes"),
        (data(1, b"x" * (relay.PAYLOAD + 1)), "of more than"),
        (text(relay.OPEN, 1, b"x"), "with 1 bytes"),
        (text(relay.EOF, 1, b"x"), "with 1 bytes"),
        (text(relay.RESET, 1, b"x"), "with 1 bytes"),
        (text(relay.WINDOW, 1, b"xxx"), "with 3 bytes"),
        (text(relay.HELLO, 0, b"xxx"), "with 3 bytes"),
        (text(relay.HELLO, 1, b"xxxx"), "for stream 1"),
        (text(relay.OPEN, 0), "for stream 0"),
        (data(0, b"x"), "for stream 0"),
        ("A" * (MAX_LINE + 1), "of more than"),
        ("A" * (MAX_LINE + 1) + "\n", "of more than"),
    ],
)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_is_no_frame_is_refused_and_what_came_before_is_not_lost(sent: str, said: str, one_by_one: bool) -> None:
    decoder = FrameDecoder()
    found: list[Frame] = []
    whole = data(5, b"before") + sent

    def feed() -> None:
        for piece in whole if one_by_one else [whole]:
            found.extend(decoder.feed(piece))

    with pytest.raises(ChannelError, match=said) as caught:
        feed()
    assert found == [(relay.DATA, 5, b"before")]
    assert "\n" not in str(caught.value)


def test_the_longest_line_is_that_of_a_full_payload() -> None:
    longest = data(2**32 - 1, b"\xff" * relay.PAYLOAD)
    assert len(longest) == MAX_LINE + 1
    assert [frame.payload for frame in FrameDecoder().feed(longest)] == [b"\xff" * relay.PAYLOAD]


def test_a_window_grants_something_and_a_greeting_is_of_this_version_with_a_port() -> None:
    (frame,) = FrameDecoder().feed(grant(1, 5))
    assert credit_of(frame) == 5
    (frame,) = FrameDecoder().feed(grant(1, 0))
    with pytest.raises(ChannelError, match="no bytes"):
        credit_of(frame)
    (frame,) = FrameDecoder().feed(GREETING)
    assert hello(frame) == 3128
    with pytest.raises(ChannelError, match="version 2"):
        hello(Frame(relay.HELLO, 0, struct.pack(">HH", 2, 3128)))
    with pytest.raises(ChannelError, match="port 0"):
        hello(Frame(relay.HELLO, 0, struct.pack(">HH", 1, 0)))
    with pytest.raises(ChannelError, match="instead of a greeting"):
        hello(Frame(relay.OPEN, 1, b""))


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">BIH", relay.OPEN, 1, 0),
        struct.pack(">BIH", relay.HELLO, 0, 4),
        struct.pack(">BIH", relay.DATA, 1, 0),
        struct.pack(">BIH", relay.DATA, 1, relay.PAYLOAD + 1),
        struct.pack(">BIH", relay.WINDOW, 1, 3),
        struct.pack(">BIH", 9, 1, 0),
    ],
)
def test_the_relay_refuses_what_is_no_frame_of_the_host(raw: bytes) -> None:
    with pytest.raises(ValueError, match="the host sent type"):
        relay.Decoder().feed(raw)


def test_the_relay_is_one_program_of_the_standard_library_for_python_3_7() -> None:
    source = relay_source()
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    light = {"__future__", "binascii", "collections", "errno", "os", "resource", "select", "socket", "struct", "sys"}
    assert imported == light | {"time"}
    assert len(source) < 65536  # one argument of a command may have 131072 bytes on Linux
