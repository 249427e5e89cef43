"""Attacks on the page of the collector: by what is sent to it, by other sites, by whoever asks for pages."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from tests.unit.bundles import PERMIT_ALL, write_bundle

from cedarbox.audit import Entry, Ledger
from cedarbox.audit.record import GENESIS, format_time, seal
from cedarbox.collector import EmbeddedCollector
from cedarbox.collector.page import PageOptions
from cedarbox.policy import PolicyBundle

TRACE: Final = "ab" * 16
STREAM: Final = "20261127T000000000000Z-00000000"
PAYLOAD: Final = "\"'><x-attack onx=1></textarea></script><svg/onload=x>"
BIDI: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HIDDEN: Final = "\u200b\u2060\ufeff\u00ad\u3164\u2800"
PAGES: Final = (
    "/", "/runs", "/runs?kind=all", f"/runs/{TRACE}", f"/runs/{TRACE}?spans=notable", "/decisions", "/decisions?event=",
    f"/records/{STREAM}/0", "/sandboxes", f"/sandboxes/{quote(PAYLOAD)}", "/snapshots", "/egress", "/approvals",
    "/ledger", "/metrics", f"/search?q={quote(PAYLOAD)}", f"/decisions?policy={quote(PAYLOAD)}", "/nothing",
)  # fmt: skip


class Site:
    """A collector with its page, what is sent to it, and what is read there."""

    def __init__(self, collector: EmbeddedCollector) -> None:
        self.client = httpx.Client(base_url=collector.url, follow_redirects=False, trust_env=False, timeout=60)
        self.port = int(collector.url.rpartition(":")[2])
        self._records: dict[str, tuple[int, str]] = {}

    def record(self, stream: str = STREAM, **fields: Any) -> str:
        """Send the next record of a stream, as the shipper does; return its line."""
        seq, prev = self._records.get(stream, (0, GENESIS))
        moment = 1_795_700_000_000_000_000 + seq * 1_000_000
        sealed, line, _ = seal(Entry(trace_id=TRACE, **fields), seq, format_time(moment), prev)
        self._records[stream] = (seq + 1, sealed.hash)
        text = line[:-1].decode()
        self.log(text, f"{stream}/{seq}", f"cedarbox.{sealed.entry.event}", moment)
        return text

    def log(self, body: str, record_id: str, event: str, time_ns: int = 1, **attributes: str) -> None:
        """Send any log record."""
        named = {"audit.record.id": record_id, **attributes}
        record = LogRecord(
            time_unix_nano=time_ns,
            event_name=event,
            trace_id=bytes.fromhex(TRACE),
            body=AnyValue(string_value=body),
            attributes=_attributes(named),
        )
        logs = [ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])]
        self._send("/v1/logs", ExportLogsServiceRequest(resource_logs=logs).SerializeToString())

    def spans(self, *spans: Span) -> None:
        """Send spans."""
        outer = [ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
        self._send("/v1/traces", ExportTraceServiceRequest(resource_spans=outer).SerializeToString())

    def text(self, path: str, **options: Any) -> str:
        """Read a page."""
        return self.client.get(path, **options).text

    def raw(self, head: str) -> bytes:
        """Send bytes as no well-behaved client would, and return the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(head.encode("latin-1"))
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return answer

    def _send(self, path: str, body: bytes) -> None:
        sent = self.client.post(path, content=body, headers={"content-type": "application/x-protobuf"})
        assert sent.status_code == 200, sent.text


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", PERMIT_ALL)
    return tmp_path


@pytest.fixture
def site(directory: Path) -> Iterator[Site]:
    options = PageOptions(ledger=directory / "ledger", policies=(directory / "bundle",))
    with EmbeddedCollector(directory / "collector", port=0, page=options) as collector:
        found = Site(collector)
        with found.client:
            yield found


class _Markup(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "action"}]


def _attributes(values: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in values.items()]


def _span(number: int, parent: int = 0, *, name: str = "s", message: str = "", **attributes: str) -> Span:
    return Span(
        trace_id=bytes.fromhex(TRACE),
        span_id=number.to_bytes(8),
        parent_span_id=parent.to_bytes(8) if parent else b"",
        name=name,
        start_time_unix_nano=1_795_700_000_000_000_000,
        end_time_unix_nano=1_795_700_000_001_000_000,
        status=Status(code=Status.STATUS_CODE_ERROR, message=message) if message else None,
        attributes=_attributes({key.replace("__", "."): value for key, value in attributes.items()}),
    )


