"""``policy check``: every error where it stands, what cedarpy does not warn of, and never a traceback."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random

import pytest
from tests.unit.bundles import PERMIT_ALL, SHIPPED, agents, write_bundle
from typer.testing import CliRunner

from cedarbox.cli import app
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy import PolicyBundle
from cedarbox.policy.schema import schema_text
from cedarbox.review.check import check
from cedarbox.review.check.scripts import has_bidi, mixes_scripts, odd_character
from cedarbox.review.finding import Finding, Report
from cedarbox.review.json_places import json_places

LONG = os.environ.get("CEDARBOX_LONG") == "1"
SCHEMA = """entity G; entity U in [G] { a: Long, o?: Long, s: String, e: E } tags Long;
entity R { own: U, d: decimal }; entity E enum ["x"]; entity Z;
action v, w appliesTo { principal: U, resource: R, context: { t: Long, ip?: ipaddr } };"""


def when(condition: str) -> str:
    return f'permit (principal, action == Action::"v", resource) when {{ {condition} }};'


def of_cedar(directory: Path, text: str, schema: str = SCHEMA) -> Report:
    (directory / "p.cedar").write_text(text)
    (directory / "s.cedarschema").write_text(schema)
    return check([directory])


def quoted(found: Finding) -> str:
    """Return what stands at the place of a finding."""
    assert found.place is not None
    lines = Path(found.place.file).read_text().split("\n")
    assert found.place.column is not None
    assert found.place.end_column is not None
    assert found.place.line == found.place.end_line
    return lines[found.place.line - 1][found.place.column - 1 : found.place.end_column - 1]


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir()))
def test_finds_nothing_in_the_bundles_that_ship(name: str) -> None:
    report = check([SHIPPED / name])
    assert (report.findings, report.failed) == ([], False)
    assert report.data["policies"] == len(PolicyBundle.load(SHIPPED / name).policies)


def test_tells_every_statement_that_is_not_cedar(tmp_path: Path) -> None:
    text = "// x\npermit (principal, action, resource) when { context.t = 1 };\n"
    text += when("true") + "\n\n  permit (principal);\nforbid"
    report = of_cedar(tmp_path, text)
    assert [(f.rule, str(f.place).rsplit("p.cedar:", 1)[1]) for f in report.findings] == [
        ("C002", "2:55"),
        ("C002", "5:20"),
        ("C002", "6:7"),
    ]
    assert report.findings[0].hint == "compare with `==`"
    assert (report.failed, report.exit_code, report.data["policies"]) == (True, 1, 1)


@pytest.mark.parametrize(
    ("condition", "places"),
    [
        ("principal.b == 1 || principal.a == 2 && principal.b == 3", ["b", "b"]),
        ("principal.o == 1", ["o"]),
        ("context has ip && context.ip.isIpv4() && context.nope", ["nope"]),
        ("!(true && principal.s + 1 == 2) || principal.a == 1", ["principal.s + 1 == 2"]),
        ('principal.e == E::"x" && principal.e == E::"y"', ['"y"']),
        ('principal.getTag("k") == 1', ['"k"']),
        ('principal is Nope || resource == Nope::"x"', ["Nope", "Nope"]),
        ("if context.t == 1 then principal.zz == 1 else false", ["zz"]),
        ('context.t == 1 && ip("zz").isLoopback()', ['"zz"']),
        ("(context.t == 1) && (context.t == 2 || principal.a == true)", ["principal.a == true"]),
    ],
)
def test_places_an_error_of_the_validator_on_the_part_it_is_about(
    tmp_path: Path, condition: str, places: list[str]
) -> None:
    report = of_cedar(tmp_path, f"// é\n{when('true')} {when(condition)}")
    assert {f.rule for f in report.findings} == {"C003"}
    assert [quoted(f) for f in report.findings] == places


@pytest.mark.parametrize(
    ("scope", "condition", "hint"),
    [
        (
            'action == Sandbox::Action::"exec", resource is Sandbox::Host',
            "true",
            "exec is asked by Sandbox::Agent, about",
        ),
        ('action == Sandbox::Action::"exce", resource', "true", 'is Sandbox::Action::"exec" meant?'),
        ('action == Sandbox::Action::"exec", resource', "context.port == 1", "it has base, commandLine, shell, user"),
        ('action == Sandbox::Action::"exec", resource', 'context.base.tol == "x"', "it has at, backend, agent, tool"),
        ('action == Sandbox::Action::"exec", resource', 'principal.name == "x"', "it has tenant, trust"),
        (
            'action == Sandbox::Action::"connect", resource',
            'context.proto == Sandbox::Proto::"quic"',
            "one of tcp, udp, tls, http",
        ),
    ],
)
def test_tells_what_there_is_instead(tmp_path: Path, scope: str, condition: str, hint: str) -> None:
    write_bundle(tmp_path / "b", f'@id("p") permit (principal, {scope}) when {{ {condition} }};')
    assert any(hint in found.hint for found in check([tmp_path / "b"]).findings)


def test_an_error_in_very_many_places_is_told_in_some_and_says_that_there_may_be_more(tmp_path: Path) -> None:
    for count, more in ((7, False), (8, True)):
        condition = " || ".join(f'context.command like "*{number}*"' for number in range(count))
        report = of_cedar(tmp_path, when(condition))
        assert len(report.findings) == count
        assert (report.findings[-1].hint == "and maybe behind it: correct these and check again") is more


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ('permit (principal is Nope, action == Action::"v", resource);', "Nope"),
        ('permit (principal, action == Action::"q", resource);', '"q"'),
        (
            'permit (principal is R, action == Action::"v", resource);',
            'principal is R, action == Action::"v", resource',
        ),
    ],
)
def test_places_an_error_about_the_scope(tmp_path: Path, policy: str, place: str) -> None:
    assert place in [quoted(f) for f in of_cedar(tmp_path, policy).findings if f.rule == "C003"]


@pytest.mark.parametrize(
    ("condition", "place"),
    [
        ("resource is U", "resource is U"),
        ("context.t == 1 && (resource is R && principal is R)", "principal is R"),
        ("principal.a == 1 && principal has zzz", "principal has zzz"),
        ('true && principal == Z::"x" && true', 'principal == Z::"x"'),
        ('action in [Action::"w"]', 'action in [Action::"w"]'),
        ("context.t == 1 && false", "false"),
        ("principal has a", None),
        ("principal has zzz || principal.a == 1", None),
        ("context.t == 1 && context.t == 2", None),
        ("!(principal has zzz)", None),
    ],
)
def test_warns_of_policies_that_are_false_by_their_types(tmp_path: Path, condition: str, place: str | None) -> None:
    report = of_cedar(tmp_path, f"{when('true')}\n{when(condition)} // behind")
    assert [(f.rule, quoted(f)) for f in report.findings] == ([] if place is None else [("C010", place)])
    assert not report.failed
    assert check([tmp_path], deny_warnings=True).failed == (place is not None)


@pytest.mark.parametrize(
    ("condition", "rule", "place"),
    [
        ('principal.s == "p\u0430y"', "C012", '"p\u0430y"'),
        ('principal.s == "p\\u{430}y"', "C012", '"p\\u{430}y"'),
        ('principal.s like "p\u0430*"', "C012", '"p\u0430*"'),
        ('principal.s == "a\u202eb"', "C011", '"a\u202eb"'),
        ('principal == U::"a\u200bb"', "C013", '"a\u200bb"'),
        ('principal == U::"tab\\t"', "C013", '"tab\\t"'),
        ('{"p\u0430": 1} == {"p\u0430": 1}', "C012", None),
        ('principal == U::"x\u2066y"', "C011", '"x\u2066y"'),
    ],
)
def test_warns_of_text_that_looks_like_other_text(tmp_path: Path, condition: str, rule: str, place: str | None) -> None:
    findings = of_cedar(tmp_path, when(condition)).findings
    assert {f.rule for f in findings} == {rule}
    assert place is None or [quoted(f) for f in findings] == [place]
    assert all(f.message.isascii() for f in findings)


def test_warns_of_comments_that_turn_the_direction_of_writing(tmp_path: Path) -> None:
    (found,) = of_cedar(tmp_path, f"// fine\n// a \u202e b\n{when('true')}").findings
    assert (found.rule, str(found.place).rsplit(":", 2)[1:]) == ("C011", ["2", "6"])


def test_tells_writing_systems_apart() -> None:
    for good in ["abc", "日本ひらカタ", "한국漢字", "абв", "\u03b1\u03b2 1-2", "é…“x”", "ß", "", "x😀", "ｆｕｌｌ"]:  # noqa: RUF001
        assert not mixes_scripts(good), good
    for mixed in ["p\u0430y", "\u03b1a", "日a", "ㄅひ", "אa", "a\ue000"]:
        assert mixes_scripts(mixed), mixed
    assert [odd_character(text) for text in ["ab~ /{}", "é", "日本", "a\u200b", "\x7f", "🍌", "…"]] == [
        *("", "", "", "\u200b", "\x7f", "🍌", "…"),
    ]
    assert [has_bidi(text) for text in ["\u2069", "é"]] == [True, False]


def test_tells_everything_that_is_wrong_with_a_bundle(tmp_path: Path) -> None:
    root = write_bundle(
        tmp_path / "b",
        f"""{PERMIT_ALL}
