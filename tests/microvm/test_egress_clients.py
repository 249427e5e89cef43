"""The programs that people use, in a real microVM without a network card: each through the broker, each on record."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.microvm.boxes import options
from tests.microvm.certificates import Authority
from tests.microvm.commits import bare_repository
from tests.microvm.given import GIVEN, PIP, lend
from tests.microvm.packages import archive, closure, index, lend_apt
from tests.microvm.protocols import Http2Site, echoing, http2, websocket
from tests.microvm.web import Site, big, big_digest, files, repositories, serving
from tests.microvm.wires import wired
from tests.unit.guarded import Guarded

from cedarbox.audit import Record
from cedarbox.boxlite import BoxLiteSandboxClient, Mount
from cedarbox.boxlite.guestio import GuestRunner
from cedarbox.boxlite.relays import GuestRelay
from cedarbox.errors import HostError

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("CEDARBOX_RIG") != "1", reason="makes an interface: only in the emulated machine"
    ),
    pytest.mark.timeout(600),
]

_NAMES = {
    "mirror.corp.example": "192.0.2.21",
    "git.corp.example": "192.0.2.22",
    "deb.corp.example": "192.0.2.23",
    "big.corp.example": "192.0.2.24",
    "ws.corp.example": "192.0.2.25",
    "h2.corp.example": "192.0.2.26",
    "denied.corp.example": "192.0.2.27",
    "echo.corp.example": "192.0.2.28",
}
_DENIED = "denied.corp.example"
_POLICY = """
@id("sandbox") permit (principal, action in [Sandbox::Action::"lifecycle", Sandbox::Action::"storage",
  Sandbox::Action::"execution"], resource);
@id("site") permit (principal, action == Sandbox::Action::"connect", resource)
when { resource in Sandbox::Domain::"corp.example" };
@id("not-this-host") @reason("this host is not for agents") @advice("use mirror.corp.example")
forbid (principal, action == Sandbox::Action::"connect", resource)
when { resource in Sandbox::Host::"denied.corp.example" };
"""
_CA = f"{GIVEN}/ca.pem"
_TWO = b"over two streams of one connection"
_SITE = "/tmp/site"
_HANGS_SECONDS = 240
"""After this a refused program is taken for one that hangs: in the emulated machine Python alone takes seconds."""


@dataclass(frozen=True)
class World:
    """The box, and what is outside it."""

    session: SandboxSession
    guarded: Guarded
    denied: tuple[Site, ...]
    two: Http2Site

    async def run(self, command: str, *, code: int = 0) -> str:
        """Run a command of the guest's shell; give what it printed, both streams."""
        result = await self.session.exec(f"({command}) 2>&1")
        said = result.stdout.decode(errors="replace")
        assert result.exit_code == code, f"{command}\nexit code {result.exit_code}\n{said}"
        return said

    def mark(self) -> int:
        """Where the ledger is now."""
        return len(self.guarded.records())

    async def carried(self, since: int, name: str, *, at_least: int) -> list[Record]:
        """Check that connections to a name were decided, are over and brought so many bytes; give their records."""
        end = time.monotonic() + 120
        while True:
            fresh = [record for record in self.guarded.records()[since:] if name in (record.entry.resource or "")]
            decided = [record for record in fresh if record.entry.event == "decision"]
            closed = [record for record in fresh if record.entry.event == "egress.closed"]
            brought = sum(int(str(record.entry.attrs.get("bytes_in", 0))) for record in closed)
            if brought >= at_least and len(closed) >= len(decided) > 0:
                break
            assert time.monotonic() < end, f"{name}: {len(decided)} decided, {len(closed)} closed, {brought} bytes in"
            await asyncio.sleep(0.1)
        assert {(record.entry.action, record.entry.decision) for record in decided} == {("connect", "allow")}
        assert {record.entry.policies for record in decided} == {("site",)}
        return closed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("egress")


