"""Checks what stands beside the policies of a bundle: ``bundle.toml`` and the test cases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from cedarbox.errors import BundleError
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.review.cases import Suite
from cedarbox.review.check.rules import finding
from cedarbox.review.finding import Finding, Place
from cedarbox.review.nodes import YamlFile
from cedarbox.review.subject import shown

__all__ = ["check_metadata", "check_tests", "told"]

_AT: Final = re.compile(r"\(at line (\d+), column (\d+)\)")
_KEY: Final = re.compile(r"^(?:unknown key '([^']+)'|([a-z_]+) (?:must|is))")
_INSTEAD: Final = {"name": 'name = "x"', "schema": "schema = 1"}
_MAX_TOLD: Final = 20


def told(rule: str, error: BundleError) -> Finding:
    """Make a finding of an error."""
    message = error.message.removeprefix(f"{':'.join(str(p) for p in (error.path, error.line, error.column) if p)}: ")
    place = Place(shown(error.path), error.line or 1, error.column)
    return finding(rule, message, place, hint=error.hint, key=message)


def check_metadata(root: Path, data: bytes) -> Iterator[Finding]:
    """Tell of what is wrong with ``bundle.toml``.

    Each key at fault is taken out and the rest is looked at again, so that all are told.

    Args:
        root: Directory of the bundle.
        data: The file.
    """
    for _ in range(_MAX_TOLD):
        try:
            PolicyBundle.of_files(root, {"bundle.toml": data, "entities.json": b"[]", "none.cedar": b""})
        except BundleError as error:
            found = told("C007", error)
        else:
            return
        line, column = _place(data, found.message)
        given = found.place.line if found.place else 1
        yield finding(
            "C007",
            found.message,
            Place(shown(root / "bundle.toml"), line or given, column),
            hint=found.hint,
            key=found.key,
        )
        key = _KEY.match(found.message)
        if line is None or key is None:
            return
        lines = data.split(b"\n")
        lines[line - 1] = _INSTEAD.get(key.group(1) or key.group(2), "").encode()
        data = b"\n".join(lines)


def _place(data: bytes, message: str) -> tuple[int | None, int | None]:
    if at := _AT.search(message):
        return int(at.group(1)), int(at.group(2))
    if key := _KEY.match(message):
        name = re.escape((key.group(1) or key.group(2)).encode())
        for number, line in enumerate(data.split(b"\n"), start=1):
            if re.match(rb"\s*\[?\s*[\"']?" + name + rb"[\"']?\s*[=\].]", line):
                return number, 1
    return None, None


def check_tests(root: Path, bundle: PolicyBundle | None) -> Iterator[Finding]:
    """Tell of test cases that cannot be used.

    Args:
        root: Directory of the bundle.
        bundle: It; None when it cannot be loaded, and then only the form of the files is looked at.
    """
    directory = root / "tests"
    if not directory.is_dir():
        return
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix == ".yaml")
    except OSError as error:
        place = Place(shown(directory))
        yield finding("C001", f"cannot read it ({error.strerror})", place, hint="check its owner and mode")
        return
    if bundle is not None and files:
        try:
            Suite.load(bundle)
        except BundleError as error:
            first = told("C008", error)
            yield first
        else:
            return
    for file in files:
        try:
            YamlFile(file).root()
        except BundleError as error:
            if bundle is None or first.key != told("C008", error).key:
                yield told("C008", error)
        except (yaml.YAMLError, RecursionError, ValueError):
            yield finding("C008", "not YAML that can be read", Place(shown(file)))