def _hostile(event: str, text: str) -> dict[str, Any]:
    names = ("session", "run", "principal", "tool", "call_id", "action", "resource", "bundle", "outcome")
    attrs = {text: text, "nested": {text: [text]}}
    for name in ("reason", "summary", "snapshot.id", "snapshot.of", "image", "address", "snapshot.sha256"):
        attrs[name] = text
    return {"event": event, **dict.fromkeys(names, text), "policies": (text,), "errors": (text,), "attrs": attrs}


def test_markup_in_every_field_of_a_record(site: Site) -> None:
    """Every text of a record, and every key of its facts, is markup that would run a script.

    On every page it is text: no element and no attribute comes of it, and every link leads to this site.
    """
    for event in ("decision", "sandbox.created", "snapshot.created", "snapshot.forked", "approval.requested"):
        site.record(**_hostile(event, PAYLOAD), decision="deny" if event == "decision" else None)
    site.record(**{**_hostile("decision", PAYLOAD), "action": "connect"}, decision="deny")
    shown = 0
    for path in PAGES:
        answer = site.client.get(path)
        markup = _Markup()
        markup.feed(answer.text)
        assert answer.status_code in {200, 404}, path
        assert "x-attack" not in markup.tags, path
        assert not {name for name in markup.attributes if name.startswith("on") or name == "style"}, path
        assert all(link.startswith(("/", "#", "?")) and not link.startswith("//") for link in markup.links), path
        shown += "&lt;x-attack onx=1&gt;" in answer.text
    assert shown >= 12


def test_markup_in_every_field_of_a_span(site: Site) -> None:
    """Names, messages and attributes of spans are markup; so is the name of an agent.

    They are text in the list of runs, in the waterfall and in the search.
    """
    site.spans(
        _span(1, name=f"run {PAYLOAD}"),
        _span(2, 1, name=f"invoke_agent {PAYLOAD}", message=PAYLOAD, **{PAYLOAD: PAYLOAD, "error__type": PAYLOAD}),
    )
    for path in ("/", "/runs", f"/runs/{TRACE}", f"/runs/{TRACE}?spans=notable", "/search?q=attack"):
        markup = _Markup()
        markup.feed(text := site.text(path))
        assert "x-attack" not in markup.tags, path
        assert "onx" not in markup.attributes, path
        assert "&lt;x-attack onx=1&gt;" in text, path


def test_a_denial_that_is_spelled_to_read_as_an_allow(site: Site) -> None:
    """Texts with overrides of direction, invisible letters and piles of accents, to turn "denied" around on the screen.

    Every such letter is written out as an escape, each text is isolated in its direction, and the mark of the denial is
    made of the decision in the line alone.
    """
    text = f"{BIDI}dewolla ✓{HIDDEN}\x00\x1b[8m\u2028" + "a" + "\u0336" * 40
    site.record(
        event="decision", decision="deny", action="exec", resource=text, attrs={"reason": text, "summary": text}
    )
    for path in ("/", "/decisions", f"/runs/{TRACE}", f"/records/{STREAM}/0", f"/search?q={quote(text[:20])}"):
        page = site.text(path)
        assert not set(page) & set(BIDI + HIDDEN + "\x00\x1b\u2028"), path
        assert "\u0336" * 4 not in page, path
    page = site.text("/decisions")
    assert page.count("\\u202e") == 3
    assert ">denied</span>" in page
    assert ">allowed</span>" not in page
    assert len(re.findall(r"<bdi>(?:(?!</bdi>).)*dewolla", page)) == page.count("dewolla") == 3


