"""The methods of Cedar's extension types as terms (``cedar-policy-core``, ``extensions/*.rs``, 4.12)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cedarbox.review.prove.literals import DAY_MS
from cedarbox.review.prove.payloads import IpParts
from cedarbox.review.prove.terms import Term, Terms
from cedarbox.review.prove.types import BOOL, DATETIME, DECIMAL, DURATION, IP, LONG, MAX_LONG, MIN_LONG, Type

__all__ = ["METHODS", "in_range"]

_Result = tuple[Any, Term]
_Method = Callable[..., _Result]


def in_range(terms: Terms, ip: IpParts, range_: IpParts) -> Term:
    """Return whether a range of addresses is in another, of the same version."""
    same = terms.eq(ip.v4, range_.v4)
    if range_.prefix.constant and range_.address.constant and range_.v4.constant:
        width = 32 if range_.v4.value else 128
        inside = terms.top(ip.address, width - range_.prefix.value, range_.address.value)
        return terms.and_(same, inside, terms.ule(range_.prefix, ip.prefix))
    (low, high), (first, last) = _ends(terms, ip), _ends(terms, range_)
    return terms.and_(same, terms.ule(first, low), terms.ule(high, last))


def _ends(terms: Terms, ip: IpParts) -> tuple[Term, Term]:
    width = terms.ite(ip.v4, terms.bv(32), terms.bv(128))
    # The bits of the host: 2**n - 1, also for n = 128, where the shift gives 0.
    host = terms.bvsub(terms.shl(terms.bv(1), terms.bvsub(width, ip.prefix)), terms.bv(1))
    return terms.bvand(ip.address, terms.bvnot(host)), terms.bvor(ip.address, host)


def _contains(terms: Terms, ip: IpParts, range_: IpParts) -> _Result:
    return in_range(terms, ip, range_), terms.false


def _of_class(v4: tuple[int, int], v6: tuple[int, int]) -> _Method:
    def method(terms: Terms, ip: IpParts) -> _Result:
        found = [
            in_range(terms, ip, IpParts(terms.truth(four), terms.bv(address), terms.bv(prefix)))
            for four, (address, prefix) in ((True, v4), (False, v6))
        ]
        return terms.or_(*found), terms.false

    return method


def _four(terms: Terms, ip: IpParts) -> _Result:
    return ip.v4, terms.false


def _six(terms: Terms, ip: IpParts) -> _Result:
    return terms.not_(ip.v4), terms.false


def _ordering(strict: bool, swapped: bool) -> _Method:
    def method(terms: Terms, left: Term, right: Term) -> _Result:
        a, b = (right, left) if swapped else (left, right)
        return (terms.less(a, b) if strict else terms.at_most(a, b)), terms.false

    return method


def _checked(terms: Terms, value: Term) -> _Result:
    low, high = terms.number(MIN_LONG), terms.number(MAX_LONG)
    return value, terms.or_(terms.less(value, low), terms.less(high, value))


def _offset(terms: Terms, moment: Term, duration: Term) -> _Result:
    return _checked(terms, terms.add(moment, duration))


def _since(terms: Terms, moment: Term, other: Term) -> _Result:
    return _checked(terms, terms.sub(moment, other))


def _date(terms: Terms, moment: Term) -> _Result:
    return _checked(terms, terms.sub(moment, terms.mod(moment, terms.number(DAY_MS))))


def _time(terms: Terms, moment: Term) -> _Result:
    return terms.mod(moment, terms.number(DAY_MS)), terms.false


def _in_units(unit_ms: int) -> _Method:
    def method(terms: Terms, duration: Term) -> _Result:
        if unit_ms == 1:
            return duration, terms.false
        unit, minus = terms.number(unit_ms), terms.number(-1)
        # Cedar rounds towards zero.
        below = terms.times(minus, terms.div(terms.times(minus, duration), unit))
        return terms.ite(terms.less(duration, terms.number(0)), below, terms.div(duration, unit)), terms.false

    return method


METHODS: Final[Mapping[str, tuple[tuple[Type, ...], Type, _Method]]] = {
    "isInRange": ((IP, IP), BOOL, _contains),
    "isIpv4": ((IP,), BOOL, _four),
    "isIpv6": ((IP,), BOOL, _six),
    "isLoopback": ((IP,), BOOL, _of_class((0x7F000000, 8), (1, 128))),
    "isMulticast": ((IP,), BOOL, _of_class((0xE0000000, 4), (0xFF << 120, 8))),
    "lessThan": ((DECIMAL, DECIMAL), BOOL, _ordering(strict=True, swapped=False)),
    "lessThanOrEqual": ((DECIMAL, DECIMAL), BOOL, _ordering(strict=False, swapped=False)),
    "greaterThan": ((DECIMAL, DECIMAL), BOOL, _ordering(strict=True, swapped=True)),
    "greaterThanOrEqual": ((DECIMAL, DECIMAL), BOOL, _ordering(strict=False, swapped=True)),
    "offset": ((DATETIME, DURATION), DATETIME, _offset),
    "durationSince": ((DATETIME, DATETIME), DURATION, _since),
    "toDate": ((DATETIME,), DATETIME, _date),
    "toTime": ((DATETIME,), DURATION, _time),
    "toMilliseconds": ((DURATION,), LONG, _in_units(1)),
    "toSeconds": ((DURATION,), LONG, _in_units(1_000)),
    "toMinutes": ((DURATION,), LONG, _in_units(60_000)),
    "toHours": ((DURATION,), LONG, _in_units(3_600_000)),
    "toDays": ((DURATION,), LONG, _in_units(DAY_MS)),
}
"""By name: the types of the arguments, of the result, and what makes the result and whether it fails."""
