"""What policies see of a connection's first bytes: one form for each request, and no facts that contradict another."""

from __future__ import annotations

import pytest
from tests.unit.test_policy_engine import BASE

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import actions
from cedarbox.policy.canonical import Host
from cedarbox.review.arguments import arguments_of

HOST = Host("a.example")


def test_a_request_is_in_the_context_as_it_came() -> None:
    action = actions.connect(BASE, HOST, port=80, proto="http", method="GET", path="/a%2Fb/ c/", upgrade="websocket")
    assert action.context["http"] == {"method": "GET", "path": "/a%2Fb/ c/", "upgrade": "websocket"}
    assert action.summary == "port 80 http GET /a%2Fb/ c/ to become websocket"
    plain = actions.connect(BASE, HOST, port=80, proto="http", method="GET", path="/")
    assert plain.context["http"] == {"method": "GET", "path": "/"}
    assert "hello" not in plain.context


@pytest.mark.parametrize("hello", ["unnamed", "encrypted"])
def test_a_hello_is_in_the_context_and_in_the_summary(hello: str) -> None:
    action = actions.connect(BASE, HOST, port=443, proto="tcp", hello=hello)
    assert action.context["hello"] == {"__entity": {"type": "Sandbox::Hello", "id": hello}}
    assert action.summary == f"port 443 tcp with TLS {hello}"


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "get", "path": "/"},
        {"method": "", "path": "/"},
        {"method": "GET /x", "path": "/"},
        {"method": "GET", "path": ""},
        {"method": "GET", "path": "a"},
        {"method": "GET", "path": "*"},
        {"method": "GET", "path": "//a"},
        {"method": "GET", "path": "/a/../b"},
        {"method": "GET", "path": "/a/.."},
        {"method": "GET", "path": "/./a"},
        {"method": "GET", "path": "/a\\b"},
        {"method": "GET", "path": "/a?b"},
        {"method": "GET", "path": "/a#b"},
        {"method": "GET", "path": "/a\r\nHost: b"},
        {"method": "GET", "path": "/a\x00"},
        {"method": "GET", "path": "/\udcff"},
        {"method": "GET", "path": "/" + "a" * 8192},
        {"method": "GET", "path": "/", "upgrade": "WebSocket"},
        {"method": "GET", "path": "/", "upgrade": "websocket, h2c"},
        {"method": "GET", "path": "/", "upgrade": ""},
    ],
)
def test_a_request_in_another_form_has_no_name(request_: dict[str, str]) -> None:
    with pytest.raises(CanonicalizationError):
        actions.connect(BASE, HOST, port=80, proto="http", **request_)  # type: ignore[arg-type]  # a table


@pytest.mark.parametrize(
    "facts",
    [
        {"proto": "tcp", "method": "GET", "path": "/"},
        {"proto": "http", "method": "GET"},
        {"proto": "http", "path": "/"},
        {"proto": "http", "upgrade": "websocket"},
        {"proto": "tls", "hello": "unnamed"},
        {"proto": "tls", "hello": "encrypted"},
        {"proto": "tcp", "hello": "named"},
        {"proto": "http", "hello": "named"},
    ],
)
def test_facts_that_no_connection_has_together(facts: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"hello|together|needs|not tcp") as caught:
        actions.connect(BASE, HOST, port=80, **facts)  # type: ignore[arg-type]  # a table
    assert not isinstance(caught.value, CanonicalizationError)


def test_cases_can_give_them() -> None:
    known = arguments_of("connect")
    assert known["hello"].members == {"named", "unnamed", "encrypted"}
    for name in ("hello", "method", "path", "upgrade"):
        assert (known[name].nullable, known[name].required, known[name].default) == (True, False, None)
