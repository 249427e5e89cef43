"""What the plugin for pytest does once it is used: see :mod:`cedarbox_pytest`, which pytest loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import pytest

from cedarbox.errors import CanonicalizationError, CedarboxError
from cedarbox.policy import Decision, PolicyBundle, PolicyEngine
from cedarbox.policy.actions import ACTION_GROUPS, Action
from cedarbox.review.arguments import Argument, Value, arguments_of, build
from cedarbox.review.case import Case
from cedarbox.review.cases import Suite
from cedarbox.review.run import outcome_of
from cedarbox.review.subject import shown

__all__ = ["BundleFile", "CaseItem", "Decide", "engine_of", "only_bundle", "register"]

_MARKER: Final = "policy_case"
_TYPES: Final[Mapping[str, type]] = {"text": str, "number": int, "truth": bool}


class Decide:
    """Asks a bundle, with the arguments of a case in YAML.

    Args:
        engine: The engine of the bundle.
    """

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    def __call__(self, principal: str, action: str | Action, **arguments: Any) -> Decision:
        """Return the answer to one request.

        Args:
            principal: The agent that asks.
            action: The action of the schema, such as ``connect``; or a whole request.
            arguments: The arguments of the action by name, as in a test case: ``target="mirror.corp.example"``. What is
                left out has its default. With a whole request there are none.

        Raises:
            TypeError: There is no such action, or an argument is unknown, missing or of the wrong type.
        """
        if isinstance(action, Action):
            if arguments:
                raise TypeError("a whole request has its arguments already")
            return self._engine.decide(principal, action)
        values = _values(action, arguments)
        try:
            request = build(action, values)
        except CanonicalizationError as error:
            # The guard turns it into a denial as well.
            return self._engine.refusal(str(error))
        except ValueError as error:
            raise TypeError(f"{action}: {error}") from None
        return self._engine.decide(principal, request)


def _values(action: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """Return the arguments of a request, each of the type that its builder takes.

    Raises:
        TypeError: As for :meth:`Decide.__call__`.
    """
    if action not in ACTION_GROUPS:
        raise TypeError(f"unknown action {action!r}; known: {', '.join(ACTION_GROUPS)}")
    known = arguments_of(action)
    for name in given.keys() - known.keys():
        raise TypeError(f"{action} has no argument {name!r}; known: {', '.join(known)}")
    for name, argument in known.items():
        if argument.required and name not in given:
            raise TypeError(f"{action} needs {name}: {argument.expected}")
    return {name: _value(action, known[name], value) for name, value in given.items()}


def _value(action: str, known: Argument, value: Any) -> Value:
    if value is None and known.nullable:
        return None
    if known.kind == "words":
        words = (value,) if isinstance(value, str) else value
        if isinstance(words, (list, tuple)) and words and all(isinstance(word, str) for word in words):
            return tuple(words)
    elif type(value) is _TYPES[known.kind] and (not known.members or value in known.members):
        return cast("Value", value)
    raise TypeError(f"{action}: {known.name} is {value!r}; expected {known.expected}")


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A suite with its engine."""

    suite: Suite
    engine: PolicyEngine


class _Loads:
    """What was loaded in a run, each once."""

    def __init__(self) -> None:
        self._engines: dict[Path, PolicyEngine] = {}
        self._suites: dict[Path, _Loaded] = {}

    def engine(self, path: Path) -> PolicyEngine:
        if path not in self._engines:
            self._engines[path] = PolicyEngine(PolicyBundle.load(path))
        return self._engines[path]

    def suite(self, path: Path) -> _Loaded:
        if path not in self._suites:
            suite = Suite.load(PolicyBundle.load(path))
            self._suites[path] = _Loaded(suite, PolicyEngine(suite.bundle))
        return self._suites[path]


_LOADS: Final = pytest.StashKey[_Loads]()


class _Problem(Exception):
    """A case that was answered otherwise than it says."""


class BundleFile(pytest.File):
    """A file of test cases of a bundle."""

    def collect(self) -> Iterator[CaseItem]:
        """Yield its cases.

        Raises:
            CollectError: Anything is wrong with the bundle or with a file of cases; one line says what and where.
        """
        try:
            loaded = _loads(self.config).suite(self.path.parent.parent)
        except CedarboxError as error:
            raise self.CollectError(str(error)) from None
        for case in loaded.suite.cases:
            if case.file.name == self.path.name:
                yield CaseItem.from_parent(self, name=case.name, case=case, engine=loaded.engine)


