"""The demo, whole, in a process whose every connection and name look-up is trapped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cedarbox import verify_ledger

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


def demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "sitecustomize.py").write_text(TRAP)
    environment = os.environ | {
        "OPENAI_API_KEY": "sk-test",
        "CEDARBOX_TEST_CONNECTIONS": str(tmp_path / "connections"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "trap"), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "cedarbox", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)


def test_the_demo_succeeds_and_talks_to_nobody_but_the_collector(tmp_path: Path, oci_layout: Path) -> None:
    out = tmp_path / "out"
    done = demo(tmp_path, "--rootfs", str(oci_layout), "--directory", str(out), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)
    assert document["good"]
    assert document["delivered"]
    refused = {attempt["attempt"] for attempt in document["attempts"] if attempt["refused"] and attempt["as_expected"]}
    assert len(refused) == 5
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


def test_a_layer_that_was_swapped_is_refused_and_leaves_nothing(tmp_path: Path, oci_layout: Path) -> None:
    layout = tmp_path / "layout"
    subprocess.run(["cp", "-r", "--no-preserve=mode", str(oci_layout), str(layout)], check=True)
    largest = max((layout / "blobs" / "sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    with largest.open("r+b") as blob:
        blob.seek(1000)
        byte = blob.read(1)
        blob.seek(1000)
        blob.write(bytes([byte[0] ^ 1]))
    done = demo(tmp_path, "--rootfs", str(layout), "--directory", str(tmp_path / "out"))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_host_without_kvm_gets_one_line_and_nothing_is_left(tmp_path: Path, oci_layout: Path) -> None:
    hidden = (
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && mknod /dev/random c 1 8 && "
        f"exec {sys.executable} -m cedarbox demo --rootfs {oci_layout} --directory {tmp_path}/out"
    )
    command = ["unshare", "--mount", "sh", "-c", hidden]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done
    assert len(done.stderr.strip().splitlines()) == 1
    assert "/dev/kvm is missing" in done.stderr
    assert list(tmp_path.iterdir()) == []