@id("all") forbid (principal, action, resource) when {{ context.base.backend == 1 }};
@id("t") permit (principal == ?principal, action, resource);
@id("n") @requires_approval("nobody") permit (
  principal, action == Sandbox::Action::"invokeTool", resource);
permit (principal,;
""",
        metadata='nam = "x"\nname = "test"\nschema = 7\n[approvers]\n',
        entities=json.dumps(
            [
                {"uid": {"type": "Sandbox::Tenant", "id": "x"}, "attrs": {"nope": 1}, "parents": []},
                {"uid": {"type": "Sandbox::Host", "id": "x"}, "attrs": {"fqdn": "x"}, "parents": []},
                {"uid": {"type": "Sandbox::AgentGroup", "id": "g"}, "attrs": {}, "parents": []},
                {"uid": {"type": "Sandbox::AgentGroup", "id": "g"}, "attrs": {}, "parents": []},
            ],
            indent=1,
        ),
    )
    (root / "tests").mkdir()
    (root / "tests" / "a.yaml").write_text("connect: [\n")
    (root / "tests" / "b.yaml").write_text("connect: &x {}\n")
    report = check([root])
    told = [(f.rule, Path(f.place.file).name, f.place.line) for f in report.findings if f.place]
    assert sorted(told) == [
        ("C002", "policies.cedar", 6),
        ("C003", "policies.cedar", 2),
        ("C004", "policies.cedar", 2),
        ("C005", "policies.cedar", 3),
        ("C006", "entities.json", 8),
        ("C006", "entities.json", 13),
        ("C006", "entities.json", 31),
        ("C007", "bundle.toml", 1),
        ("C007", "bundle.toml", 3),
        ("C008", "a.yaml", 2),
        ("C008", "b.yaml", 1),
    ]
    assert report.checks == [], "what is wrong with a file is a finding, and is told once"
    assert all(f.message and "\n" not in f.message for f in report.findings)
    assert {rule.id for rule in report.rules} == {rule for rule, _, _ in told}


@pytest.mark.parametrize(
    ("entities", "line", "said"),
    [
        ("[\n{]", 2, "not JSON"),
        ("{}", 1, "expected a list"),
        ('[\n {"uid": 1}]', 2, "no uid"),
        ('[{"uid": {"type": "Sandbox::AgentGroup", "id": "g"},\n"attrs": {}, "attrs": {}, "parents": []}]', 2, "twice"),
        (
            '[{"uid": {"type": "Sandbox::AgentGroup", "id": "g"},\n"attrs": {}, "parents": [],\n"x": 1}]',
            3,
            "unknown key",
        ),
        ('[{"uid": {"type": "Sandbox::AgentGroup", "id": "g"},\n"attrs": {\n"z": 1}, "parents": []}]', 3, "`z`"),
        (
            (
                '[{"uid": {"type": "Sandbox::AgentGroup", "id": "g"},\n"attrs": {},\n'
                '"parents": [{"type": "Sandbox::Tenant", "id": "x"}]}]'
            ),
            3,
            "ancestor",
        ),
        ("[" * 100_000, 1, "not JSON"),
    ],
)
def test_places_errors_of_entities(tmp_path: Path, entities: str, line: int, said: str) -> None:
    root = write_bundle(tmp_path / "b", PERMIT_ALL, entities=entities)
    findings = check([root]).findings
    assert {f.rule for f in findings} == {"C006"}
    found = next(f for f in findings if said in f.message)
    assert found.place is not None
    assert found.place.line == line


@pytest.mark.parametrize("name", ["bundle.toml", "entities.json"])
def test_a_bundle_that_lacks_a_file(tmp_path: Path, name: str) -> None:
    root = write_bundle(tmp_path / "b", PERMIT_ALL)
    (root / name).unlink()
    report = check([root])
    assert report.failed


def test_whatever_the_loader_refuses_is_told(tmp_path: Path) -> None:
    chain = [
        {
            "uid": {"type": "Sandbox::AgentGroup", "id": str(n)},
            "attrs": {},
            "parents": [{"type": "Sandbox::AgentGroup", "id": str(n + 1)}],
        }
        for n in range(40)
    ]
    root = write_bundle(tmp_path / "b", PERMIT_ALL, entities=json.dumps(chain))
    (found,) = check([root]).findings
    assert (found.rule, "nested more than" in found.message) == ("C006", True)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ('@requires_approval("nobody")', "no declared approver"),
        ('@requires_aproval("x")', ""),
        ("@Approved", "is not an annotation"),
    ],
)
def test_tells_of_approvals_that_could_not_be_held_to(tmp_path: Path, annotation: str, said: str) -> None:
    policy = 'permit (principal, action == Sandbox::Action::"invokeTool", resource);'
    root = write_bundle(tmp_path / "b", f"{PERMIT_ALL}\n\n  {annotation} {policy}\n{policy.replace('(', ')', 1)}")
    told = [f for f in check([root]).findings if f.rule == "C005"]
    assert [said in f.message for f in told] == ([True] if said else [])
    assert all(f.place and (f.place.line, f.place.column) == (3, 4) for f in told)


def test_checks_many_entities_without_asking_for_each(tmp_path: Path) -> None:
    items = json.loads(agents(*(f"a{n}" for n in range(300))))
    items[200]["attrs"]["trust"]["__entity"]["id"] = "trustful"
    root = write_bundle(tmp_path / "b", PERMIT_ALL, entities=json.dumps(items, indent=1))
    (found,) = check([root]).findings
    assert found.place is not None
    assert '"id": "a198"' in "".join(
        (root / "entities.json").read_text().split("\n")[found.place.line - 10 : found.place.line + 10]
    )


def test_finds_schema_and_entities_of_plain_policies(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.cedar").write_text(when("principal.a == 1"))
    schema = tmp_path / "schema.json"
    assert check([tmp_path]).findings[0].rule == "C009"
    schema.write_text('{"": {"entityTypes": {}, "actions": {}}}')
    assert {f.rule for f in check([tmp_path]).findings} == {"C003"}
    (tmp_path / "a.cedarschema").write_text(SCHEMA)
    assert check([tmp_path]).findings == []
    assert {f.rule for f in check([tmp_path], schema=schema).findings} == {"C003"}
    (tmp_path / "entities.json").write_text(
        '[{"uid": {"type": "U", "id": "x"},\n'
        ' "attrs": {"a": "s", "s": "", "e": {"type": "E", "id": "x"}}, "parents": []}]'
    )
    (found,) = check([tmp_path]).findings
    assert found.place is not None
    assert (found.rule, found.place.line) == ("C006", 2)
    (tmp_path / "b.cedarschema").write_text("entity A {")
    assert "several schemas" in check([tmp_path]).findings[0].message
    (found, *_) = check([tmp_path], schema=tmp_path / "b.cedarschema").findings
    assert (found.rule, str(found.place).rsplit("/", 1)[-1]) == ("C009", "b.cedarschema:1:11")


def test_checks_template_links(tmp_path: Path) -> None:
    (tmp_path / "s.cedarschema").write_text(SCHEMA)
    (tmp_path / "t.cedar").write_text('@id("t") permit (principal == ?principal, action, resource);')
    links = tmp_path / "l.json"
    good = {"templateId": "t", "newId": "a", "values": {"?principal": {"type": "U", "id": "x"}}}
    links.write_text(json.dumps([good, {"template_id": "t", "link_id": "b", "args": {"?principal": 'U::"y"'}}]))
    assert check([tmp_path], links=links).findings == []
    links.write_text(json.dumps([good, good, {**good, "templateId": "u", "newId": "c"}]))
    assert [f.rule for f in check([tmp_path], links=links).findings] == ["C014", "C014"]
    links.write_text("[1]")
    assert [f.rule for f in check([tmp_path], links=links).findings] == ["C014"]


def test_the_command_line(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "b", f"{PERMIT_ALL}\npermit (principal")
    result = CliRunner().invoke(app, ["policy", "check", str(root), "--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["findings"][0]["rule"]) == (1, "C002")
    result = CliRunner().invoke(app, ["policy", "check", str(SHIPPED / "airgapped")])
    assert (result.exit_code, "nothing wrong" in result.stdout) == (0, True)
    for form in ("sarif", "github", "gitlab", "junit", "tap", "markdown"):
        assert CliRunner().invoke(app, ["policy", "check", str(root), "--format", form]).exit_code == 1


@pytest.mark.parametrize("block", range(40 if LONG else 1))
def test_never_breaks_on_damaged_bundles(tmp_path: Path, block: int) -> None:
    """Whatever bytes are changed: a report comes out, and it fails whenever the loader refuses."""
    sources = {path.name: path.read_bytes() for path in (SHIPPED / "baseline").iterdir() if path.is_file()}
    root = shutil.copytree(SHIPPED / "baseline", tmp_path / "b", ignore=shutil.ignore_patterns("tests"))
    pieces = [
        b"\xff",
        b"\0",
        b"(",
        b"{",
        b'"',
        b"\\",
        b"'",
        b"\xe2\x80\xae",
        b";",
        b"//",
        b"\r",
        b"=",
        b"[",
        b"9" * 30,
        b"if ",
    ]
    pieces += [
        b"(" * 200,
        b"?principal",
        b"@",
        b"::",
        b"\n",
        b"-",
        b"]",
        b",",
        b"__cedar",
        b"context",
        b"null",
        b"1e999",
    ]
    failed = 0
    for seed in range(block * 20, block * 20 + 20):
        random = Random(seed)
        for name, data in sources.items():
            (root / name).write_bytes(data)
        name = random.choice(sorted(sources))
        data = sources[name]
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(data))
            data = data[:at] + random.choice([b"", random.choice(pieces)]) + data[at + random.randint(0, 8) :]
        (root / name).write_bytes(data)
        report = check([root])
        try:
            PolicyBundle.load(root)
        except BundleError:
            assert report.failed, seed
            failed += 1
        else:
            assert not report.failed, (seed, report.findings)
        for found in report.findings:
            assert found.place is not None, seed
            assert found.place.line >= 1, seed
    assert failed > 5


@pytest.mark.parametrize(
    "text",
    ["", " ", '"a"', "[]", '{"a": {"b\\u0041": [1, {"c": null}]}, "d": "x,]"}', "[[1],[2,[3]]]", "[1, 2.5e3, true]"],
)
def test_knows_where_each_value_of_json_stands(text: str) -> None:
    places = json_places(text)
    if not text.strip():
        assert not places.values
        return
    for path, span in places.values.items():
        value = json.loads(text)
        for key in path:
            value = value[key]
        assert json.loads(text[span.start : span.end]) == value
    assert () in places.values


def test_the_packaged_schema_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(PERMIT_ALL)
    schema = tmp_path / "x.cedarschema"
    schema.write_text(schema_text())
    assert check([tmp_path]).findings == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nowhere"], "nowhere: cannot read it (No such file or directory)"),
        (["/dev/null"], "/dev/null: neither a directory nor a .cedar file"),
        (["b", "--schema", "nowhere"], "--schema nowhere: no such file"),
        (["b", "--entities", "nowhere"], "--entities nowhere: no such file"),
        (["b", "--entities", "b/entities.json"], "b is a bundle, with its own entities"),
    ],
)
def test_what_is_not_there_is_bad_input_and_no_finding(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "b", PERMIT_ALL)
    failed = CliRunner().invoke(app, ["policy", "check", *given])
    assert isinstance(failed.exception, ConfigurationError)
    assert str(failed.exception).startswith(said)


def test_a_mistake_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "b", "permit (;")
    told = CliRunner().invoke(app, ["policy", "check", "b"]).stdout.splitlines()
    assert [line.split(":")[0] for line in told] == ["b/policies.cedar", "b"]
    assert told[-1] == "b: 0 policies in 3 files: 1 error"


def test_a_file_of_a_bundle_leads_to_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "b", PERMIT_ALL)
    told = CliRunner().invoke(app, ["policy", "check", "b/policies.cedar"]).stdout
    assert "it is in a bundle: check that, b" in told
    failed = CliRunner().invoke(app, ["policy", "lint", "b/policies.cedar"])
    assert "lint the bundle that it is in: b" in str(failed.exception)
