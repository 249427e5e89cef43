"""A YAML file of which every value knows its place, and of which nothing is taken that a reader could not see.

The library parses; what a word means is decided by what is expected there. Aliases, tags and repeated keys are refused,
so what a reviewer reads is what is used.
"""

from __future__ import annotations

import re
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from cedarbox.errors import BundleError
from cedarbox.review.arguments import Scalar

__all__ = ["Entries", "YamlFile"]

Entries = Mapping[str, tuple[yaml.Node, yaml.Node]]
"""A mapping of YAML: the nodes of key and value by the text of the key."""

_MAX_FILE: Final = 1024 * 1024
_MAX_DEPTH: Final = 16
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_WORDS: Final[Mapping[str, Scalar]] = {"true": True, "false": False, "null": None, "~": None, "": None}


class _Composer(Composer, Resolver):
    """Makes the nodes of events that were parsed already: to parse takes most of the time."""

    def __init__(self, events: Sequence[yaml.Event]) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        self._events = deque(events)

    def check_event(self, *kinds: type[yaml.Event]) -> bool:
        """Return whether there is another event, and it is of one of these kinds, if any are given."""
        return bool(self._events) and (not kinds or isinstance(self._events[0], kinds))

    def peek_event(self) -> yaml.Event | None:
        """Return the next event, and leave it."""
        return self._events[0] if self._events else None

    def get_event(self) -> yaml.Event | None:
        """Return the next event, and take it."""
        return self._events.popleft() if self._events else None


class YamlFile:
    """Reads one file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def root(self) -> yaml.Node:
        """Return the one document of the file.

        Raises:
            BundleError: It cannot be read, is empty, is not YAML, or has what is not taken.
        """
        try:
            status = self.path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise BundleError("not a regular file", path=self.path, hint="give a plain file, no link")
            if status.st_size > _MAX_FILE:
                raise BundleError(f"larger than {_MAX_FILE} bytes", path=self.path, hint="split it")
            data = self.path.read_bytes()
            text = data.decode("utf-8")
            depth = 0
            loader = yaml.SafeLoader(text)
            # Each node then knows its file, also where a file uses what another one says.
            loader.name = str(self.path)
            events: list[yaml.Event] = []
            while loader.check_event():
                event = loader.get_event()  # type: ignore[no-untyped-call]  # its stub has no types
                events.append(event)
                # The time that PyYAML takes grows with the square of the depth, and then its recursion ends.
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > _MAX_DEPTH:
                    self.fail(event, f"nested more than {_MAX_DEPTH} deep", "write it with fewer levels")
                if getattr(event, "anchor", None):
                    self.fail(event, "an anchor or alias", "write the value out")
                if tag := getattr(event, "tag", None):
                    self.fail(event, f"the tag {tag}", "write a plain value")
            root = _Composer(events).get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else None
            raise BundleError(f"not YAML: {error.problem or error.context}", path=self.path, line=line) from None
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise BundleError("not UTF-8 text", path=self.path, line=line, hint="save it as UTF-8") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            message = f"not YAML: the character U+{error.character:04X}"
            raise BundleError(message, path=self.path, line=line, hint="write it as an escape, in quotes") from None
        except OSError as error:
            hint = "check its owner and mode"
            raise BundleError(f"cannot read it ({error.strerror})", path=self.path, hint=hint) from None
        if root is None:
            raise BundleError("empty", path=self.path, hint="write something into it, or remove the file")
        return root

    def scalar(self, node: yaml.Node, expected: str) -> Scalar:
        """Return a single value; ``expected`` is for the message."""
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, f"expected {expected}", "write one value")
        text: str = node.value
        # YAML 1.1 would read `no` as false and 22:22 as 1342, so plain words are read by these few rules instead.
        if node.style is None:
            if text in _WORDS:
                return _WORDS[text]
            if _WHOLE.fullmatch(text):
                return int(text)
        return text

    def text(self, node: yaml.Node, expected: str) -> str:
        """Return a text that is not empty."""
        value = self.scalar(node, expected)
        if not isinstance(value, str) or not value:
            self.fail(node, f"expected {expected}", "put it in quotes if it looks like a number or a truth value")
        return value

    def texts(self, node: yaml.Node, expected: str) -> tuple[str, ...]:
        """Return one text or a list of them."""
        if not isinstance(node, yaml.SequenceNode):
            return (self.text(node, expected),)
        if not node.value:
            self.fail(node, "an empty list", f"expected {expected}")
        return tuple(self.text(member, expected) for member in node.value)

    def mapping(
        self, node: yaml.Node, expected: str, *, known: Sequence[str] | None = None
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return a mapping by its keys; those that are not ``known`` are refused, unless that is None."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"expected {expected}", "write it as name: value")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = self.text(key, "a name")
            if name in found:
                self.fail(key, f"{name!r} is there twice", "keep one")
            if known is not None and name not in known:
                self.fail(key, f"unknown key {name!r}", f"known: {', '.join(known)}")
            found[name] = key, value
        return found

    def fail(self, node: yaml.Node | yaml.Event, message: str, hint: str) -> NoReturn:
        """Raise the error about the place of a node."""
        mark = node.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise BundleError(message, path=self.file_of(node), line=line, column=column, hint=hint)

    def file_of(self, node: yaml.Node | yaml.Event) -> Path:
        """Return the file that a node stands in, which may be another than this one."""
        return Path(node.start_mark.name) if isinstance(node, yaml.Node) and node.start_mark else self.path
