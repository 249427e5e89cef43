"""Rules for Squid: what they say by themselves, and what a real Squid does with them where one is named."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.bundles import write_bundle
from tests.unit.commands import Run, in_process

from cedarbox.errors import ConfigurationError
from cedarbox.policy.addresses import ip_class
from cedarbox.policy.canonical import canonical_host
from cedarbox.policy.regions import CLASSES, PRESENT, Ranges, address_at, place
from cedarbox.review.allowlist.backends import backend_of
from cedarbox.review.allowlist.compiling import check_list, compile_list
from cedarbox.review.allowlist.forms import range_of
from cedarbox.review.allowlist.points import SPELT, addresses_of
from cedarbox.review.subject import Subject

SQUID = os.environ.get("CEDARBOX_SQUID", "")
CONNECT = 'principal, action == Sandbox::Action::"connect"'
PRIVATE = 'context.ipClass == Sandbox::IpClass::"private"'
RULES = f"""
@id("tls") permit ({CONNECT}, resource == Sandbox::Host::"mirror.corp.example")
    when {{ context.port == 443 && context.proto == Sandbox::Proto::"tls" && {PRIVATE} }};
@id("plain") permit ({CONNECT}, resource in Sandbox::Domain::"apt.corp.example")
    when {{ context.port == 80 && context.proto == Sandbox::Proto::"http" && {PRIVATE} }};
@id("lan") permit ({CONNECT}, resource is Sandbox::Address)
    when {{ resource.ip.isInRange(ip("10.20.0.0/16")) && context.port == 443 }};
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy", "compile")


def test_a_list_for_squid_has_what_it_can_tell_and_names_the_rest(tmp_path: Path, run: Run) -> None:
    bundle = write_bundle(tmp_path / "bundle", RULES)
    squid = (bundle, "--backend", "squid", "--dials", "private", "--speaks", "tls")
    code, out, _ = run(*squid, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["entries"] == [
        "tunnel mirror.corp.example:443",
        "plain apt.corp.example:80",
        "plain *.apt.corp.example:80",
    ]
    assert told["proof"].startswith("proved by")
    assert {left["policy"] for left in told["left_closed"]} == {"tls", "lan"}
    assert "no addresses: what a policy permits by address is left out" in told["lacks"]
    lines = [line for line in told["list"].splitlines() if " dst " not in line]
    plain = "http_access allow cedarbox_agent cedarbox_plain !cedarbox_tunnel"
    assert lines[0].startswith("# What agent may connect to, by sha256:")
    assert lines[3:] == [
        "acl cedarbox_tunnel method CONNECT",
        "acl cedarbox_plain proto HTTP",
        "http_access deny cedarbox_agent cedarbox_elsewhere",
        "acl cedarbox_1_port port 443",
        "acl cedarbox_1_name dstdomain -n mirror.corp.example",
        "http_access allow cedarbox_agent cedarbox_tunnel cedarbox_1_port cedarbox_1_name cedarbox_dialled",
        "acl cedarbox_2_port port 80",
        "acl cedarbox_2_name dstdomain -n apt.corp.example",
        f"{plain} cedarbox_2_port cedarbox_2_name cedarbox_dialled",
        "acl cedarbox_3_port port 80",
        "acl cedarbox_3_name dstdomain -n .apt.corp.example",
        "acl cedarbox_3_itself dstdomain -n apt.corp.example",
        f"{plain} cedarbox_3_port cedarbox_3_name !cedarbox_3_itself cedarbox_dialled",
        "http_access deny cedarbox_agent",
    ]
    # Nobody says that a tunnel carries only TLS: then it opens more than the policies permit.
    code, out, _ = run(bundle, "--backend", "squid", "--dials", "private", "--json")
    assert (code, json.loads(out)["entries"][0]) == (0, "plain apt.corp.example:80")
    # Nor which addresses are dialled: a public one would be.
    code, out, _ = run(bundle, "--backend", "squid", "--speaks", "tls", "--json")
    assert (code, json.loads(out)["entries"]) == (0, [])


@pytest.mark.parametrize(
    ("find", "put", "wider"),
    [
        ("port 443", "port 443 22", False),
        ("port 443", "port 444", True),
        ("-n mirror", "-n www", True),
        ("-n mirror", "mirror", False),
        ("http_access deny cedarbox_agent\n", "", False),
        ("http_access deny cedarbox_agent\n", "http_access allow cedarbox_agent\n", False),
        ("http_access deny cedarbox_agent cedarbox_elsewhere\n", "", False),
        ("cedarbox_dialled dst ", "cedarbox_dialled dst 8.8.8.8 ", False),
        (" !cedarbox_tunnel", "", False),
        ("dstdomain -n mirror.corp.example", "dstdomain -n .mirror.corp.example", False),
        ("acl cedarbox_plain proto HTTP\n", "acl cedarbox_plain proto HTTP\ninclude /etc/squid/more.conf\n", False),
    ],
)
def test_a_list_that_was_edited_is_refused_or_found_to_be_wider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: str, put: str, wider: bool
) -> None:
    monkeypatch.setattr("cedarbox.review.allowlist.judge.available", lambda: "no solver")
    bundle = Subject.load(write_bundle(tmp_path, RULES))
    backend = backend_of("squid", classes=["private"], protocols=["tls"])
    text = compile_list(bundle, "agent", backend).text
    spaced = "# Another comment.\n\n" + text.replace("acl ", "acl   ")
    assert check_list(bundle, "agent", backend, spaced).good
    assert find in text
    edited = text.replace(find, put)
    if wider:
        assert check_list(bundle, "agent", backend, edited).wider
    else:
        with pytest.raises(ConfigurationError, match="is not as cedarbox policy compile writes it"):
            check_list(bundle, "agent", backend, edited)


