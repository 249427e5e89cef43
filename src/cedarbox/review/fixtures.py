"""Named values that test cases share, within a file or between all files of a bundle.

.. code-block:: yaml

    fixtures:
      mirror: mirror.corp.example                        # a value
      metadata: [169.254.169.254, "[fd00:ec2::254]"]     # values: a case of each
      to-the-mirror: {target: mirror.corp.example, port: 443, proto: tls}   # arguments, for ``with:``

Those of ``tests/fixtures.yaml`` are known to every file, those of another file to that file alone. A value is used as
``{fixture: name}`` in the place of a value, or as one member of a list. What a fixture says is plain: it uses no other
fixture, so a reader looks a name up once. One that is used nowhere, and two with one name, are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from cedarbox.errors import BundleError
from cedarbox.review.nodes import YamlFile

__all__ = ["FIXTURES_FILE", "Fixtures"]

FIXTURES_FILE: Final = "fixtures.yaml"
"""The file whose fixtures every file of cases can use."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_USE: Final = "fixture"


class Fixtures:
    """The fixtures that one file knows.

    Args:
        shared: Those of all files; None for those themselves.
    """

    def __init__(self, shared: Fixtures | None = None) -> None:
        self._shared = shared
        self._known: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        self._used: set[str] = set()

    def declare(self, file: YamlFile, node: yaml.Node) -> None:
        """Take the fixtures of a file.

        Args:
            file: The file.
            node: What stands under ``fixtures``.

        Raises:
            BundleError: A name cannot be used or is known already, or a fixture uses another.
        """
        for name, (key, value) in file.mapping(node, "fixtures by name").items():
            if not _NAME.fullmatch(name):
                file.fail(key, f"the fixture {name[:80]!r} has no usable name", "a letter, then letters, digits, - _ .")
            if self._shared is not None and name in self._shared._known:
                above = self._shared._known[name][0].start_mark
                file.fail(key, f"shadows the fixture {name!r} of {FIXTURES_FILE}:{above.line + 1}", "rename one")
            self._refuse_uses(file, value)
            self._known[name] = key, value

    def use(self, file: YamlFile, node: yaml.Node) -> yaml.Node:
        """Return the fixture that a name means, and count it as used.

        Args:
            file: The file that uses it.
            node: The name.

        Raises:
            BundleError: There is no such fixture.
        """
        name = file.text(node, "the name of a fixture")
        homes = [home for home in (self, self._shared) if home is not None]
        home = next((home for home in homes if name in home._known), None)
        if home is None:
            names = sorted(name for home in homes for name in home._known)
            file.fail(node, f"unknown fixture {name!r}", f"known: {', '.join(names) or 'none'}")
        home._used.add(name)
        return home._known[name][1]

    def plain(self, file: YamlFile, node: yaml.Node) -> yaml.Node:
        """Return a node, or what its fixture says when it is ``{fixture: name}``.

        Raises:
            BundleError: There is no such fixture.
        """
        if not _is_use(node):
            return node
        return self.use(file, node.value[0][1])

    def refuse_unused(self, path: Path) -> None:
        """Make sure that each fixture was used.

        Args:
            path: The file that declares them.

        Raises:
            BundleError: One was not: a reader would take it for tested.
        """
        for name, (key, _) in self._known.items():
            if name not in self._used:
                line, column = key.start_mark.line + 1, key.start_mark.column + 1
                message = f"the fixture {name!r} is used by no case"
                raise BundleError(message, path=path, line=line, column=column, hint="use it or remove it")

    def _refuse_uses(self, file: YamlFile, node: yaml.Node) -> None:
        if _is_use(node):
            file.fail(node, "a fixture that uses a fixture", "write the value out")
        if isinstance(node, yaml.SequenceNode):
            for member in node.value:
                self._refuse_uses(file, member)
        elif isinstance(node, yaml.MappingNode):
            for _, value in node.value:
                self._refuse_uses(file, value)


def _is_use(node: yaml.Node) -> bool:
    return (
        isinstance(node, yaml.MappingNode)
        and len(node.value) == 1
        and isinstance(node.value[0][0], yaml.ScalarNode)
        and node.value[0][0].value == _USE
    )