@pytest.fixture(scope="module")
def outside(place: Path) -> Iterator[tuple[tuple[Site, ...], Http2Site]]:
    given = lend(place / "given")
    authority = Authority(place / "authority")
    shutil.copy(authority.path, given / "ca.pem")
    lend_apt(given, guest=GIVEN, source="deb [trusted=yes] http://deb.corp.example/debian test main")
    (place / "scratch").mkdir()
    packages = files({**index(closure("httpx", "h2", "websockets")), "/hello": b"hello"})
    repository = repositories(bare_repository(place / "git", {"README": "cloned"}))
    debian = files(archive(place / "scratch", "greeting", "hello from a package\n"))
    at = _NAMES.__getitem__
    with ExitStack() as stack:
        begin = stack.enter_context
        begin(wired(list(_NAMES.values()), names={name: [address] for name, address in _NAMES.items()}))
        for name, app in (("mirror", packages), ("git", repository), ("deb", debian), ("big", big)):
            full = f"{name}.corp.example"
            begin(serving(app, at(full)))
            begin(serving(app, at(full), 443, tls=authority.context(full)))
        begin(websocket(at("ws.corp.example"), 80))
        begin(websocket(at("ws.corp.example"), 443, tls=authority.context("ws.corp.example")))
        begin(echoing(at("echo.corp.example"), 7))
        denied = (
            begin(serving(packages, at(_DENIED))),
            begin(serving(packages, at(_DENIED), 443, tls=authority.context(_DENIED))),
        )
        two = begin(http2(at("h2.corp.example"), 443, authority.context("h2.corp.example", alpn=("h2",)), _TWO))
        yield denied, two


@pytest.fixture(scope="module")
async def world(
    client: BoxLiteSandboxClient, oci_layout: Path, place: Path, outside: tuple[tuple[Site, ...], Http2Site]
) -> AsyncIterator[World]:
    guarded = Guarded(place, _POLICY, inner=client)
    # It is for the module, and what is in this list is closed after each test.
    Guarded.made.remove(guarded)
    chosen = options(oci_layout, mounts=(Mount(str(place / "given"), GIVEN),))
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), options=chosen)
    try:
        await session.start()
        yield World(session, guarded, *outside)
    finally:
        await guarded.client.delete(session)
        guarded.client.close()


@pytest.fixture(scope="module")
async def installed(world: World) -> str:
    """What pip printed when it installed the clients that the image does not have."""
    index_of = f"--index-url https://mirror.corp.example/simple/ --cert {_CA}"
    return await world.run(f"{PIP} install --no-compile --target {_SITE} {index_of} httpx h2 websockets")


async def test_the_box_has_no_network_card_and_the_programs_know_their_proxy(world: World) -> None:
    assert set((await world.run("ls /sys/class/net")).split()) <= {"lo", "dummy0"}
    said = await world.run("echo $HTTP_PROXY $https_proxy")
    assert said.split() == ["http://127.0.0.1:3128"] * 2


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_curl(world: World, scheme: str) -> None:
    since = world.mark()
    assert await world.run(f"curl -sSf --cacert {_CA} {scheme}://mirror.corp.example/hello") == "hello"
    await world.carried(since, "mirror.corp.example", at_least=5)


async def test_curl_by_socks(world: World) -> None:
    since = world.mark()
    asked = "curl -sSf --noproxy '' --proxy socks5h://127.0.0.1:3128 http://mirror.corp.example/hello"
    assert await world.run(asked) == "hello"
    await world.carried(since, "mirror.corp.example", at_least=5)


async def test_urllib(world: World) -> None:
    since = world.mark()
    code = (
        "import ssl, urllib.request as u; "
        f"c = ssl.create_default_context(cafile='{_CA}'); "
        "print(u.urlopen('http://mirror.corp.example/hello').read(), "
        "u.urlopen('https://mirror.corp.example/hello', context=c).read())"
    )
    assert (await world.run(f'python3 -c "{code}"')).strip() == "b'hello' b'hello'"
    await world.carried(since, "mirror.corp.example", at_least=10)


