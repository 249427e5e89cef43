"""Bundles with the test cases beside them: small ones by chance, and large ones that look like real ones."""

from __future__ import annotations

from pathlib import Path

from tests.unit.bundles import write_bundle

from cedarbox.policy import PolicyBundle
from cedarbox.review.cases import Suite

__all__ = ["large_bundle", "load_suite", "write_suite"]

_FORBID = (
    '@id("never") forbid (principal, action == Sandbox::Action::"connect", resource) '
    'when { [Sandbox::IpClass::"metadata", Sandbox::IpClass::"loopback"].contains(context.ipClass) };\n'
)


def write_suite(directory: Path, policies: str, *tables: str, metadata: str | None = None) -> Path:
    """Write a bundle with files of cases, ``0.yaml`` and on, and return its directory."""
    bundle = write_bundle(directory, policies, metadata=metadata)
    (bundle / "tests").mkdir(exist_ok=True)
    for number, text in enumerate(tables):
        (bundle / "tests" / f"{number}.yaml").write_text(text)
    return bundle


def load_suite(directory: Path, policies: str, *tables: str, metadata: str | None = None) -> Suite:
    """Write a bundle with files of cases and load it."""
    return Suite.load(PolicyBundle.load(write_suite(directory, policies, *tables, metadata=metadata)))


def large_bundle(directory: Path, number: int) -> Path:
    """Write a bundle of ``number`` policies with two cases for each that notice every change, and return its directory.

    Seven of ten policies let an agent connect to a host of their own, three of ten let it read or write a directory.
    """
    policies = [_FORBID]
    connect: list[str] = []
    read: list[str] = []
    write: list[str] = []
    refused: dict[str, list[str]] = {"connect": [], "readFile": [], "writeFile": []}
    for index in range(number - 1):
        name = f"p{index}"
        if index % 10 < 7:
            host = f"h{index}.s{index % 17}.corp.example"
            policies.append(
                f'@id("{name}") permit (principal in Sandbox::AgentGroup::"agents", '
                f'action == Sandbox::Action::"connect", resource == Sandbox::Host::"{host}")\n'
                f'when {{ context.port == 443 && context.proto == Sandbox::Proto::"tls" }};\n'
            )
            connect.append(f"    - {{target: {host}, by: {name}}}\n")
            refused["connect"].append(f"    - {{target: {host}, port: 8443}}\n")
            continue
        action, cases = ("readFile", read) if index % 10 < 9 else ("writeFile", write)
        policies.append(
            f'@id("{name}") permit (principal in Sandbox::AgentGroup::"agents", '
            f'action == Sandbox::Action::"{action}", resource in Sandbox::GuestPath::"/workspace/d{index}");\n'
        )
        cases.append(f"    - {{path: /workspace/d{index}/a, by: {name}}}\n")
        refused[action].append(f"    - {{path: /workspace/d{index}x/a}}\n")
    refused["connect"] += ["    - {target: [169.254.169.254, 127.0.0.1], by: never}\n"]
    if connect:
        refused["connect"] += [
            "    - {target: h0.s0.corp.example, principal: outsider}\n",
            "    - {target: h0.s0.corp.example, proto: tcp}\n",
        ]
    parts = ["agents: {outsider: {}}\n"]
    for action, allowed, defaults in (
        ("connect", connect, "{principal: agent, port: 443, proto: tls}"),
        ("readFile", read, "{principal: agent, operation: read}"),
        ("writeFile", write, "{principal: agent, operation: write}"),
    ):
        if not refused[action] and not allowed:
            continue
        parts.append(f"{action}:\n  defaults: {defaults}\n")
        parts.append("".join(["  allow:\n", *allowed]) if allowed else "")
        parts.append("".join(["  deny:\n", *refused[action]]) if refused[action] else "")
    return write_suite(directory, "".join(policies), "".join(parts))
