"""Changes of bundles for tests: two versions on disk, and what the real prover and the command line make of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.unit.repositories import METADATA, bundle_files
from typer.main import get_command
from typer.testing import CliRunner, Result

from cedarbox.cli import policy_versions
from cedarbox.cli.policy import app

__all__ = ["AGENTS", "change", "cli", "diff", "entities", "findings", "permit", "shared_prover", "subjects"]

AGENTS = {"coder": ("coders",), "other": ("others",)}
"""Two agents in groups of their own."""


def entities(groups: Mapping[str, Sequence[str]], *, above: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return an entities.json: the groups of each agent, and the groups that groups are in."""
    inside = above or {}
    names = sorted({*inside, *(g for each in (*groups.values(), *inside.values()) for g in each)})
    tenant = {"uid": {"type": "Sandbox::Tenant", "id": "site"}, "attrs": {}, "parents": []}
    listed = [
        {"uid": _group(name), "attrs": {}, "parents": [_group(each) for each in inside.get(name, ())]} for name in names
    ]
    attrs = {
        "tenant": {"__entity": {"type": "Sandbox::Tenant", "id": "site"}},
        "trust": {"__entity": {"type": "Sandbox::Trust", "id": "untrusted"}},
    }
    agents = [
        {"uid": {"type": "Sandbox::Agent", "id": name}, "attrs": attrs, "parents": [_group(each) for each in held]}
        for name, held in groups.items()
    ]
    return json.dumps([tenant, *listed, *agents])


def _group(name: str) -> dict[str, str]:
    return {"type": "Sandbox::AgentGroup", "id": name}


def permit(name: str, action: str, when: str = "true", *, who: str = "principal", effect: str = "permit") -> str:
    """Return a policy for one action."""
    scope = f'{who}, action == Sandbox::Action::"{action}", resource'
    return f'@id("{name}")\n{effect} ({scope})\nwhen {{ {when} }};\n'


def change(directory: Path, old: str, new: str, **more: str) -> tuple[Path, Path]:
    """Write both versions of a bundle; ``more`` are ``old_entities``, ``new_metadata`` and the like."""
    made = []
    for name, policies in (("old", old), ("new", new)):
        people = more.get(f"{name}_entities", more.get("entities", entities(AGENTS)))
        revision = METADATA.replace("revision = 1", f"revision = {1 if name == 'old' else 2}")
        files = bundle_files(policies, entities=people, metadata=more.get(f"{name}_metadata", revision))
        for file, content in files.items():
            (directory / name).mkdir(parents=True, exist_ok=True)
            (directory / name / file).write_text(content)
        made.append(directory / name)
    return made[0], made[1]


def cli(*arguments: object) -> Result:
    """Run the command line. Its parser is made once, which takes longer than most of what is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda _: _command())
        return CliRunner().invoke(app, [*map(str, arguments)])


@cache
def _command() -> Any:
    return get_command(app)


def diff(directory: Path, old: str, new: str, *options: object, **more: str) -> dict[str, Any]:
    """Write a change, compare it, and return what ``--json`` prints, with the exit code as ``exit``."""
    result = cli("diff", *change(directory, old, new, **more), "--json", *options)
    assert result.stdout.startswith("{"), (result.exit_code, result.output, result.exception)
    return {**json.loads(result.stdout), "exit": result.exit_code}


def findings(report: Mapping[str, Any], rule: str = "D100") -> list[dict[str, Any]]:
    """Return the findings of a rule."""
    return [each for each in report["findings"] if each["rule"] == rule]


def subjects(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return action, resource, principals and policy of each widening, sorted."""
    told = [each["details"]["subject"] for each in findings(report)]
    return sorted((s["action"], s["resource"], " ".join(s["principals"]), s["policy"]) for s in told)


def shared_prover() -> Iterator[None]:
    """Have all commands use one prover until the generator ends: starting one takes half a second."""
    from cedarbox.policy.schema import schema_text
    from cedarbox.review.prove import Prover

    with Prover(schema_text()) as prover, pytest.MonkeyPatch.context() as patch:
        real = policy_versions.prover

        def make(
            timeout: float, *, second_opinion: bool, extras: policy_versions.Extras | None = None
        ) -> Callable[[str], AbstractContextManager[Any]]:
            if extras is not None and (extras.cedar or extras.dump_smt):
                return real(timeout, second_opinion=second_opinion, extras=extras)

            def of(schema: str) -> AbstractContextManager[Prover]:
                return nullcontext(prover) if schema == schema_text() else Prover(schema, time_limit_s=timeout)

            return of

        patch.setattr("cedarbox.cli.policy_versions.prover", make)
        yield