def test_a_list_is_read_with_the_classes_that_it_was_written_for(tmp_path: Path, run: Run) -> None:
    bundle, file = write_bundle(tmp_path / "bundle", RULES), tmp_path / "list.conf"
    assert run(bundle, "--backend", "squid", "--dials", "private", "--into", file)[0] == 0
    code, _, err = run(bundle, "--backend", "squid", "--dials", "public", "--check", file)
    assert code == 2
    assert "the same --dials" in err
    for name in ("unresolved", "reserved"):
        with pytest.raises(ConfigurationError, match="lead elsewhere"):
            backend_of("squid", classes=[name])
    for entry in ("tunnel 10.0.0.1:443", "tls mirror.corp.example:443", "tunnel mirror.corp.example"):
        with pytest.raises(ConfigurationError):
            backend_of("squid").parse(entry)


@pytest.mark.parametrize("dialled", [("private",), ("public", "cgnat"), ("loopback", "link_local", "metadata")])
def test_every_address_is_denied_or_of_a_class_that_is_dialled(dialled: tuple[str, ...]) -> None:
    backend = backend_of("squid", classes=dialled)
    held = {name: Ranges(()) for name in ("cedarbox_elsewhere", "cedarbox_dialled")}
    for line in backend.write([], "agent", "none").splitlines():
        match line.split():
            case ["acl", name, "dst", *values]:
                ends = [[place(ipaddress.ip_address(end)) for end in value.split("-")] for value in values]
                held[name] = held[name] | Ranges.of((each[0], each[-1]) for each in ends)
    there = held["cedarbox_dialled"]
    assert there == addresses_of(frozenset(dialled)) - Ranges.of([(0, 0)])
    translated = Ranges.of([range_of("64:ff9b::/96")])
    assert held["cedarbox_elsewhere"] == (PRESENT - Ranges.of([(0, 0)]) - there - SPELT) | translated
    # What else spells an address of IPv4 has no address of its own in Squid.
    assert SPELT - translated == Ranges.of([range_of("::ffff:0:0/96")])