async def test_pip_installs_from_an_index_of_the_site(world: World) -> None:
    since = world.mark()
    where = f"--target /tmp/again --index-url https://mirror.corp.example/simple/ --cert {_CA}"
    told = await world.run(f"{PIP} install --no-compile {where} h11")
    assert "Successfully installed h11-" in told
    await world.carried(since, "mirror.corp.example", at_least=10_000)


async def test_httpx_over_http_1_and_2(world: World, installed: str) -> None:
    assert "Successfully installed" in installed
    since = world.mark()
    code = (
        "import ssl, httpx; "
        f"c = httpx.Client(http2=True, verify=ssl.create_default_context(cafile='{_CA}')); "
        "two = c.get('https://h2.corp.example/httpx'); one = c.get('http://mirror.corp.example/hello'); "
        "print(two.http_version, two.text, one.http_version, one.text, sep='|')"
    )
    said = await world.run(f'PYTHONPATH={_SITE} python3 -c "{code}"')
    assert said.strip() == f"HTTP/2|{_TWO.decode()}|HTTP/1.1|hello"
    assert "/httpx" in world.two.paths
    await world.carried(since, "h2.corp.example", at_least=len(_TWO))


async def test_http2_with_curl(world: World) -> None:
    since = world.mark()
    said = await world.run(f"curl -sSf --http2 -w '|%{{http_version}}' --cacert {_CA} https://h2.corp.example/curl")
    assert said == f"{_TWO.decode()}|2"
    await world.carried(since, "h2.corp.example", at_least=len(_TWO))


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_websocket(world: World, installed: str, scheme: str) -> None:
    assert "Successfully installed" in installed
    since = world.mark()
    trusted = f"ssl=ssl.create_default_context(cafile='{_CA}')" if scheme == "wss" else "ssl=None"
    # In one thread: two that read and write one TLS connection are what OpenSSL does not promise to carry.
    code = f"""
import asyncio, os, ssl
from websockets.asyncio.client import connect
async def main():
    async with connect('{scheme}://ws.corp.example/', open_timeout=120, {trusted}) as w:
        for m in ('one', os.urandom(140000), 'three'):
            await w.send(m)
            print(await w.recv() == m)
asyncio.run(main())
"""
    assert (await world.run(f'PYTHONPATH={_SITE} python3 -c "{code}"')).split() == ["True"] * 3
    await world.carried(since, "ws.corp.example", at_least=140_000)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_git_clones(world: World, scheme: str) -> None:
    since = world.mark()
    clone = f"GIT_SSL_CAINFO={_CA} git clone -q {scheme}://git.corp.example/project.git /tmp/clone-{scheme}"
    assert await world.run(f"{clone} && cat /tmp/clone-{scheme}/README") == "cloned"
    await world.carried(since, "git.corp.example", at_least=200)


async def test_apt_updates_and_fetches(world: World) -> None:
    since = world.mark()
    told = await world.run(f"LC_ALL=C {GIVEN}/apt/run update")
    assert "Get:" in told
    assert "Reading package lists" in told
    fetch = f"cd /tmp && {GIVEN}/apt/run -qq download greeting && dpkg-deb -x greeting_*.deb /tmp/unpacked"
    assert (await world.run(f"{fetch} && cat /tmp/unpacked/opt/greeting")).endswith("hello from a package\n")
    await world.carried(since, "deb.corp.example", at_least=500)


async def test_a_protocol_of_its_own_through_a_tunnel(world: World) -> None:
    since = world.mark()
    code = (
        "import socket; s = socket.create_connection(('127.0.0.1', 3128)); "
        "s.sendall(b'CONNECT echo.corp.example:7 HTTP/1.1\\r\\nHost: echo.corp.example:7\\r\\n\\r\\n'); "
        "f = s.makefile('rb'); print(f.readline().split()[1]); f.readline(); "
        "s.sendall(b'there and back'); s.shutdown(1); print(f.read())"
    )
    said = await world.run(f'python3 -c "{code}"')
    assert said.split("\n")[0] == "b'200'"
    assert "there and back" in said
    await world.carried(since, "echo.corp.example", at_least=14)


