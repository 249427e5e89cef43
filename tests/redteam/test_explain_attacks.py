"""Explanations that would say more than is so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.unit.bundles import agents, write_bundle

from cedarbox.cli import main
from cedarbox.errors import ConfigurationError
from cedarbox.review.explain.decision import explain, report_of
from cedarbox.review.explain.records import Facts, of_record
from cedarbox.review.explain.requests import of_arguments
from cedarbox.review.reports import render
from cedarbox.review.subject import Subject

CONNECT = 'principal, action == Sandbox::Action::"connect"'


def test_change_that_nobody_could_ask_for(tmp_path: Path) -> None:
    """The permit wants what no connection has: a port beyond 65535, and an address of one class with another.

    No change is suggested, and that none exists is proved or left open; it is never said that one exists.
    """
    policies = f"""
        permit ({CONNECT}, resource) when {{ context.port == 70000 }};
        permit ({CONNECT}, resource) when {{
            context has ip && context.ip == ip("127.0.0.1") && context.ipClass == Sandbox::IpClass::"public" }};
    """
    subject = Subject.load(write_bundle(tmp_path, policies))
    given = ("target=a.example", "port=443", "proto=tls", "ip=127.0.0.1")
    told = explain(subject, of_arguments("connect", given, default_principal="agent"))
    assert told.found is not None
    assert told.found.flips == ()
    assert "permitted if" not in render(report_of(told), "text")


def test_permit_that_a_forbid_outweighs(tmp_path: Path) -> None:
    """One change would make the permit apply, and the forbid with it.

    What is told was decided with both, so that change is not told; the one that is takes two.
    """
    policies = f"""
        @id("web") permit ({CONNECT}, resource) when {{ context.port == 443 }};
        @id("not") forbid ({CONNECT}, resource == Sandbox::Host::"a.example") when {{ context.port == 443 }};
    """
    subject = Subject.load(write_bundle(tmp_path, policies))
    given = ("target=a.example", "port=80", "proto=tcp")
    told = explain(subject, of_arguments("connect", given, default_principal="agent"))
    assert told.found is not None
    assert [flip.seen for flip in told.found.flips] == [{"resource", "context.port"}]
    assert all(flip.decision.allowed for flip in told.found.flips)


def test_change_with_fewer_arguments_that_is_a_larger_one(tmp_path: Path) -> None:
    """The request names an address; the smallest change names a host at that very address, and another agent.

    Without the address the change has fewer arguments, and policies see more of it. It was taken for the smaller one,
    and the solver was asked again and again for one that is smaller still: explain did not end.
    """
    policies = f"""
        @id("in") permit ({CONNECT}, resource in Sandbox::Domain::"a.example");
        @id("not") forbid (principal == Sandbox::Agent::"agent", action == Sandbox::Action::"connect", resource);
    """
    subject = Subject.load(write_bundle(tmp_path, policies, entities=agents("agent", "other")))
    given = ("target=10.9.8.7", "port=22", "proto=tcp")
    told = explain(subject, of_arguments("connect", given, default_principal="agent"))
    assert told.found is not None
    assert [flip.seen for flip in told.found.flips] == [{"principal", "resource"}]
    assert "No smaller change exists" in told.least


def test_change_of_what_the_id_of_an_image_does_not_tell(tmp_path: Path) -> None:
    """The smallest change names another repository, which the id of the image does not tell, and a number.

    The solver was not told that the repository is the same, and offered the same change as a smaller one without end.
    """
    policies = """
        permit (principal, action == Sandbox::Action::"create", resource in Sandbox::ImageRepo::"corp/q")
        when { context has vcpus && context.vcpus * 7 == 777 };
    """
    subject = Subject.load(write_bundle(tmp_path, policies))
    given = ("image=python:3", "digest=null", "repository=local", "isolation=microvm", "egress=none")
    told = explain(subject, of_arguments("create", given, default_principal="agent"))
    assert told.found is not None
    assert [flip.change for flip in told.found.flips] == [{"repository": "corp/q", "vcpus": 111}]
    assert told.found.least_is_proved
    assert 'in ImageRepo::"local"' in render(report_of(told), "text")


def test_record_that_was_completed_with_something_else(tmp_path: Path) -> None:
    """What a record holds is given again on the command line, with another value.

    It is refused: an explanation of a record is about what the record holds.
    """
    facts = Facts(7, "connect", 'Host::"a.example"', "port 443 tls to 10.0.0.5", "2026-01-01T00:00:00Z", "agent")
    request = of_record(facts, ("hello=named",))
    assert (request.values["port"], request.values["ip"]) == (443, "10.0.0.5")
    for item in ("port=80", "ip=10.0.0.6", "target=b.example", "principal=other", "method=GET"):
        with pytest.raises(ConfigurationError, match="record 7"):
            of_record(facts, (item,))


def test_record_of_a_call_of_which_it_does_not_say_by_whom() -> None:
    """A record does not hold the name of the SDK agent, and policies may depend on it.

    It was taken for a request without one, nothing said so, and the name could not be given. What a record does say,
    as the address of a connection, is not told as lacking.
    """
    connection = "port 443 tls to 10.0.0.5"
    facts = Facts(7, "connect", 'Host::"a.example"', connection, "2026-06-01T12:00:00Z", "agent")
    lacking = of_record(facts, ())
    assert lacking.notes == (
        "record 7 does not hold backend, agent, hello; explained with backend=boxlite, agent=null, hello=null",
    )
    given = of_record(facts, ("agent=coder",))
    assert given.made is not None
    assert given.made.context["base"]["agent"] == "coder"


def test_record_whose_text_is_no_request(tmp_path: Path) -> None:
    """A denied request had no canonical form, so its record holds the text that was asked for.

    Nothing is made of it; the same for a summary that is not in the form that cedarbox writes.
    """
    for resource in ("0xA9FEA9FE", 'Host::"A.example"', 'Agent::"agent"', 'Host::"a\\"', ""):
        with pytest.raises(ConfigurationError, match="record 7"):
            of_record(Facts(7, "connect", resource, "port 443 tls", "2026-01-01T00:00:00Z", "agent"), ())
    with pytest.raises(ConfigurationError, match="does not hold port, proto"):
        of_record(Facts(7, "connect", 'Host::"a.example"', "port 443 ssh", "2026-01-01T00:00:00Z", "agent"), ())


def test_text_of_a_bundle_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids, reasons and values hold characters that drive a terminal or turn the direction of writing.

    None of them is printed as it is, neither by explain nor by endpoints nor by compile.
    """
    evil = "a\\u{1b}[31m\\u{202e}\\n::error::x"
    policies = f"""
        @id("{evil}") @reason("{evil}") @advice("{evil}")
        permit ({CONNECT}, resource == Sandbox::Host::"a.example") when {{ context.base.backend != "{evil}" }};
    """
    bundle = write_bundle(tmp_path, policies, entities=agents("agent\x1b[31m\u202e"))
    asked = ["connect", "target=a.example", "port=1", "proto=tcp", "backend=\x1b]0;x\x07"]
    for arguments in (["explain", *asked], ["endpoints", "--all"], ["compile", "--backend", "boxlite"]):
        command, *rest = arguments
        monkeypatch.setattr(sys, "argv", ["cedarbox", "policy", command, str(bundle), *rest])
        with pytest.raises(SystemExit):
            main()
        out, err = capsys.readouterr()
        assert "a.example" in out + err
        assert not {"\x1b", "\u202e", "\x07"} & set(out + err), command
        assert not any(line.startswith("::") for line in (out + err).split("\n"))
