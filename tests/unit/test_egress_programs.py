"""The programs that are used in a guest, through the broker to real servers."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import websockets
from tests.unit.brokering import MIRROR, Kept, Rules, Site, certificate
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

BIG = os.urandom(1 << 20) * 8


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        body = BIG if self.path == "/big" else f"{self.path} {self.headers.get('X-Token')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 65536))
            digest.update(piece)
            left -= len(piece)
        body = digest.hexdigest().encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def curl(*args: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "120", *args,
        env={}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode("latin-1"), errors.decode()


@pytest.fixture(name="tls")
def _tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    return certificate(tmp_path, MIRROR)


async def test_curl(tls: tuple[ssl.SSLContext, Path], tmp_path: Path) -> None:
    context, trust = tls
    upload = tmp_path / "upload"
    upload.write_bytes(BIG)
    with served() as plain, served(context) as secure:
        async with Site.open() as site:
            for proxy in (("-x", site.http), ("-x", f"socks5h://127.0.0.1:{site.port}"), ("-p", "-x", site.http)):
                assert (await curl(*proxy, f"http://{MIRROR}:{plain}/a", f"http://{MIRROR}:{plain}/b"))[:2] == (
                    0,
                    "/a None/b None",
                )
                assert (await curl(*proxy, "--cacert", str(trust), f"https://{MIRROR}:{secure}/a"))[:2] == (
                    0,
                    "/a None",
                )
                sent = await curl(*proxy, "-T", str(upload), f"http://{MIRROR}:{plain}/up")
                assert sent[:2] == (0, hashlib.sha256(BIG).hexdigest())
            assert {c.proto for c in site.rules.asked} == {"http", "tls"}
            await site.settled()
            assert max(int(facts["bytes_out"]) for facts in site.rules.admitted) > len(BIG)


async def test_curl_prints_the_denial() -> None:
    async with Site.open() as site:
        code, _, errors = await curl("-x", site.http, "https://evil.example/")
        assert (code, errors.count("\n")) == (56, 1)
        assert "403" in errors
        code, out, _ = await curl("-x", site.http, "http://evil.example/")
        assert (code, out) == (
            0,
            'cedarbox: denied by policy: connect Host::"evil.example": no policy permits it (policies: only-mirror)\n',
        )
        code, _, errors = await curl("-x", f"socks5h://127.0.0.1:{site.port}", "https://evil.example/")
        assert code == 97
        assert "(2)" in errors


async def test_urllib(tls: tuple[ssl.SSLContext, Path]) -> None:
    context, trust = tls

    def fetch(url: str, proxy: str) -> bytes:
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({"http": proxy, "https": proxy}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=trust)),
        )
        with opener.open(url, timeout=120) as answer:
            body: bytes = answer.read()
            return body

    with served() as plain, served(context) as secure:
        async with Site.open() as site:
            assert await asyncio.to_thread(fetch, f"http://{MIRROR}:{plain}/big", site.http) == BIG
            assert await asyncio.to_thread(fetch, f"https://{MIRROR}:{secure}/big", site.http) == BIG
            with pytest.raises(urllib.error.URLError, match="403 Forbidden: cedarbox: denied by policy"):
                await asyncio.to_thread(fetch, "https://evil.example/", site.http)
            with pytest.raises(urllib.error.HTTPError, match="403: Forbidden: cedarbox: denied by policy") as caught:
                await asyncio.to_thread(fetch, "http://evil.example/", site.http)
            caught.value.close()


async def test_httpx(tls: tuple[ssl.SSLContext, Path]) -> None:
    context, trust = tls
    with served() as plain, served(context) as secure:
        async with (
            Site.open(Rules(secrets=[("token", MIRROR)]), secrets={"token": Kept("s3cret")}) as site,
            httpx.AsyncClient(
                proxy=site.http, verify=ssl.create_default_context(cafile=trust), trust_env=False, timeout=120
            ) as client,
        ):
            answers = await asyncio.gather(*(client.get(f"http://{MIRROR}:{plain}/{number}") for number in range(20)))
            assert [answer.text for answer in answers] == [f"/{number} None" for number in range(20)]
            assert (await client.get(f"https://{MIRROR}:{secure}/big")).content == BIG
            secret = await client.get(f"http://{MIRROR}:{plain}/s", headers={"X-Token": "<CEDARBOX_SECRET:token>"})
            assert secret.text == "/s ******"
            denied = await client.get("http://evil.example/")
            assert (denied.status_code, denied.headers["X-Cedarbox-Policy"]) == (403, "only-mirror")
            with pytest.raises(httpx.ProxyError, match="403 Forbidden: cedarbox: denied by policy"):
                await client.get("https://evil.example/")


async def test_requests_which_pip_is_made_of(tls: tuple[ssl.SSLContext, Path]) -> None:
    context, trust = tls

    def session(proxy: str) -> requests.Session:
        made = requests.Session()
        made.trust_env, made.proxies, made.verify = False, {"http": proxy, "https": proxy}, str(trust)
        return made

    with served() as plain, served(context) as secure:
        async with Site.open() as site:
            with session(site.http) as client:
                for path in ("/a", "/b"):
                    assert (
                        await asyncio.to_thread(client.get, f"http://{MIRROR}:{plain}{path}")
                    ).text == f"{path} None"
                assert (await asyncio.to_thread(client.get, f"https://{MIRROR}:{secure}/a")).text == "/a None"
                with pytest.raises(requests.exceptions.ProxyError, match="403 Forbidden: cedarbox: denied by policy"):
                    await asyncio.to_thread(client.get, "https://evil.example/")


async def test_a_websocket() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    rules = Rules(paths=lambda path: path == "/live")
    async with serve(echo, "127.0.0.1", 0) as server, Site.open(rules) as site:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://{MIRROR}:{port}/live", proxy=site.http, open_timeout=120) as client:
            for message in ("hello", os.urandom(100_000).hex()):
                await client.send(message)
                assert await client.recv() == message
            (asked,) = rules.asked
            assert asked.request is not None
            assert (asked.proto, asked.request.path, asked.request.upgrade) == ("http", "/live", "websocket")
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await connect(f"ws://{MIRROR}:{port}/other", proxy=site.http, open_timeout=120)
        async with connect(f"ws://{MIRROR}:{port}/live", proxy=site.http, open_timeout=120) as client:
            rules.revoke()
            with pytest.raises(websockets.ConnectionClosedError):
                await client.recv()
        await site.settled()
        first = rules.admitted[0]
        assert first["status"] == 101
        assert int(first["bytes_out"]) > 100_000
        assert rules.admitted[-1]["reason"] == "cut"


async def test_a_secret_in_a_websocket_does_not_come_back() -> None:
    async def reveal(connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send(connection.request.headers["X-Token"])
        assert not connection.protocol.extensions

    rules = Rules(secrets=[("token", MIRROR)])
    async with serve(reveal, "127.0.0.1", 0) as server, Site.open(rules, secrets={"token": Kept("s3cret")}) as site:
        port = next(iter(server.sockets)).getsockname()[1]
        headers = {"X-Token": "<CEDARBOX_SECRET:token>"}
        async with connect(
            f"ws://{MIRROR}:{port}/", proxy=site.http, additional_headers=headers, open_timeout=120
        ) as client:
            assert await client.recv() == "******"
