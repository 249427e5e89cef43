"""Output that nobody has read yet, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cedarbox.boxlite.output import HeldOutput


def test_what_fits_is_kept_whole_and_given_once() -> None:
    held = HeldOutput(head=10, tail=10)
    held.add(b"12345")
    held.add(b"67890")
    held.add(b"abcde")
    assert held.take() == b"1234567890abcde"
    assert held.take() == b""
    held.add(b"again")
    assert held.take() == b"again"


@given(st.lists(st.integers(min_value=1, max_value=200_000), min_size=1, max_size=40))
def test_beginning_end_and_number_of_dropped_bytes(sizes: list[int]) -> None:
    held = HeldOutput(head=100_000, tail=200_000)
    written = b"".join(bytes((number % 251,)) * size for number, size in enumerate(sizes))
    at = 0
    for size in sizes:
        held.add(written[at : at + size])
        at += size
    taken = held.take()
    # At most a piece more than asked for at the beginning, and a block and a piece at the end.
    assert len(taken) < 100_000 + 200_000 + 2 * 200_000 + 65_536 + 200
    if len(taken) == len(written):
        assert taken == written
        return
    head, _, rest = taken.partition(b"\n[cedarbox: ")
    number, _, tail = rest.partition(b" bytes of output were dropped here: nobody read them]\n")
    assert written.startswith(head)
    assert written.endswith(tail)
    assert len(head) + int(number) + len(tail) == len(written)