def test_a_record_whose_envelope_says_otherwise(site: Site) -> None:
    """A denial is sent as an allow, by attributes that say so, with a hash that is not its own, and in another run.

    What is shown is what the line says; each such record is marked as not sound, with what does not fit.
    """
    line = site.record(event="decision", decision="deny", action="exec", resource="r")
    site.log(
        line.replace('"seq":0', '"seq":1'), f"{STREAM}/1", "cedarbox.decision", 2, **{"cedarbox.decision": "allow"}
    )
    other, _, _ = seal(Entry(event="decision", decision="deny", action="exec"), 2, format_time(3), GENESIS)
    site.log(other.to_line()[:-1].decode(), f"{STREAM}/2", "cedarbox.outcome", 3)
    site.log('{"decision":"allow","event":"decision"}', f"{STREAM}/3", "cedarbox.decision", 4)
    assert "the hash of the record is not the hash of its content" in site.text(f"/records/{STREAM}/1")
    assert f"it was sent with the trace_id {TRACE} and says None" in site.text(f"/records/{STREAM}/2")
    assert "the line does not have exactly the keys of a record" in site.text(f"/records/{STREAM}/3")
    assert "is not the hash of the record before it" in site.text(f"/records/{STREAM}/2")
    for number in range(3):
        page = site.text(f"/records/{STREAM}/{number}")
        assert ">denied</span>" in page
        assert ">allowed</span>" not in page


def test_a_second_record_with_the_number_of_a_denial(site: Site) -> None:
    """An allow is sent with the number under which the collector has a denial already.

    The denial stays; both lines are shown as a conflict, and the state of the record is no longer "no gap".
    """
    site.record(event="decision", decision="deny", action="exec", resource="first")
    again, _, _ = seal(Entry(event="decision", decision="allow", resource="second"), 0, format_time(9), GENESIS)
    site.log(again.to_line()[:-1].decode(), f"{STREAM}/0", "cedarbox.decision", 9)
    page = site.text(f"/records/{STREAM}/0")
    assert "Two different records were received with this number" in page
    assert "first" in page
    assert "second" in page
    assert ">denied</span>" in page
    assert "Records in conflict" in site.text("/ledger")
    assert "no gap" not in site.text("/")


def test_records_that_were_held_back(site: Site) -> None:
    """Of four records the denial in the middle does not arrive.

    The page names the gap with its numbers, and the overview says that the record is not as received.
    """
    site.record(event="decision", decision="allow")
    stream, client = site._records[STREAM], site.client
    site.client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200)), base_url="http://none")
    site.record(event="decision", decision="deny")
    site.client = client
    assert site._records[STREAM] != stream
    site.record(event="decision", decision="allow")
    assert "1 missing" in site.text("/ledger")
    assert "not as received" in site.text("/")
    assert site.client.get(f"/records/{STREAM}/1").status_code == 404
    assert "#1 was not received" in site.text(f"/records/{STREAM}/2")


def test_a_name_that_was_pointed_at_this_host(site: Site) -> None:
    """DNS rebinding: a site points its own name at 127.0.0.1 and reads the page as its own.

    The name in Host is not a loopback name, and every page, file and form answers 403 and nothing else.
    """
    site.record(event="decision", decision="deny", resource="secret-host")
    for host in (
        "evil.example",
        "evil.example:4318",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "0.0.0.0",
        "",
    ):
        for path in (*PAGES, "/static/page.js"):
            answer = site.client.get(path, headers={"host": host})
            assert answer.status_code == 403, (host, path)
            assert "secret-host" not in answer.text
    assert site.raw("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n").startswith(b"HTTP/1.1 4")
    for good in ("localhost", "127.0.0.1:1", "[::1]:4318", "LOCALHOST:80"):
        assert site.client.get("/", headers={"host": good}).status_code == 200


def test_a_form_of_another_site(site: Site) -> None:
    """Another site makes the browser press "Verify", without the token, with a guessed one, and with the right one.

    All are refused, and no verification began. So is a sandboxed frame, whose origin is "null".
    """
    token = re.findall(r'name="token" value="([^"]+)"', site.text("/ledger"))[0]
    good = {"token": token}
    attempts: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"token": ""}, {}),
        ({"token": token[:-1] + "~"}, {}),
        (good, {"origin": "http://evil.example"}),
        (good, {"origin": "null"}),
        (good, {"origin": "null", "sec-fetch-site": "cross-site"}),
        (good, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}),
        (good, {"sec-fetch-site": "same-site"}),
    ]
    for form, headers in attempts:
        assert site.client.post("/ledger/verify", data=form, headers=headers).status_code == 403, (form, headers)
    assert site.client.post("/ledger/verify", content=b"token=" + b"x" * 100_000).status_code == 413
    assert "Not verified since" in site.text("/ledger")
    own = {"origin": "null", "sec-fetch-site": "same-origin"}
    assert site.client.post("/ledger/verify", data=good, headers=own).status_code == 303


