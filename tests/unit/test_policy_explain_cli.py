"""``cedarbox policy explain`` of a decision, and ``policy endpoints``, as they are called."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED, agents, write_bundle
from tests.unit.commands import Run, in_process
from tests.unit.guarded import Guarded

from cedarbox.guard.question import Question
from cedarbox.policy import actions

MIRROR = SHIPPED / "internal-mirror"
ASKED = ("connect", "principal=agent", "target=mirror.corp.example", "port=8443", "proto=tls", "ip=10.0.0.5")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy")


def test_arguments(run: Run) -> None:
    code, out, _ = run("explain", MIRROR, *ASKED)
    assert code == 0
    assert "DENY by no policy" in out
    assert "context.port is 8443" in out
    assert "permitted if port were 443 (it is 8443), by mirror-packages" in out


def test_json_is_for_scripts(run: Run) -> None:
    code, out, _ = run("explain", MIRROR, *ASKED, "--json")
    told = json.loads(out)
    assert (code, told["decision"], told["smallest"]["proved"]) == (0, "deny", True)
    assert told["changes"][0]["change"] == {"port": 443}
    packages = next(policy for policy in told["policies"] if policy["id"] == "mirror-packages")
    assert [part["status"] for part in packages["parts"]] == ["held", "held", "held", "failed", "held"]
    assert all(part["line"] for part in packages["parts"])


def test_a_case_of_the_tests(run: Run) -> None:
    text = (MIRROR / "tests" / "network.yaml").read_text().split("\n")
    line = next(number for number, each in enumerate(text, 1) if "plain HTTP to the git host" in each)
    code, out, _ = run("explain", MIRROR, "--case", f"tests/network.yaml:{line}")
    assert code == 0
    assert "expects deny: plain HTTP to the git host" in out


def test_a_request_in_cedars_form(run: Run, tmp_path: Path) -> None:
    _, out, _ = run("explain", MIRROR, *ASKED, "--json")
    told = json.loads(out)["request"]
    asked = {
        "principal": 'Sandbox::Agent::"agent"',
        "action": {"type": "Sandbox::Action", "id": "connect"},
        "resource": {"type": "Sandbox::Host", "id": "mirror.corp.example"},
        "context": told["context"],
    }
    file = tmp_path / "request.json"
    file.write_text(json.dumps(asked))
    code, out, _ = run("explain", MIRROR, "--request", file, "--json")
    assert (code, json.loads(out)["request"]["arguments"]["port"]) == (0, 8443)
    file.write_text(
        json.dumps({**asked, "context": {**told["context"], "ipClass": {"type": "Sandbox::IpClass", "id": "public"}}})
    )
    code, _, err = run("explain", MIRROR, "--request", file)
    assert code == 2
    assert "cedarbox makes no such request: context.ipClass would be" in err


async def test_a_record_of_the_ledger(run: Run, tmp_path: Path) -> None:
    policies = """
        @id("files") permit (principal, action == Sandbox::Action::"readFile", resource in Sandbox::GuestPath::"/srv")
        when { context has user && context.user == "agent" };
    """
    guarded = Guarded(tmp_path, policies)
    question = Question(
        "read", lambda base: actions.touch_file(base, path="/srv/a", operation="read", user="agent"), "/srv/a"
    )
    await guarded.client.gate.ask(question)
    (record,) = guarded.records("decision")
    ledger = tmp_path / "ledger"
    code, out, _ = run("explain", tmp_path / "bundle", "--record", record.seq, "--ledger", ledger)
    assert code == 0
    assert "does not hold backend, agent, user; explained with" in out
    assert "is of another decision than record" in out
    code, out, _ = run("explain", tmp_path / "bundle", "user=agent", "--record", record.seq, "--ledger", ledger)
    assert "ALLOW by files" in out
    assert "user is what you say" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which request? nothing to explain"),
        (("conect",), "did you mean connect?"),
        (("connect", "principal=agent", "prt=1"), "did you mean port?"),
        (("connect", "principal=agent", "port=many"), "port is 'many'"),
        (("connect", "principal=agent", "target"), "is not name=value"),
        (("connect", "principal=agent", "target=a.example"), "needs port"),
        (("connect", "port=1", "port=2"), "given twice"),
        (("connect", "principal=agent", "target=a.example", "port=1", "proto=tls", "hello=unnamed"), "no such request"),
        (("--case", "network.yaml"), "is not FILE:LINE"),
        (("--case", "network.yaml:1"), "no case begins at"),
        (("--case", "other.yaml:1"), "no file of test cases"),
        (("--request", "/no/such/file"), "cannot read it"),
        (("--record", "1", "--ledger", "/no/such/ledger"), "ledger"),
        (("exec", "command=a", "--case", "network.yaml:12"), "which request? an action and --case"),
        (("exec", "command=a", "--format", "csv"), "cannot be printed as csv"),
        (("exec", "command=a", "--endpoints"), "explains no request"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = run("explain", MIRROR, *arguments)
    assert (code, len(err.strip().split("\n"))) == (2, 1)
    assert said in err


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"{", b"[]", b"{}", b"[" * 100_000, b'{"principal": 1}', b'{"action": "A", "x": 1}', b'"\\ud800"'],
    ids=["utf8", "json", "list", "empty", "deep", "type", "key", "surrogate"],
)
def test_a_file_that_is_no_request(run: Run, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(content)
    code, _, err = run("explain", MIRROR, "--request", file)
    assert (code, len(err.strip().split("\n"))) == (2, 1)
    assert "request.json" in err


def test_endpoints_of_all_agents(run: Run, tmp_path: Path) -> None:
    policies = """
        @id("a") permit (principal == Sandbox::Agent::"one", action == Sandbox::Action::"connect",
            resource == Sandbox::Host::"a.example");
        @id("b") permit (principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"b.example");
    """
    bundle = write_bundle(tmp_path, policies, entities=agents("one", "two", "three"))
    code, out, _ = run("endpoints", bundle, "--all", "--format", "csv")
    rows = [(row["agents"], row["host"]) for row in csv.DictReader(io.StringIO(out))]
    assert (code, rows) == (0, [("one", "a.example"), ("one", "b.example"), ("three two", "b.example")])
    code, out, _ = run("endpoints", bundle, "--all", "--json")
    told = json.loads(out)
    assert [(each["principal"], len(each["endpoints"])) for each in told] == [("one", 2), ("three", 1), ("two", 1)]
    _, out, _ = run("endpoints", bundle, "--all")
    assert "three, two:" in out
    assert run("endpoints", bundle)[0] == 2
    assert run("endpoints", bundle, "--all", "--principal", "one")[0] == 2
    _, old, _ = run("explain", bundle, "--endpoints", "--principal", "two", "--json")
    assert run("endpoints", bundle, "--principal", "two", "--json")[1] == old
