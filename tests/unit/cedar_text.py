"""Random Cedar text that covers the whole language, for tests that hold a parser against cedarpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

_Member = TypeVar("_Member")

__all__ = ["CedarText"]

_NAMES = ["a", "b1", "_c", "principal", "context", "when", "permit", "Set", "ip", "contains", "namespace"]
_TYPES = ["A", "A::B", "Sandbox::Host", "principal::when", "_x"]
_PIECES = [
    *("a", "é", "🔒", " ", "//", "/*", ";", "}", "'", "*", "\n", "\\n", "\\r", "\\t", "\\0", "\\\\", "\\'", '\\"'),
    *("\\x41", "\\u{41}", "\\u{1f512}", "\\u{2a}", "\\u{0_0041}"),
]
_GAPS = ["", "", "", " ", "\n", "\t", "\r\n", "\u00a0", "\u2028", ' // note; " {\n', "//\r", " //x\r\n"]
_LEAVES = ["principal", "action", "resource", "context", "true", "false", "0", "7", "0042", "9223372036854775807"]
_LEAVES += ["-1", "--1", "---2", "-9223372036854775808", "- 5"]
_BINARY = ["&&", "||", "==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*"]
_METHODS = ["contains", "containsAll", "containsAny", "getTag", "hasTag", "isInRange", "lessThan", "offset"]
_PLAIN_METHODS = ["isEmpty", "isIpv4", "isLoopback", "toDate", "toTime", "toDays", "toMilliseconds"]


class CedarText:
    """Makes random text.

    Args:
        seed: The same seed makes the same text.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def pick(self, members: Sequence[_Member]) -> _Member:
        """Return one of them."""
        return self._random.choice(members)

    def _maybe(self) -> bool:
        return self._random.random() < 0.5

    def _several(self, make: Callable[[], str], most: int = 3) -> list[str]:
        return [make() for _ in range(self._random.randint(0, most))]

    def _string(self, *more: str) -> str:
        return f'"{"".join(self._several(lambda: self.pick([*_PIECES, *more]), 4))}"'

    def _entity(self, types: Sequence[str] = _TYPES) -> str:
        return f"{self.pick(types)}{self.pick(_GAPS)}::{self._string()}"

    def _listed(self, make: Callable[[], str], brackets: str) -> str:
        members = self._several(make)
        comma = "," if members and self._maybe() else ""
        return f"{brackets[0]}{(', ' + self.pick(_GAPS)).join(members)}{comma}{brackets[1]}"

    def expression(self, depth: int = 3) -> str:
        """Return an expression; a few are none, because comparisons without brackets do not go together."""
        if depth == 0 or self._random.random() < 0.2:
            return self.pick([*_LEAVES, self._string(), self._entity()])
        one = self.expression(depth - 1)
        member = f"({one}){self.pick(_GAPS)}"
        names = ".".join(self.pick(_NAMES) for _ in range(self._random.randint(1, 3)))
        kind = self._random.randrange(12)
        if kind in {0, 1, 2}:
            other = self.expression(depth - 1)
            left, right = (member, f"({other})") if self._random.random() < 0.8 else (one, other)
            return f"{left} {self.pick(_BINARY)} {self.pick(_GAPS)}{right}"
        if kind == 3:
            return f"{self.pick(['!', '!!', '!!!!', '-', '--'])}({one})"
        if kind == 4:
            return f"(if {one} then {self.expression(depth - 1)} else {self.expression(depth - 1)})"
        if kind == 5:
            return f"{member}.{self.pick(_METHODS)}({self.expression(depth - 1)})"
        if kind == 6:
            return self.pick(
                [
                    f"{member}.{self.pick(_PLAIN_METHODS)}()",
                    f"{self.pick(['ip', 'decimal', 'datetime', 'duration'])}({self._string()})",
                ]
            )
        if kind == 7:
            return f"{member}{self.pick([f'.{names}', f'[{self._string()}]'])}"
        if kind == 8:
            return self.pick([f"({member} has {names})", f"({member} has {self._string()})"])
        if kind == 9:
            after = self.pick(["", f" in ({self.expression(depth - 1)})"])
            tested = self.pick([f"like {self._string(chr(92) + '*')}", f"is {self.pick(_TYPES)}{after}"])
            return f"({member} {tested})"
        if kind == 10:
            return self._listed(lambda: self.expression(depth - 1), "[]")
        return self._listed(
            lambda: f"{self.pick([*_NAMES, self._string()])}{self.pick(_GAPS)}: {self.expression(depth - 1)}", "{}"
        )

    def _party(self, name: str) -> str:
        what = self.pick([self._entity(), f"?{name}", f"({self._entity()})"])
        kind = self.pick(_TYPES)
        form = self.pick(["", f"== {what}", f"in {what}", f"is {kind}", f"is {kind} in {what}"])
        return f"{name}{self.pick(_GAPS)} {form}"

    def _action(self) -> str:
        def uid() -> str:
            return self._entity(["Action", "A::Action"])

        many = self._listed(uid, "[]")
        return f"action {self.pick(['', f'== {uid()}', f'in {uid()}', f'in {many}', f'in ({many})'])}"

    def policy(self) -> str:
        """Return a policy or template."""
        names = dict.fromkeys(self._several(lambda: self.pick([*_NAMES, "if", "id", "in"])))
        notes = [f"@{name}{self.pick(['', f'({self._string()})'])}{self.pick(_GAPS)} " for name in names]
        scope = ", ".join([self._party("principal"), self._action(), self._party("resource")])
        conditions = self._several(
            lambda: f"{self.pick([' when', ' unless'])}{self.pick(_GAPS)} {{{self.pick(_GAPS)} {self.expression()} }}",
            2,
        )
        head = f"{''.join(notes)}{self.pick(['permit', 'forbid'])}{self.pick(_GAPS)}"
        return f"{head}({scope}{self.pick(['', ','])}){''.join(conditions)}{self.pick(_GAPS)};"
