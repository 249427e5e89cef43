"""The demo, whole, in a process whose every connection and name look-up is trapped."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cedarbox import verify_ledger
from cedarbox.cli import main

TRAP = """
import os, socket
_log = os.environ["CEDARBOX_TEST_CONNECTIONS"]
_connect, _connect_ex, _getaddrinfo, _sendto = (
    socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo, socket.socket.sendto)
def _note(kind, what):
    with open(_log, "a") as log:
        log.write(f"{kind} {what!r}\\n")
def connect(self, address):
    _note("connect", address)
    return _connect(self, address)
def connect_ex(self, address):
    _note("connect", address)
    return _connect_ex(self, address)
def getaddrinfo(host, *rest, **options):
    _note("resolve", host)
    return _getaddrinfo(host, *rest, **options)
def sendto(self, *arguments):
    _note("sendto", arguments[-1])
    return _sendto(self, *arguments)
socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
socket.getaddrinfo, socket.socket.sendto = getaddrinfo, sendto
"""


PROGRAM = 'for n in range(1, 16): print("Fizz" * (n % 3 == 0) + "Buzz" * (n % 5 == 0) or n)'
WRITE_AND_RUN = f"echo '{PROGRAM}' > fizzbuzz.py && python3 fizzbuzz.py"


class ChatCompletions(http.server.BaseHTTPRequestHandler):
    """As much of the Chat Completions protocol as an agent's two turns need."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        worked = any(message["role"] == "tool" for message in asked["messages"])
        arguments = json.dumps({"cmd": WRITE_AND_RUN, "yield_time_ms": 60_000})
        call = {"id": "c1", "type": "function", "function": {"name": "exec_command", "arguments": arguments}}
        message = {"role": "assistant", "content": "Done."} if worked else {"role": "assistant", "tool_calls": [call]}
        answer = {
            "id": "a",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop" if worked else "tool_calls", "message": message}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def model_url() -> Iterator[str]:
    """A model server on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ChatCompletions) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "sitecustomize.py").write_text(TRAP)
    environment = os.environ | {
        "OPENAI_API_KEY": "sk-test",
        "CEDARBOX_TEST_CONNECTIONS": str(tmp_path / "connections"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "trap"), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "cedarbox", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=1100)


# Three minutes in the emulated machine, up to five when a boot there is slow, and more where the host is.
@pytest.mark.timeout(1200)
def test_the_demo_succeeds_and_talks_to_nobody_but_the_collector(tmp_path: Path, oci_layout: Path) -> None:
    out = tmp_path / "out"
    done = demo(tmp_path, "--rootfs", str(oci_layout), "--directory", str(out), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)
    assert document["good"]
    assert document["delivered"]
    refused = {attempt["attempt"] for attempt in document["attempts"] if attempt["refused"] and attempt["as_expected"]}
    assert len(refused) == 6
    denied = {(r["action"], *r["policies"]) for r in document["decisions"] if r["decision"] == "deny"}
    assert ("connect", "airgap-no-network") in denied
    assert ("invokeTool", "airgap-no-hosted-tools") in denied
    assert ("mountRead",) in denied
    assert ("readFile",) in denied

    lines = (tmp_path / "connections").read_text().splitlines()
    assert lines
    assert all("127.0.0.1" in line for line in lines), sorted(set(lines))
    assert verify_ledger(out / "ledger").ok
    assert not (out / "boxlite").exists()


@pytest.mark.long
def test_a_model_server_on_this_host_does_the_work(tmp_path: Path, oci_layout: Path, model_url: str) -> None:
    arguments = ["--rootfs", str(oci_layout), "--directory", str(tmp_path / "out"), "--json"]
    done = demo(tmp_path, *arguments, "--model-url", model_url, "--model", "local-model")
    assert done.returncode == 0, done.stderr[-3000:]
    models = [
        r for r in json.loads(done.stdout)["decisions"] if r["action"] == "useModel" and "127.0.0.1" in r["resource"]
    ]
    assert {tuple(r["policies"]) for r in models} == {("airgap-local-model",)}
    assert all("127.0.0.1" in line for line in (tmp_path / "connections").read_text().splitlines())


def test_a_layer_that_was_swapped_is_refused_and_leaves_nothing(
    tmp_path: Path, oci_layout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, out = tmp_path / "layout", tmp_path / "out"
    subprocess.run(["cp", "-r", "--no-preserve=mode", str(oci_layout), str(layout)], check=True)
    largest = max((layout / "blobs" / "sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    with largest.open("r+b") as blob:
        blob.seek(1000)
        byte = blob.read(1)
        blob.seek(1000)
        blob.write(bytes([byte[0] ^ 1]))
    # In this process: another one would import the SDK again, which takes most of a minute in the emulated machine.
    monkeypatch.setattr(sys, "argv", ["cedarbox", "demo", "--rootfs", str(layout), "--directory", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not out.exists()
