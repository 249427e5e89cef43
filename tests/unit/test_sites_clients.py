"""The servers that tests of real boxes use, with the clients that a guest has: curl, git, pip, apt, urllib, httpx."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from tests.microvm.certificates import Authority
from tests.microvm.commits import bare_repository
from tests.microvm.given import lend
from tests.microvm.packages import archive, closure, index, lend_apt, wheel
from tests.microvm.protocols import echoing, http2, websocket
from tests.microvm.web import Asked, big, big_digest, files, repositories, serving
from websockets.asyncio.client import connect

_HERE = "127.0.0.1"


def around() -> dict[str, str]:
    """The environment without what a site sets for its own proxies, authorities and indexes."""
    own = ("_PROXY", "_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLCAINFO")
    return {name: value for name, value in os.environ.items() if not name.upper().endswith(own) and name[:4] != "PIP_"}


def ran(command: Sequence[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=around() | environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needing(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"needs {program}")


def test_curl_over_http_and_https(tmp_path: Path) -> None:
    needing("curl")
    authority = Authority(tmp_path)
    content = files({"/hello": b"hello"})
    with serving(content, _HERE, 0) as plain, serving(content, _HERE, 0, tls=authority.context(_HERE)) as secure:
        assert ran(["curl", "-sSf", f"http://{_HERE}:{plain.port}/hello"]) == "hello"
        told = ran(["curl", "-sSf", "--cacert", str(authority.path), f"https://{_HERE}:{secure.port}/hello"])
        assert told == "hello"
        code = ran(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{_HERE}:{plain.port}/none"])
    assert code == "404"
    assert [(asked.method, asked.path, asked.host) for asked in plain.asked] == [
        ("GET", "/hello", f"{_HERE}:{plain.port}"),
        ("GET", "/none", f"{_HERE}:{plain.port}"),
    ]


def test_an_unknown_authority_is_not_believed(tmp_path: Path) -> None:
    secure = serving(files({}), _HERE, 0, tls=Authority(tmp_path).context(_HERE))
    with secure as site, pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"https://{_HERE}:{site.port}/", trust_env=False, timeout=60)
    assert site.asked == []


def test_urllib_httpx_and_a_body_in_chunks() -> None:
    def app(asked: Asked) -> object:
        return files({"/": asked.body})(asked)

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serving(app, _HERE, 0) as site:  # type: ignore[arg-type]
        with opener.open(urllib.request.Request(f"http://{_HERE}:{site.port}/", data=b"posted")) as answer:
            assert answer.read() == b"posted"
        pieces = iter([b"one", b"two"])
        assert (
            httpx.post(f"http://{_HERE}:{site.port}/", content=pieces, trust_env=False, timeout=60).content == b"onetwo"
        )


def test_a_big_file_is_the_same_for_who_sends_and_who_reads() -> None:
    with serving(big, _HERE, 0) as site:
        body = httpx.get(f"http://{_HERE}:{site.port}/3", trust_env=False, timeout=60).content
    assert (len(body), hashlib.sha256(body).hexdigest()) == (3_000_000, big_digest(3))
    assert body[: 1 << 16] != body[1 << 16 : 2 << 16]


def test_git_clones_and_is_told_what_is_missing(tmp_path: Path) -> None:
    needing("git")
    root = bare_repository(tmp_path / "git", {"README": "cloned"})
    with serving(repositories(root), _HERE, 0) as site:
        address = f"http://{_HERE}:{site.port}"
        ran(["git", "clone", "-q", f"{address}/project.git", str(tmp_path / "clone")])
        done = subprocess.run(
            ["git", "clone", f"{address}/none.git", str(tmp_path / "none")],
            capture_output=True,
            text=True,
            env=around(),
            check=False,
        )
    assert (tmp_path / "clone" / "README").read_text() == "cloned"
    assert "git-upload-pack" in site.asked[-2].target
    assert done.returncode != 0
    assert "not found" in done.stderr


def test_pip_as_a_guest_is_lent_it_installs_what_the_index_has(tmp_path: Path) -> None:
    authority, target, given = Authority(tmp_path), tmp_path / "target", lend(tmp_path / "given")
    wheels = closure("httpx", "h2", "websockets")
    assert {"httpx", "httpcore", "h11", "anyio", "certifi", "idna", "h2", "hpack", "hyperframe"} <= {
        one.project for one in wheels
    }
    options = ["--isolated", "--disable-pip-version-check", "--no-cache-dir"]
    with serving(files(index(wheels)), _HERE, 0, tls=authority.context(_HERE)) as site:
        address = f"https://{_HERE}:{site.port}/simple/"
        told = ran(
            [sys.executable, "-m", "pip", *options, "install", "-q", "--no-compile", "--target", str(target),
             "--index-url", address, "--cert", str(authority.path), "httpx", "h2", "websockets"],
            PYTHONPATH=str(given / "lib"),
        )  # fmt: skip
    assert told == ""
    code = "import httpx, h2.connection, websockets.sync.client; print(httpx.__file__, websockets.__version__)"
    where, version = ran([sys.executable, "-S", "-c", code], PYTHONPATH=str(target)).split()
    assert (where, version) == (str(target / "httpx" / "__init__.py"), _version("websockets"))
    assert not list(target.rglob("*.so"))


def _version(project: str) -> str:
    return wheel(project).name.split("-")[1]


def test_apt_updates_and_fetches(tmp_path: Path) -> None:
    needing("apt-get", "dpkg-deb", "dpkg")
    (tmp_path / "scratch").mkdir()
    given = tmp_path / "given"
    with serving(files(archive(tmp_path / "scratch", "greeting", "hello from a package\n")), _HERE, 0) as site:
        source = f"deb [trusted=yes] http://{_HERE}:{site.port}/debian test main"
        lend_apt(given, guest=str(given), source=source, state=str(tmp_path / "state"))
        run = str(given / "apt" / "run")
        assert "Reading package lists" in ran([run, "update"], LC_ALL="C")
        (tmp_path / "fetched").mkdir()
        ran(["sh", "-c", f"cd {tmp_path / 'fetched'} && {run} download greeting"])
    (package,) = (tmp_path / "fetched").iterdir()
    ran(["dpkg-deb", "-x", str(package), str(tmp_path / "unpacked")])
    assert (tmp_path / "unpacked" / "opt" / "greeting").read_text() == "hello from a package\n"
    assert "/debian/dists/test/Release" in [asked.path for asked in site.asked]


async def test_a_websocket_plain_and_secure(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with websocket(_HERE, 0) as port:
        async with connect(f"ws://{_HERE}:{port}/", proxy=None, open_timeout=60) as to:
            await to.send("hello")
            assert await asyncio.wait_for(to.recv(), 60) == "hello"
    trusting = ssl.create_default_context(cafile=str(authority.path))
    with websocket(_HERE, 0, tls=authority.context(_HERE)) as port:
        async with connect(f"wss://{_HERE}:{port}/", proxy=None, ssl=trusting, open_timeout=60) as to:
            await to.send(b"bytes")
            assert await asyncio.wait_for(to.recv(), 60) == b"bytes"


def test_http2_with_curl(tmp_path: Path) -> None:
    needing("curl")
    if "HTTP2" not in ran(["curl", "--version"]):
        pytest.skip("needs a curl with HTTP/2")
    authority = Authority(tmp_path)
    body = b"x" * 16_000
    with http2(_HERE, 0, authority.context(_HERE, alpn=("h2",)), body) as site:
        form = ["-w", "%{stderr}%{http_version}", "--http2"]
        address = f"https://{_HERE}:{site.port}/two"
        done = subprocess.run(
            ["curl", "-sSf", *form, "--cacert", str(authority.path), address],
            capture_output=True,
            env=around(),
            check=True,
        )
    assert (done.stdout, done.stderr, site.paths) == (body, b"2", ["/two"])


def test_an_echo_that_ends_when_the_other_side_does() -> None:
    with echoing(_HERE, 0) as port, socket.create_connection((_HERE, port), 60) as to:
        to.sendall(b"there and back")
        to.shutdown(socket.SHUT_WR)
        data = b""
        while piece := to.recv(100):
            data += piece
    assert data == b"there and back"