@pytest.mark.parametrize("megabytes", [4, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3000)])])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_download(world: World, scheme: str, megabytes: int) -> None:
    since = world.mark()
    fetch = f"curl -sSf --cacert {_CA} {scheme}://big.corp.example/{megabytes}"
    said = await world.run(f"{fetch} | sha256sum")
    assert said.split()[0] == big_digest(megabytes)
    await world.carried(since, "big.corp.example", at_least=megabytes * 1_000_000)


_SAID = ("not-this-host", "use mirror.corp.example")
_REFUSED = {
    # What each shows of a refusal: the policy and what to do instead, or the status where it shows nothing else.
    "curl, plain": (f"curl -sS http://{_DENIED}/hello", _SAID, 0),
    "curl, failing": (f"curl -sSf http://{_DENIED}/hello", ("403",), 22),
    "curl, TLS": (f"curl -sSi --cacert {_CA} https://{_DENIED}/hello", _SAID, 56),
    "git, plain": (f"git clone http://{_DENIED}/project.git /tmp/refused", _SAID, 128),
    "git, TLS": (f"git clone https://{_DENIED}/project.git /tmp/refused", ("403",), 128),
    "pip, TLS": (
        f"{PIP} install --retries 1 --target /tmp/refused --index-url https://{_DENIED}/simple/ --cert {_CA} h11",
        _SAID,
        1,
    ),
    "pip, plain": (
        f"{PIP} -vv install --target /tmp/refused --index-url http://{_DENIED}/simple/ --trusted-host {_DENIED} h11",
        ("403",),
        1,
    ),
    "urllib": (
        f"python3 -c \"import urllib.request as u; u.urlopen('https://{_DENIED}/')\"",
        _SAID,
        1,
    ),
}


@pytest.mark.parametrize("client_of", _REFUSED)
async def test_a_refusal_is_a_readable_line_and_no_hang(world: World, client_of: str) -> None:
    command, shown, code = _REFUSED[client_of]
    since = world.mark()
    said = await world.run(f"timeout {_HANGS_SECONDS} sh -c {shlex.quote(command)}", code=code)
    assert [part for part in shown if part not in said] == [], said
    fresh = [record.entry for record in world.guarded.records()[since:] if record.entry.event == "decision"]
    about = [entry for entry in fresh if _DENIED in (entry.resource or "")]
    assert {(entry.decision, entry.policies) for entry in about} == {("deny", ("not-this-host",))}
    assert [site.asked for site in world.denied] == [[], []]


async def test_an_image_without_python_is_told_in_one_line_and_runs_commands_still(world: World) -> None:
    """Last in this file: what it takes away does not come back."""
    runner = GuestRunner(world.session._inner._machine.box)  # type: ignore[attr-defined]
    await world.run("for p in /usr/bin/python3*; do mv $p ${p}.gone; done")
    # The relay that runs still serves; when it ends, no other can begin.
    assert "<title>" not in await world.run(f"curl -sS http://{_DENIED}/")
    relay = GuestRelay(runner, serve=world.guarded.client.gate.ask)  # type: ignore[arg-type]  # never called
    with pytest.raises(HostError, match=r"no python3.*egress_mode to \"none\".*\"nic\"") as told:
        await relay.start()
    assert len(str(told.value).splitlines()) == 1
    await world.run("for p in /proc/[0-9]*; do grep -qa -e 'HELL[O]' $p/cmdline && kill -9 ${p#/proc/}; done; true")
    assert (await world.run("echo goes on")).strip() == "goes on"
    assert "Failed to connect" in await world.run(f"curl -sS http://{_DENIED}/", code=7)
    await runner.close()