def test_a_site_that_frames_or_embeds_the_page(site: Site) -> None:
    """Another site loads pages as images, scripts, frames or by fetch, to see them or to measure how long they take.

    The browser says so and is refused; a mere link is answered. Every answer, errors too, forbids frames, scripts and
    styles that are not the page's own.
    """
    site.record(event="decision", decision="deny", resource="secret-host")
    for mode, dest in (("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe"), ("cors", "empty")):
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        answer = site.client.get("/search?q=secret", headers=headers)
        assert (answer.status_code, "secret-host" in answer.text) == (403, False)
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert site.client.get("/", headers=linked).status_code == 200
    for path in ("/", "/nothing", "/static/page.css", "/static/none", "/decisions?since=x", "/search?q=a"):
        answer = site.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


def test_headers_through_a_parameter(site: Site) -> None:
    """Line feeds in a search, a filter, a path and a cookie, to add a header or to set a cookie of one's own.

    No answer has a header that the page did not mean; where an answer redirects, the text is encoded.
    """
    injected = "x\r\nSet-Cookie: stolen=1\r\n\r\n<h1>"
    site.log("text", f"a\r\nX-Evil: 1/b{PAYLOAD}/7", "cedarbox.decision")
    paths = (f"/search?q={quote(injected)}", f"/decisions?cursor={quote(injected)}&action={quote(injected)}")
    for path in (
        *paths,
        f"/sandboxes/{quote(injected)}",
        f"/search?q={quote(f'a{chr(13)}{chr(10)}X-Evil: 1/b{PAYLOAD}/7')}",
    ):
        answer = site.client.get(path, headers={"cookie": 'cedarbox-look="><script>'})
        assert "set-cookie" not in answer.headers
        assert "x-evil" not in answer.headers
        assert "data-look" not in answer.text
        assert answer.headers.get("location", "/records/a%0D%0A").startswith("/records/a%0D%0A")


def test_files_outside_of_the_static_ones(site: Site) -> None:
    """Paths that climb out of the directory of static files, plain, encoded, and encoded twice.

    Three files are known by name; everything else is 404, and nothing of the disk is in the answer.
    """
    for path in (
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/%252e%252e%252fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..\\app.py",
        "/static/page.css%00.py",
        "/static/",
        "//etc/passwd",
    ):
        answer = site.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), path
        assert b"Starlette" not in answer
        assert b"root:" not in answer


def test_sql_and_wildcards_in_a_filter(site: Site) -> None:
    """SQL, wildcards of LIKE, hostile cursors and overlong values in every filter.

    They are values: they match nothing but themselves, or are refused with what was expected; nothing is lost.
    """
    site.record(event="decision", decision="deny", action="exec", resource='File::"100%"', session="box")
    for value in ("' OR 1=1 --", "%", "_", '"; DROP TABLE logs; --', "\x00", "\\"):
        for name in ("action", "policy", "session", "principal", "run"):
            assert "No record meets these filters" in site.text("/decisions", params={name: value}), (name, value)
    assert "No record meets" in site.text("/decisions", params={"resource": "1_0"})
    assert "/records/" in site.text("/decisions", params={"resource": "100%"})
    for name, value in (
        ("since", "yesterday"),
        ("until", "9999-99-99"),
        ("decision", "maybe"),
        ("action", "a" * 5000),
        ("cursor", "1.2.3;--"),
        ("cursor", "9" * 90),
    ):
        assert site.client.get("/decisions", params={name: value}).status_code == 400, name
        assert site.client.get("/egress", params={name: value}).status_code in {200, 400}, name
    assert site.client.get("/runs", params={"cursor": "'"}).status_code == 400
    assert "/records/" in site.text("/decisions")


