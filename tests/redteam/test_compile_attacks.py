"""Allow-lists that would open more than the policies permit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.bundles import write_bundle

from cedarbox.policy import PolicyEngine
from cedarbox.policy.endpoints import endpoints
from cedarbox.policy.regions import PORTS, Box, Ranges, Targets
from cedarbox.review.allowlist.backends import backend_of
from cedarbox.review.allowlist.compiling import Compiled, check_list, report_of
from cedarbox.review.allowlist.forms import BackendName, Entry
from cedarbox.review.allowlist.judge import judge
from cedarbox.review.subject import Subject

RULES = """
@id("site") permit (principal, action == Sandbox::Action::"connect", resource in Sandbox::Domain::"site.example")
    when { context.ipClass == Sandbox::IpClass::"public" && [80, 443].contains(context.port) };
@id("lan") permit (principal, action == Sandbox::Action::"connect", resource is Sandbox::Address)
    when { resource.ip.isInRange(ip("10.20.0.0/16")) && context.port == 8080 };
@id("never") forbid (principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"bad.site.example");
"""


def held(
    tmp_path: Path, name: BackendName, entries: list[str], rules: str = RULES, classes: tuple[str, ...] = ()
) -> Compiled:
    subject = Subject.load(write_bundle(tmp_path / "bundle", rules))
    backend = backend_of(name, classes=classes)
    written = backend.write([backend.parse(entry) for entry in entries], "agent", "sha256:0")
    return check_list(subject, "agent", backend, written)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No solver is installed."""
    monkeypatch.setattr("cedarbox.review.allowlist.judge.available", lambda: "pip install 'cedarbox[prove]'")


@pytest.mark.parametrize(
    ("name", "good", "wide"),
    [
        ("boxlite", "site.example", "example"),
        ("boxlite", "site.example", "*.site.example"),
        ("boxlite", "a.site.example", "bad.site.example"),
        ("boxlite", "site.example", "xn--80ak6aa92e.example"),
        ("boxlite", "site.example", "10.20.0.0/16"),
        ("boxlite", "site.example", "10.20.0.1"),
        ("nftables", "10.20.0.0/16 . tcp . 8080", "10.20.0.0/15 . tcp . 8080"),
        ("nftables", "10.20.0.0/16 . tcp . 8080", "10.20.0.0/16 . tcp . 8080-8081"),
        ("nftables", "10.20.0.0/16 . udp . 8080", "169.254.169.254/32 . tcp . 8080"),
        ("nftables", "10.20.3.4/32 . tcp . 8080", "::/0 . tcp . 8080"),
        ("proxy", "site.example:443", "site.example:444"),
        ("proxy", "site.example:80", "site.example:79-80"),
        ("proxy", "a.site.example:443", "bad.site.example:443"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_entry_that_opens_a_little_more(tmp_path: Path, name: BackendName, good: str, wide: str) -> None:
    """A list holds a wildcard, a network one bit wider, one port more, a forbidden name, or a bare address.

    The entry is found without a solver, with a connection that it opens and Cedar denies; the other stays good.
    """
    told = held(tmp_path, name, [good, wide], classes=("public",) if name == "proxy" else ())
    assert [verdict.said for verdict in told.verdicts] == ["within", "wider"]
    assert (told.good, report_of(told).exit_code) == (False, 1)
    assert told.verdicts[1].witness


@pytest.mark.usefixtures("alone")
def test_proxy_that_dials_what_it_is_told(tmp_path: Path) -> None:
    """A list for a proxy is given without saying that the proxy refuses private addresses.

    Then a name in it may lead to the metadata service: the same list is good only with that guarantee.
    """
    assert held(tmp_path, "proxy", ["site.example:443"], classes=("public",)).good
    told = held(tmp_path, "proxy", ["site.example:443"])
    assert told.wider
    assert "ip=" in told.verdicts[0].witness or "assumed_class" in told.verdicts[0].witness


@pytest.mark.usefixtures("alone")
def test_condition_that_a_list_cannot_hold_up(tmp_path: Path) -> None:
    """The permit holds for one tool only, and the list is for all that run in the sandbox.

    No list keeps that, so the entry is wider than the policies.
    """
    rules = """@id("tool") permit (principal, action == Sandbox::Action::"connect", resource is Sandbox::Host)
        when { context.base has tool && context.base.tool == "fetch" };"""
    assert held(tmp_path, "boxlite", ["a.example"], rules).wider


def test_time_at_which_a_list_is_checked(tmp_path: Path) -> None:
    """The permit ends at a date, and the list is held against it before that.

    Regions do not know time and the connections that Cedar is asked about are permitted; the solver finds a later one.
    """
    rules = """@id("early") permit (principal, action == Sandbox::Action::"connect", resource is Sandbox::Host)
        when { context.base.at < datetime("2090-01-01") };"""
    told = held(tmp_path, "boxlite", ["a.example"], rules)
    assert told.wider
    assert "solver" in told.verdicts[0].how


def test_error_that_denies_what_a_list_opens(tmp_path: Path) -> None:
    """A forbid fails to evaluate for some ports, and an error denies everything.

    An entry that an intact policy would permit is not good then.
    """
    rules = (
        RULES
        + """@id("sum") forbid (principal, action == Sandbox::Action::"connect", resource)
        when { context.port + 9223372036854775400 > 9223372036854775807 };"""
    )
    told = held(tmp_path, "boxlite", ["site.example"], rules)
    assert not told.good


def test_entry_whose_box_lies(tmp_path: Path) -> None:
    """What an entry opens is encoded with all ports although its text names one.

    The verdict is about what is opened, not about the text: it is wider.
    """
    subject = Subject.load(write_bundle(tmp_path, RULES))
    assert subject.bundle is not None
    engine = PolicyEngine(subject.bundle)
    lies = Entry(
        "site.example:443", (Box(targets=Targets.host("site.example"), ports=PORTS, classes=frozenset({"public"})),)
    )
    honest = Entry(
        "site.example:443",
        (Box(targets=Targets.host("site.example"), ports=Ranges.of([(443, 443)]), classes=frozenset({"public"})),),
    )
    verdicts, _ = judge(engine, "agent", endpoints(engine, "agent"), [lies, honest], time_limit_s=20)
    assert [verdict.said for verdict in verdicts] == ["wider", "within"]


@pytest.mark.usefixtures("alone")
def test_agent_that_is_not_in_the_group(tmp_path: Path) -> None:
    """The list was made for one agent and is used for another.

    It is held against the policies for the agent that is named.
    """
    rules = RULES.replace("permit (principal,", 'permit (principal == Sandbox::Agent::"other",')
    assert held(tmp_path, "boxlite", ["site.example"], rules).wider


def test_text_that_ends_the_list(tmp_path: Path) -> None:
    """The name of an agent or an entry would end a comment, a set or a string of the written list.

    The name of the agent is on its comment line only, and no entry is taken that is no name, network or port.
    """
    agent = "agent\n*:1-65535\u2028*.example:443 } } table inet evil { "
    for backend in (backend_of("nftables"), backend_of("proxy")):
        assert backend.read(backend.write([], agent, "sha256:0")) == []
    assert json.loads(backend_of("boxlite").write([], agent, "sha256:0")) == {"egress_mode": "none"}