class CaseItem(pytest.Item):
    """One case."""

    def __init__(self, *, case: Case, engine: PolicyEngine, **rest: Any) -> None:
        super().__init__(**rest)
        self._case, self._engine = case, engine
        self.extra_keyword_matches.update(case.by, {case.action, case.principal})
        self.add_marker(_MARKER)

    def runtest(self) -> None:
        """Decide it."""
        problem = outcome_of(self._engine, self._case).problem
        if problem:
            raise _Problem(problem)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the one line that says what was otherwise than expected, and where the case is."""
        if isinstance(excinfo.value, _Problem):
            case = self._case
            return f"{shown(self.path)}:{case.line}: {case.action}: {case.title}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the case is, with a line that counts from 0, and its name."""
        return self.path, self._case.line - 1, self.name


class _Collector:
    def __init__(self, bundles: Sequence[Path]) -> None:
        self._directories = frozenset((bundle / "tests").resolve() for bundle in bundles)

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> BundleFile | None:
        if file_path.suffix == ".yaml" and file_path.parent.resolve() in self._directories:
            return BundleFile.from_parent(parent, path=file_path)
        return None


def register(config: pytest.Config) -> None:
    """Let pytest collect the cases of the bundles that are configured.

    Raises:
        UsageError: One of them is no bundle, or has no cases.
    """
    bundles = _configured(config)
    config.addinivalue_line("markers", f"{_MARKER}: a test case of a policy bundle")
    config.pluginmanager.register(_Collector(bundles), "cedarbox-bundles")
    # Those of the ini file are for a run of everything; who names what to run gets that, and what the option names.
    named = {_absolute(config.invocation_params.dir, text) for text in config.getoption("cedarbox_bundle")}
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    given = [_absolute(config.invocation_params.dir, text.split("::")[0]) for text in config.args]
    for bundle in bundles:
        tests = bundle / "tests"
        if (whole or bundle in named) and not any(tests.glob("*.yaml")):
            raise pytest.UsageError(f"{shown(tests)}: no .yaml file of test cases; write one for the policy bundle")
        if (whole or bundle in named) and not any(tests.is_relative_to(path) for path in given):
            config.args.append(str(tests))


def only_bundle(config: pytest.Config) -> Path:
    """Return the bundle that is configured. A test that asks fails in one line when there is none, or more than one."""
    bundles = _configured(config)
    if len(bundles) != 1:
        told = "none is" if not bundles else f"{len(bundles)} are"
        pytest.fail(f"one policy bundle is needed and {told} configured; define policy_bundle_path", pytrace=False)
    return bundles[0]


def engine_of(config: pytest.Config, path: Path) -> PolicyEngine:
    """Return the engine of a bundle, which is loaded once in a run. A test fails in one line when it cannot be used.

    Args:
        config: The run.
        path: The directory of the bundle.
    """
    try:
        return _loads(config).engine(path.resolve())
    except CedarboxError as error:
        pytest.fail(str(error), pytrace=False)


def _loads(config: pytest.Config) -> _Loads:
    if _LOADS not in config.stash:
        config.stash[_LOADS] = _Loads()
    return config.stash[_LOADS]


def _configured(config: pytest.Config) -> list[Path]:
    found: dict[Path, None] = {}
    sources = [(config.invocation_params.dir, "--cedarbox-bundle", config.getoption("cedarbox_bundle"))]
    home = config.inipath.parent if config.inipath else config.rootpath
    sources.append((home, "cedarbox_bundles", config.getini("cedarbox_bundles")))
    for base, origin, texts in sources:
        for text in texts:
            found.update(dict.fromkeys(_bundles(base, origin, text)))
    return list(found)


def _bundles(base: Path, origin: str, text: str) -> list[Path]:
    wild = any(char in text for char in "*?[")
    paths = sorted(base.glob(text)) if wild and not Path(text).is_absolute() else [_absolute(base, text)]
    found = [path for path in paths if (path / "bundle.toml").is_file()]
    # One that lost its bundle.toml must not drop out of a pattern without a word.
    lost = [path for path in paths if path not in found and any(path.glob("*.cedar"))]
    if lost or not found:
        name = shown(lost[0]) if lost else repr(text)
        raise pytest.UsageError(f"{origin}: {name} names no policy bundle; a bundle has a bundle.toml")
    return found


def _absolute(base: Path, text: str) -> Path:
    return Path(base, text).absolute()
