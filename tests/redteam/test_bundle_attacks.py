"""Attacks on the bundles that ship: whatever the spelling, the gate says no and the ledger shows it.

Each asks the real gate, with the real bundle, and reads the record back from the ledger on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from tests.unit.bundles import SHIPPED

from cedarbox import PolicySandboxClient
from cedarbox.audit import Record, read_records
from cedarbox.errors import PolicyDenied
from cedarbox.guard.question import Question
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host, canonical_host
from cedarbox.policy.entities import Base
from cedarbox.review.arguments import arguments_of
from cedarbox.settings import load_settings

BUNDLES = sorted(path.name for path in SHIPPED.iterdir())
CONNECTING = ["developer", "internal-mirror"]
"""The bundles that permit some connection."""

METADATA = [
    "169.254.169.254",
    "169.254.169.254.",
    "\uff11\uff16\uff19.254.169.254",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "[fd00:ec2::254]",
]
UNNAMEABLE = [
    "0xA9FEA9FE",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[fe80::1%eth0]",
    "evil.example/@mirror",
]
LOCAL_KINDS = {"function", "custom", "mcp"}
FOREIGN_KINDS = sorted(arguments_of("invokeTool")["kind"].members - LOCAL_KINDS)


class Site:
    """A guarded client under a bundle that ships, and its ledger."""

    def __init__(self, name: str, directory: Path) -> None:
        settings = load_settings(
            audit={"directory": directory / "ledger", "signing_key": directory / "ledger.key"},
            otlp={"spans": directory / "spans"},
        )
        settings = settings.model_copy(update={"otlp": settings.otlp.model_copy(update={"endpoint": None})})
        self.name, self._ledger = name, directory / "ledger"
        self.client = PolicySandboxClient(UnixLocalSandboxClient(), policies=SHIPPED / name, settings=settings)

    def last(self) -> Record:
        return [record for _, record in read_records(self._ledger)][-1]

    async def refused(self, build: Callable[[Base], Action]) -> Record:
        """Assert that a request is refused and that its record is the last of the ledger; return the record."""
        with pytest.raises(PolicyDenied) as caught:
            await self.client.gate.ask(Question("attack", build, "attack"))
        record = self.last()
        assert (record.entry.event, record.entry.decision) == ("decision", "deny")
        assert record.seq == caught.value.seq
        assert record.entry.bundle == self.client.gate.engine.bundle.digest
        return record

    async def refused_by_a_forbid(self, build: Callable[[Base], Action]) -> None:
        """Assert that the refusal does not only come from the lack of a permit, and that no error stood in for it."""
        entry = (await self.refused(build)).entry
        policies = {policy.id: policy for policy in self.client.gate.engine.bundle.policies}
        assert entry.policies
        assert {policies[policy_id].effect for policy_id in entry.policies} == {"forbid"}
        assert entry.errors == ()


def _opened(name: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(name, tmp_path)
    yield site
    site.client.close()


@pytest.fixture(params=BUNDLES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield from _opened(request.param, tmp_path)


@pytest.fixture(params=CONNECTING)
def connecting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield from _opened(request.param, tmp_path)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Site]:
    yield from _opened("internal-mirror", tmp_path)


def _to(text: str, *, port: int = 443, proto: str = "tls", ip: str | None = None) -> Callable[[Base], Action]:
    resolved = canonical_host(ip) if ip is not None else None
    assert resolved is None or isinstance(resolved, Address)
    return lambda base: actions.connect(base, canonical_host(text), port=port, proto=proto, ip=resolved)


async def test_the_metadata_service_in_every_spelling(site: Site) -> None:
    """The addresses of cloud metadata services are dialled: plain, embedded in IPv6, with wide digits.

    Every bundle has a forbid for them. The record of each decision names it.
    """
    for text in METADATA:
        for port, proto in ((80, "http"), (443, "tls")):
            await site.refused_by_a_forbid(_to(text, port=port, proto=proto))


async def test_an_address_in_a_spelling_that_only_some_programs_read(site: Site) -> None:
    """The metadata address as one number, in hexadecimal, in octal, with a zone; a host with a second host in it.

    None has a canonical form, so no policy is asked. The record has the error and no policy.
    """
    for text in UNNAMEABLE:
        entry = (await site.refused(_to(text))).entry
        assert entry.policies == ()
        assert entry.errors


async def test_the_loopback_of_the_host(site: Site) -> None:
    """Services of the host are dialled: its loopback in both families, and a permitted name that leads there.

    A forbid refuses the address, whatever led to it. The record names it.
    """
    for text in ("127.0.0.1", "127.8.8.8", "[::1]", "[::ffff:127.0.0.1]"):
        await site.refused_by_a_forbid(_to(text))
    for name in ("localhost", "mirror.corp.example", "packages.example"):
        await site.refused_by_a_forbid(_to(name, ip="127.0.0.1"))


async def test_a_permitted_name_that_was_pointed_at_the_metadata_service(connecting: Site) -> None:
    """DNS rebinding: the permitted host resolves to a metadata or link-local address.

    The forbid sees the address that would be dialled. The record names it.
    """
    for name in ("mirror.corp.example", "git.corp.example", "packages.example", "packagefiles.example"):
        for ip in ("169.254.169.254", "169.254.1.1", "[fe80::1]", "[fd00:ec2::254]"):
            await connecting.refused_by_a_forbid(_to(name, ip=ip))


async def test_a_host_whose_name_looks_like_the_mirror(mirror: Site) -> None:
    """Names that contain, begin with or end in the mirror's name, and one in which a letter is Cyrillic.

    Names are compared whole. The record shows the canonical name and no permit.
    """
    names = [
        "notmirror.corp.example",
        "mirror.corp.example.evil.example",
        "evil.mirror.corp.example",
        "mirror.corp.exampl",
        "mirror.corp.example.corp",
        "m\u0456rror.corp.example",
        "xn--mrror-q4e.corp.example",
    ]
    for name in names:
        entry = (await mirror.refused(_to(name, ip="10.20.0.5"))).entry
        assert entry.policies == ()
    assert mirror.client.gate.engine.decide(
        "agent", _to("MIRROR.corp.example.", ip="10.20.0.5")(mirror.client.gate.base())
    ).allowed


async def test_another_port_of_the_mirror(mirror: Site) -> None:
    """The mirror is dialled on port 22 and others, and on port 443 with another protocol.

    Ports and protocols are part of the permit. The record shows the denial and the port.
    """
    for port, proto in ((22, "tcp"), (80, "http"), (8443, "tls"), (443, "tcp"), (443, "udp")):
        entry = (await mirror.refused(_to("mirror.corp.example", port=port, proto=proto, ip="10.20.0.5"))).entry
        assert entry.attrs["summary"] == f"port {port} {proto} to 10.20.0.5"


async def test_the_mirror_on_a_public_address(mirror: Site) -> None:
    """The name of the mirror or the git host resolves to the internet, to shared address space, or to nothing.

    Only private addresses are permitted. The record shows the denial.
    """
    for ip in ("8.8.8.8", "100.64.0.1", "[2001:4860:4860::8888]", None):
        await mirror.refused(_to("mirror.corp.example", ip=ip))
        await mirror.refused(_to("git.corp.example", ip=ip))
        await mirror.refused(_to("git.corp.example", port=22, proto="tcp", ip=ip))


async def test_a_package_host_that_leads_into_the_own_network(tmp_path: Path) -> None:
    """A permitted public host resolves to a private address, to reach a service of the site through it.

    Only public addresses are permitted to a laptop. The record shows the denial.
    """
    for site in _opened("developer", tmp_path):
        for ip in ("10.0.0.5", "192.168.1.1", "[fd12::5]", "100.64.0.1"):
            await site.refused(_to("packages.example", ip=ip))


async def test_an_open_network(site: Site) -> None:
    """A sandbox is made on a backend that cannot restrict the network: the SDK's own unix-local client.

    The network is decided first, by an action of its own. The record shows it, and no sandbox was made.
    """
    with pytest.raises(PolicyDenied) as caught:
        await site.client.create(manifest=Manifest())
    assert caught.value.action == "connectAnywhere"
    assert (site.last().entry.action, site.last().entry.decision) == ("connectAnywhere", "deny")


async def test_data_carried_out_in_look_ups(site: Site) -> None:
    """DNS queries for any name, and for one name, are asked for: data leaves in the labels of a name.

    No bundle permits a look-up from inside. The record shows the denial of each.
    """
    for host in (None, Host("mirror.corp.example"), Host("c2VjcmV0.evil.example")):
        await site.refused(partial(actions.resolve, host=host))


async def test_a_port_that_is_published(site: Site) -> None:
    """A port of the guest is published, to this host and to others.

    No bundle permits it. The record shows the denial.
    """
    for public in (False, True):
        await site.refused(partial(actions.expose_port, port=8080, public=public))


async def test_a_mount_of_the_host(site: Site) -> None:
    """The host's /etc, its root, a home, a container engine's socket, and paths that climb out of what is permitted.

    Paths are compared after they were made canonical. The record shows the denial of each.
    """
    paths = ["/etc", "/", "//", "/root/.ssh", "/var/run/docker.sock", "/srv/cedarbox", "/srv/cedarbox/database"]
    paths += ["/srv/cedarbox/data/../../../etc", "/srv/cedarbox/projects/../../..", "/srv/cedarbox/projects-old"]
    for path in paths:
        for writable in (False, True):
            await site.refused(_mounting(path, writable=writable, is_symlink=False))


async def test_a_mount_through_a_link(site: Site) -> None:
    """What is permitted to be mounted is reached through a symbolic link, which can be pointed elsewhere later.

    Every bundle refuses paths that went through a link. The record shows the denial of each.
    """
    for path in ("/srv/cedarbox/data/set-1", "/srv/cedarbox/projects/a"):
        for writable in (False, True):
            await site.refused(_mounting(path, writable=writable, is_symlink=True))


async def test_every_kind_of_tool_that_runs_elsewhere(site: Site) -> None:
    """Tools that run at a vendor or around the sandbox are brought, under names of tools that are permitted.

    A forbid refuses every kind that is not of this side, unknown ones too. The record names it.
    """
    assert len(FOREIGN_KINDS) >= 13
    for kind in FOREIGN_KINDS:
        for name in ("exec_command", "apply_patch"):
            await site.refused_by_a_forbid(partial(actions.invoke_tool, name=name, kind=kind))


async def test_a_server_whose_tool_has_a_permitted_name(site: Site) -> None:
    """An MCP server offers a tool called exec_command, and a tool of this process is called like one of a server.

    A server's tool is another resource, and a name with a slash has no canonical form. The record shows both denials.
    """
    await site.refused(partial(actions.invoke_tool, name="exec_command", kind="mcp", server="files"))
    entry = (await site.refused(partial(actions.invoke_tool, name="files/read", kind="function"))).entry
    assert entry.errors


async def test_a_snapshot_written_to_a_file(site: Site) -> None:
    """A saved workspace is exported to a file of the host, below the data directory and elsewhere.

    No bundle permits it. The record shows the denial.
    """
    for path in ("/tmp/out.tar", "/srv/cedarbox/data/out.tar", "/srv/cedarbox/projects/a/out.tar"):
        await site.refused(partial(actions.export, snapshot_id="s1", destination=path))


async def test_a_snapshot_in_clear(site: Site) -> None:
    """A workspace is saved unencrypted on the host, or on another machine, or where nobody can tell.

    Only the backend and encrypted stores are permitted, by some bundles. The record shows the denial.
    """
    for store in ("local", "remote", "unknown"):
        await site.refused(partial(actions.snapshot, session="s1", kind="tar", store=store))


async def test_a_secret_of_the_host(site: Site) -> None:
    """A credential is to be put into a request to a host that may be connected to.

    No bundle permits it. The record shows the denial.
    """
    host = Host("git.corp.example")
    await site.refused(partial(actions.use_secret, name="token", host=host, port=443))


async def test_a_model_at_a_vendor(site: Site) -> None:
    """The conversation is sent to a vendor, to another machine of the site, or to names that look local or permitted.

    Only this process, this host and a named gateway are permitted. The record shows the denial.
    """
    names = (
        "api.openai.com",
        "10.0.0.9",
        "localhost.evil.example",
        "llm.corp.example.evil.example",
        "a.llm.corp.example",
    )
    for text in names:
        target = canonical_host(text)
        await site.refused(partial(actions.use_model, model="m", host=target))


async def test_an_agent_that_the_bundle_does_not_declare(site: Site) -> None:
    """A request is made in the name of an agent that entities.json does not know, for what is permitted to others.

    The engine refuses unknown principals before any policy. Nothing but the answer shows it: no gate exists for one.
    """
    action = actions.execute(site.client.gate.base(), command=["true"], shell=True, user=None, summary="true")
    for name in ("stranger", "Agent", "agent ", ""):
        decision = site.client.gate.engine.decide(name, action)
        assert not decision.allowed
        assert decision.errors


def _mounting(path: str, *, writable: bool, is_symlink: bool) -> Callable[[Base], Action]:
    return partial(actions.mount, host_path=path, guest_path="/data", writable=writable, is_symlink=is_symlink)