def test_pages_without_end(site: Site) -> None:
    """A run of 1,300 spans each inside the other, in circles, with long texts, and a record of a megabyte.

    Every page is answered, within a bound; what is left out is said, and how to see it.
    """
    spans = [_span(number, number - 1, name="deep") for number in range(1, 1300)]
    spans += [_span(5001, 5002), _span(5002, 5001), _span(5003, 5003)]
    site.spans(*spans, _span(6000, 1, name="wide" * 50_000, big="x" * 500_000))
    site.record(event="decision", decision="deny", resource="r" * 1_000_000, policies=("p" * 100_000,) * 3)
    for path in PAGES:
        answer = site.client.get(path, timeout=60)
        assert len(answer.content) < 4_000_000, path
    assert "Rows 1 to 1,000 of 1,303" in site.text(f"/runs/{TRACE}")
    assert "Rows 1,001 to 1,303 of 1,303" in site.text(f"/runs/{TRACE}?first=1000")
    assert "934,464 more" in site.text(f"/records/{STREAM}/0")


def test_writing_through_the_page(site: Site) -> None:
    """Every method but GET on every page, to change what is shown.

    The page only reads: 405, and the only form there is begins a verification.
    """
    site.record(event="decision", decision="deny")
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
        for path in ("/", "/runs", "/decisions", f"/records/{STREAM}/0", "/ledger", "/static/page.js"):
            assert site.client.request(method, path).status_code == 405, (method, path)
    assert site.client.get("/ledger/verify").status_code == 405
    assert f"/records/{STREAM}/0" in site.text("/decisions")


def test_the_text_of_policies_that_did_not_decide(directory: Path, site: Site) -> None:
    """A bundle with the same policy id and another text lies where the collector was told to look.

    The text of a policy is shown for the digest in the record, and for no other; else the page says that there is none.
    """
    decided = PolicyBundle.load(directory / "bundle").digest
    other = "sha256:" + "0" * 64
    for bundle in (decided, other):
        site.record(event="decision", decision="allow", policies=("all",), bundle=bundle)
    assert "permit (principal, action, resource);" in site.text(f"/records/{STREAM}/0")
    assert "permit (principal" not in site.text(f"/records/{STREAM}/1")
    assert "The texts of the policies are not at hand" in site.text(f"/records/{STREAM}/1")
    write_bundle(directory / "bundle", '@id("all") forbid (principal, action, resource);')
    assert "forbid (principal" not in site.text(f"/records/{STREAM}/0")


def test_a_ledger_that_was_put_back_to_an_older_copy(directory: Path, site: Site) -> None:
    """Whoever has the host puts back a whole copy of the ledger, from before a denial; alone it verifies.

    Notes that are no notes, or of another ledger, were sent to the collector too. The checkpoints that it received of
    this one are compared with the ledger: the page names the index as truncated.
    """
    place, key = directory / "ledger", directory / "ledger.key"
    with Ledger.open(place, signing_key=key) as ledger:
        ledger.append(Entry(event="decision", decision="allow"))
    shutil.copytree(place, directory / "older")
    with Ledger.open(place, signing_key=key) as ledger:
        ledger.append(Entry(event="decision", decision="deny"))
    site.log("no note", "index/checkpoint/1", "cedarbox.checkpoint")
    notes = re.split(r"(?<=\n)\n(?=cedarbox)", (place / "index.checkpoints").read_text())
    for number, note in enumerate(notes):
        site.log(note.rstrip("\n") + "\n", f"index/checkpoint/{number}", "cedarbox.checkpoint")
        site.log(
            re.sub("ledger/[0-9a-f]+", "ledger/" + "0" * 16, note), f"x/checkpoint/{number}", "cedarbox.checkpoint"
        )
    assert "verdict good" in _verified(site)
    shutil.rmtree(place)
    (directory / "older").rename(place)
    page = _verified(site)
    assert "verdict bad" in page
    assert ">truncated</span>" in page


def _verified(site: Site) -> str:
    token = re.findall(r'name="token" value="([^"]+)"', site.text("/ledger"))[0]
    assert site.client.post("/ledger/verify", data={"token": token}).status_code == 303
    while "Look again" in (page := site.text("/ledger")):
        pass
    return page