ASKED = {
    "CONNECT a.example:8443": 200,
    "CONNECT A.EXAMPLE:8443": 200,
    "CONNECT a.example:9999": 403,
    "CONNECT x.a.example:8443": 403,
    "CONNECT b.example:8443": 403,
    "CONNECT x.b.example:8443": 200,
    "CONNECT xb.example:8443": 403,
    "CONNECT both.b.example:8443": 403,
    "CONNECT 127.0.0.1:8443": 403,
    "CONNECT [::1]:8443": 403,
    "CONNECT 0.0.0.0:8443": 403,
    "CONNECT plain.example:8443": 403,
    "GET http://plain.example:8443/": 200,
    "GET http://plain.example:8444/": 403,
    "GET http://a.example:8443/": 403,
    "GET ftp://plain.example:8443/": 403,
    "GET https://plain.example:8443/": 403,
    "GET http://plain.example:8443@a.example:8443/": 403,
}
HOSTS = "127.0.0.1 a.example x.a.example b.example x.b.example xb.example plain.example both.b.example\n"
DRIVER = r"""
import json, socket, subprocess, sys, threading, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
command, asked = json.loads(sys.stdin.read())
server = socket.create_server(("127.0.0.1", 8443))
def serve():
    while True:
        with server.accept()[0] as one:
            try:
                one.recv(4096)
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            except OSError:
                pass
threading.Thread(target=serve, daemon=True).start()
squid = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def ask(line):
    with socket.create_connection(("127.0.0.1", 3128), timeout=60) as one:
        one.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int(one.recv(200).split()[1])
for _ in range(600):
    try:
        socket.create_connection(("127.0.0.1", 3128), timeout=60).close()
        break
    except OSError:
        time.sleep(0.1)
try:
    print(json.dumps([ask(line) for line in asked]))
finally:
    squid.terminate()
    squid.wait()
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory that the user whom Squid becomes can use, too."""
    with tempfile.TemporaryDirectory(prefix="cedarbox-squid-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def answers(directory: Path, text: str, hosts: str, asked: list[str]) -> list[int]:
    """Ask a real Squid, in a network of its own that leads nowhere."""
    (directory / "list.conf").write_text(text)
    (directory / "hosts").write_text(hosts)
    share = Path(SQUID).parents[1] / "share"
    lines = [
        "acl cedarbox_agent src 127.0.0.1",
        f"include {directory}/list.conf",
        "http_access deny all",
        "http_port 127.0.0.1:3128",
        f"hosts_file {directory}/hosts",
        "dns_nameservers 127.0.0.1",
        "dns_timeout 1 second",
        "connect_timeout 1 second",
        "forward_timeout 1 second",
        "forward_max_tries 1",
        "shutdown_lifetime 0 seconds",
        f"pid_filename {directory}/pid",
        f"cache_log {directory}/cache.log",
        f"coredump_dir {directory}",
        "access_log none",
        "pinger_enable off",
        "netdb_filename none",
        f"mime_table {share}/squid/mime.conf",
        f"icon_directory {share}/squid/icons",
        f"error_directory {share}/squid-langpack/en",
        f"unlinkd_program {share.parent}/lib/squid/unlinkd",
        "visible_hostname proxy",
    ]
    (directory / "squid.conf").write_text("\n".join(lines) + "\n")
    command = [SQUID, "-f", f"{directory}/squid.conf", "-n", f"cbx{os.getpid()}"]
    parsed = subprocess.run([*command, "-k", "parse"], capture_output=True, text=True, check=False, timeout=60)
    assert parsed.returncode == 0, parsed.stderr
    assert "WARNING" not in parsed.stderr
    done = subprocess.run(
        ["unshare", "-n", "-p", "-f", "--kill-child", sys.executable, "-P", "-c", DRIVER],
        input=json.dumps([[*command, "-N", "-C"], asked]),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.skipif(not SQUID, reason="CEDARBOX_SQUID names no Squid")
def test_a_real_squid_opens_what_the_entries_open(readable: Path) -> None:
    backend = backend_of("squid", classes=["loopback"])
    entries = [
        backend.parse(f"{each}:8443") for each in ("tunnel a.example", "tunnel *.b.example", "plain plain.example")
    ]
    got = answers(readable, backend.write(entries, "agent", "none"), HOSTS + "10.0.0.5 both.b.example\n", list(ASKED))
    assert dict(zip(ASKED, got, strict=True)) == ASKED


@pytest.mark.skipif(not SQUID, reason="CEDARBOX_SQUID names no Squid")
@pytest.mark.parametrize("name", ["loopback", "private", "public"])
def test_a_real_squid_dials_the_addresses_of_the_classes_and_no_others(readable: Path, name: str) -> None:
    backend = backend_of("squid", classes=[name])
    ends = {end for each in CLASSES for part in addresses_of(frozenset({each})).parts for end in part}
    tried = [str(address_at(end)) for end in sorted(ends)]
    tried += ["64:ff9b::7f00:1", "64:ff9b::808:808"]
    hosts = "".join(f"{ip} n{number}.b.example\n" for number, ip in enumerate(tried))
    asked = [f"CONNECT n{number}.b.example:8443" for number in range(len(tried))]
    got = answers(readable, backend.write([backend.parse("tunnel *.b.example:8443")], "agent", "none"), hosts, asked)
    for ip, code in zip(tried, got, strict=True):
        address = ipaddress.ip_address(ip)
        wanted = ip_class(address) == name and str(canonical_host(ip)) == ip
        assert (code != 403) is wanted, (ip, code)
