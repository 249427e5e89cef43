"""What a review of a large bundle takes: whole commands, from the start of the program to its end.

Run it: python -m tests.bench.bench_review [POLICIES …]
A bundle of so many policies is written, with a test case for each permit, and changes of it; then each command is run
three times, and the fastest and the slowest run are printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["write"]

_RUNS = 3
_GROUPS = 8
_PROPERTY = """\
[[property]]
id = "no-metadata"
why = "metadata services hand out credentials"
never = { action = "connect", when = 'context.ipClass == Sandbox::IpClass::"metadata"' }
"""


def _scope(name: str, group: int, action: str, resource: str = "resource") -> str:
    principal = f'principal in Sandbox::AgentGroup::"g{group}"'
    return (
        f'@id("{name}")\n@reason("what {name} is for")\n'
        f'permit (\n  {principal},\n  action == Sandbox::Action::"{action}",\n  {resource}\n)'
    )


def _policies(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield name, text, and the test case of each policy but the two forbids."""
    tls = 'when { context.proto == Sandbox::Proto::"tls" && context.port == 443 }'
    private = 'when { context.ipClass == Sandbox::IpClass::"private" };'
    for number in range(count - 2):
        name, group = f"p{number:05}", number % _GROUPS
        who = f"case: {name}, principal: a{group}, by: {name}"
        kind = number % 8
        if kind <= 2:
            text = _scope(name, group, "connect", f'resource == Sandbox::Host::"h{number}.corp.example"')
            yield name, f"{text}\n{tls}\n{private}", f"{{{who}, target: h{number}.corp.example, ip: 10.0.0.5}}"
        elif kind == 3:
            text = _scope(name, group, "connect", f'resource in Sandbox::Domain::"d{number}.example"')
            yield name, f"{text}\n{tls}\n{private}", f"{{{who}, target: x.d{number}.example, ip: 10.0.0.5}}"
        elif kind == 4:
            text = _scope(name, group, "connect", "resource is Sandbox::Host")
            like = f'when {{ resource.fqdn like "*.l{number}.example" }}'
            yield name, f"{text}\n{like}\n{tls}\n{private}", f"{{{who}, target: x.l{number}.example, ip: 10.0.0.5}}"
        elif kind == 5:
            text = _scope(name, group, "connect", "resource is Sandbox::Address")
            block = f"10.{number // 250}.{number % 250}.0/24"
            inside = f'when {{ resource.ip.isInRange(ip("{block}")) && context.port < 9000 }};'
            yield name, f"{text}\n{inside}", f"{{{who}, target: {block.replace('.0/24', '.9')}}}"
        elif kind == 6:
            text = _scope(name, group, "mountRead", f'resource in Sandbox::HostPath::"/srv/d{number}"')
            case = f"{{{who}, host_path: /srv/d{number}/a, guest_path: /a, is_symlink: false}}"
            yield name, f"{text}\nunless {{ context.isSymlink }};", case
        else:
            text = _scope(name, group, "invokeTool", f'resource == Sandbox::Tool::"t{number}"')
            plain = 'when { resource.kind == Sandbox::ToolKind::"function" };'
            yield name, f"{text}\n{plain}", f"{{{who}, name: t{number}, kind: function}}"


_FORBIDS = """\
@id("never-here")
@reason("the host, its link and metadata services")
@advice("name another host")
forbid (
  principal,
  action == Sandbox::Action::"connect",
  resource
)
when
{
  [Sandbox::IpClass::"metadata", Sandbox::IpClass::"loopback", Sandbox::IpClass::"link_local"].contains(context.ipClass)
};

@id("no-hosted-tools")
@reason("hosted tools run at a vendor")
@advice("use a function")
forbid (
  principal,
  action == Sandbox::Action::"invokeTool",
  resource
)
unless { [Sandbox::ToolKind::"function", Sandbox::ToolKind::"custom"].contains(resource.kind) };
"""


def write(directory: Path, count: int) -> Path:
    """Write a bundle of ``count`` policies with a test case for each permit, and return its directory."""
    (directory / "tests").mkdir(parents=True)
    made = list(_policies(count))
    (directory / "policies.cedar").write_text("\n\n".join([*(text for _, text, _ in made), _FORBIDS]))
    (directory / "bundle.toml").write_text('name = "large"\nrevision = 1\nschema = 1\n')
    site = {"type": "Sandbox::Tenant", "id": "site"}
    entities: list[dict[str, object]] = [{"uid": site, "attrs": {}, "parents": []}]
    for group in range(_GROUPS):
        uid = {"type": "Sandbox::AgentGroup", "id": f"g{group}"}
        entities.append({"uid": uid, "attrs": {}, "parents": []})
        attrs = {
            "tenant": {"__entity": site},
            "trust": {"__entity": {"type": "Sandbox::Trust", "id": "untrusted"}},
        }
        entities.append({"uid": {"type": "Sandbox::Agent", "id": f"a{group}"}, "attrs": attrs, "parents": [uid]})
    (directory / "entities.json").write_text(json.dumps(entities, indent=1))
    tables: dict[str, list[str]] = {}
    for number, (_, _, case) in enumerate(made):
        kind = number % 8
        action = "connect" if kind <= 5 else "mountRead" if kind == 6 else "invokeTool"
        tables.setdefault(action, []).append(f"    - {case}\n")
    lines = []
    for action, cases in tables.items():
        lines.append(f"{action}:\n")
        if action == "connect":
            lines.append("  defaults: {port: 443, proto: tls}\n")
        lines += ["  allow:\n", *cases]
    (directory / "tests" / "all.yaml").write_text("".join(lines))
    return directory


def _changed(base: Path, to: Path, find: str, put: str) -> Path:
    to.mkdir()
    for path in base.iterdir():
        if path.is_file():
            text = path.read_text()
            if path.suffix == ".cedar":
                assert find in text
                text = text.replace(find, put, 1)
            (to / path.name).write_text(text)
    return to


def _timed(name: str, *arguments: str | Path) -> None:
    seconds, code, last = [], 0, ""
    for _ in range(_RUNS):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cedarbox", "policy", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        seconds.append(time.monotonic() - started)
        code, last = (
            done.returncode,
            next((line for line in reversed((done.stdout + done.stderr).splitlines()) if line), ""),
        )
    print(f"{name:34} {min(seconds):7.2f} … {max(seconds):7.2f} s  exit {code}  {last.strip()[:90]}", flush=True)


def main() -> None:
    """Measure each command for each number of policies."""
    for count in [int(argument) for argument in sys.argv[1:]] or [200, 1000]:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            base = write(root / "base", count)
            same = _changed(base, root / "same", '@id("p00003")', '// Moved.\n@id("p00003")')
            wider = _changed(base, root / "wider", '"*.l4.example"', '"*l4.example"')
            narrower = _changed(base, root / "narrower", "10.0.5.0/24", "10.0.5.0/25")
            dropped = _changed(base, root / "dropped", 'Sandbox::IpClass::"loopback", ', "")
            (root / "properties.toml").write_text(_PROPERTY)
            print(f"{count} policies")
            _timed("check", "check", base)
            _timed("fmt --check", "fmt", "--check", base)
            _timed("lint", "lint", base)
            _timed("test", "test", base)
            _timed("prove", "prove", base, "--never", "anyone connects to ipClass metadata")
            _timed("diff, a comment", "diff", base, same)
            _timed("diff, a dot lost", "diff", base, wider)
            _timed("diff, a range halved", "diff", base, narrower)
            _timed("diff, a forbid shortened", "diff", base, dropped)


if __name__ == "__main__":
    main()
