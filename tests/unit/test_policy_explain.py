"""``cedarbox policy explain --endpoints``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED, agents, write_bundle
from tests.unit.commands import Run, in_process

CONNECT = 'principal, action == Sandbox::Action::"connect"'
RULES = f"""
@id("mirror") @reason("packages, \\"all\\" of them")
    permit ({CONNECT}, resource in Sandbox::Domain::"mirror.corp.example")
    when {{ [80, 443].contains(context.port) && context.ipClass == Sandbox::IpClass::"private" }};
@id("lan") permit ({CONNECT}, resource is Sandbox::Address)
    when {{ resource.ip.isInRange(ip("10.20.0.0/16")) && context.port >= 8000 && context.port <= 8080 }};
@id("evil") forbid ({CONNECT}, resource in Sandbox::Domain::"evil.mirror.corp.example");
"""
CONDITIONAL = (
    f'@id("tool") permit ({CONNECT}, resource == Sandbox::Host::"a.example") when {{ context.base has tool }};'
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy", "explain")


def test_the_list_as_json(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(write_bundle(tmp_path, RULES), "--endpoints", "--json")
    told = json.loads(out)
    assert (code, told["exact"], told["unknown"], told["notes"]) == (0, True, [], [])
    facts = [(row["host"], row["but"], row["ports"], row["classes"], row["networks"]) for row in told["endpoints"]]
    assert facts == [
        ("any address", [], "8000-8080", ["any"], ["10.20.0.0/16"]),
        (
            "mirror.corp.example and *.mirror.corp.example",
            ["evil.mirror.corp.example and *.evil.mirror.corp.example"],
            "80,443",
            ["private"],
            ["any"],
        ),
    ]


def test_the_list_as_csv_has_one_row_for_each_endpoint(run: Run, tmp_path: Path) -> None:
    code, out, err = run(write_bundle(tmp_path, RULES), "--endpoints", "--format", "csv")
    read = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, len(read)) == (0, "", 2)
    assert (read[1]["policy"], read[1]["reason"], read[1]["exact"]) == ("mirror", 'packages, "all" of them', "yes")


def test_a_reason_that_a_spreadsheet_would_run(run: Run, tmp_path: Path) -> None:
    rule = f'@reason("=cmd()") permit ({CONNECT}, resource == Sandbox::Host::"a.example");'
    _, out, _ = run(write_bundle(tmp_path, rule), "--endpoints", "--format", "csv")
    assert next(csv.DictReader(io.StringIO(out)))["reason"] == "'=cmd()"


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_row_that_is_not_exact_says_so(run: Run, tmp_path: Path, form: str) -> None:
    code, out, err = run(write_bundle(tmp_path, CONDITIONAL), "--endpoints", "--format", form)
    assert code == 1
    if form == "json":
        assert json.loads(out)["endpoints"][0]["exact"] is False
        assert "has tool" in json.loads(out)["endpoints"][0]["note"]
    else:
        assert "a.example" in out
        assert "1 of 1 rows say more than the policies permit" in err


def test_the_table_of_a_bundle_that_ships(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(SHIPPED / "internal-mirror", "--endpoints")
    lines = [line.split() for line in out.splitlines()]
    assert lines[:5] == [
        ["host", "port", "protocol", "address", "policy"],
        ["git.corp.example", "22", "tcp", "private", "mirror-git-ssh", "[1]"],
        ["git.corp.example", "443", "tls", "private", "mirror-git-https", "[1]"],
        ["mirror.corp.example", "443", "tls", "private", "mirror-packages", "[2]"],
        ["mirror.corp.example", "80", "http", "private", "mirror-system-packages", "[3,4]"],
    ]
    assert max(map(len, out.splitlines())) <= 80
    assert (code, "1 of 4 rows" in err, "Every row" in out) == (1, True, False)
    assert "[4] not exact: only when" in out
    _, out, _ = run(SHIPPED / "internal-mirror", "--endpoints", "--json")
    told = {row["policy"]: (row["protocols"], row["exact"], len(row["when"])) for row in json.loads(out)["endpoints"]}
    assert told == {
        "mirror-git-ssh": (["tcp"], True, 0),
        "mirror-git-https": (["tls"], True, 0),
        "mirror-packages": (["tls"], True, 0),
        "mirror-system-packages": (["http"], False, 3),
    }


def test_a_table_of_which_every_row_is_exact_says_so(run: Run) -> None:
    code, out, err = run(SHIPPED / "developer", "--endpoints")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "Every row is exact: agent may connect to this and to nothing else."


def test_a_table_keeps_every_name_whole(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = f"{'a' * 60}.{'b' * 60}.example"
    numbers = ", ".join(map(str, range(1, 20, 2)))
    rule = (
        f'@id("long") permit ({CONNECT}, resource in Sandbox::Domain::"{name}")'
        f" when {{ [{numbers}].contains(context.port)"
        ' && context has ip && !(context.ip.isInRange(ip("10.1.2.0/23")) || context.ip == ip("192.0.2.9")'
        ' || context.ip == ip("192.0.2.99")) };'
        f'@id("not") forbid ({CONNECT}, resource == Sandbox::Host::"evil.{name}");'
    )
    code, out, _ = run(write_bundle(tmp_path, rule), "--endpoints")
    lines = out.splitlines()
    assert code == 0
    assert lines[1].startswith(f"{name} and *.{name} (not all)  10 ranges")
    assert "3 networks" in lines[1]
    flat = "".join(out.split())
    assert f"notamongthem:evil.{name}" in flat
    assert "theports1,3,5,7,9,11,13,15,17,19" in flat
    assert "thenetworksnot10.1.2.0/23not192.0.2.9not192.0.2.99" in flat


def test_an_agent_that_may_connect_to_nothing(run: Run) -> None:
    code, out, err = run(SHIPPED / "airgapped", "--endpoints")
    assert (code, out, err) == (0, "", "agent may connect to nothing\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "nothing to explain"), (("--endpoints", "--principal", "nobody"), "no agent 'nobody'")],
)
def test_what_cannot_be_explained(run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = run(write_bundle(tmp_path, RULES), *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_which_agent_has_to_be_said_where_there_are_two(run: Run, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, RULES, entities=agents("one", "two"))
    code, _, err = run(bundle, "--endpoints")
    assert code == 2
    assert "which agent" in err
    assert run(bundle, "--endpoints", "--principal", "two")[0] == 0
