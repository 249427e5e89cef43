"""Attacks by spelling: another name for a forbidden host, address or path, under a bundle that permits the rest.

Each attack goes through the real gate, on the SDK's real unix-local backend where files are meant.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from agents.sandbox.entries import GitRepo, LocalDir, LocalFile
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.boxlite.mounts import Mount, pinned
from cedarbox.boxlite.network import check_egress
from cedarbox.errors import ConfigurationError, PolicyDenied
from cedarbox.guard.facts import SandboxFacts, mounting
from cedarbox.guard.question import Question
from cedarbox.guard.session import GuardedSession

_FORBID = (
    '@id("name") forbid (principal, action == Sandbox::Action::"connect", resource in Sandbox::Domain::"evil.example");'
    '@id("address") forbid (principal, action == Sandbox::Action::"connect", resource) when '
    '{ context has ip && context.ipClass == Sandbox::IpClass::"metadata" };'
)

HOSTS: Mapping[str, str] = {
    "capitals": "EVIL.EXAMPLE",
    "mixed case": "eViL.eXaMpLe",
    "trailing dot": "evil.example.",
    "two trailing dots": "evil.example..",
    "leading dot": ".evil.example",
    "below the domain": "a.EVIL.example",
    "fullwidth letters": "\uff45\uff56\uff49\uff4c.example",
    "fullwidth dot": "evil\uff0eexample",
    "ideographic dot": "evil\u3002example",
    "halfwidth ideographic dot": "evil\uff61example",
    "one dot leader": "evil\u2024example",
    "circled letter": "\u24d4vil.example",
    "mathematical letter": "\U0001d41evil.example",
    "soft hyphen": "ev\u00adil.example",
    "zero-width space": "ev\u200bil.example",
    "zero-width joiner": "ev\u200dil.example",
    "word joiner": "evil\u2060.example",
    "byte order mark": "\ufeffevil.example",
    "right-to-left override": "\u202eelpmaxe.live",
    "variation selector": "evil\ufe0f.example",
    "combining grapheme joiner": "evil\u034f.example",
    "NUL": "evil.example\0.good.example",
    "line feed": "evil.example\n.good.example",
    "carriage return": "good.example\r\nHost: evil.example",
    "tab": "evil\t.example",
    "space before": " evil.example",
    "space after": "evil.example ",
    "next line": "evil.example\x85",
    "userinfo": "good.example@evil.example",
    "userinfo with a password": "good.example:x@evil.example",
    "port": "evil.example:443",
    "path": "evil.example/good.example",
    "query": "evil.example?.good.example",
    "fragment": "evil.example#.good.example",
    "backslash": "evil.example\\.good.example",
    "percent-encoded letter": "%65vil.example",
    "percent-encoded dot": "evil%2eexample",
    "brackets": "[evil.example]",
    "A-label of an ASCII name": "xn--evil-.example",
    "A-label in capitals": "XN--EVIL-.example",
    "sharp s for ss": "evil.example.fa\u00df",
    "dotted quad": "169.254.169.254",
    "dotted quad with a dot": "169.254.169.254.",
    "decimal": "2852039166",
    "hexadecimal": "0xa9fea9fe",
    "hexadecimal parts": "0xa9.0xfe.0xa9.0xfe",
    "octal": "0251.0376.0251.0376",
    "octal with zeros": "0000251.254.169.254",
    "three parts": "169.254.43518",
    "two parts": "169.16689662",
    "fullwidth digits": "\uff11\uff16\uff19.254.169.254",
    "IPv4-mapped": "::ffff:169.254.169.254",
    "IPv4-mapped in hexadecimal": "::ffff:a9fe:a9fe",
    "IPv4-mapped in brackets": "[::FFFF:A9FE:A9FE]",
    "IPv4-mapped written out": "0:0:0:0:0:ffff:a9fe:a9fe",
    "IPv4-mapped with a zone": "::ffff:a9fe:a9fe%1",
    "IPv4-compatible": "::169.254.169.254",
    "IPv4-translated": "::ffff:0:169.254.169.254",
    "NAT64": "64:ff9b::a9fe:a9fe",
    "NAT64 in dotted form": "64:ff9b::169.254.169.254",
    "local NAT64": "64:ff9b:1::a9fe:a9fe",
    "6to4": "2002:a9fe:a9fe::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:5601:5601",
    "ISATAP": "fe80::5efe:169.254.169.254",
    "ISATAP, universal": "2001:470::200:5efe:a9fe:a9fe",
    "IPv4 in brackets": "[169.254.169.254]",
    "AWS over IPv6": "[fd00:0ec2:0::0254]",
    "pod identity over IPv6": "fd00:ec2::23",
}


class _NeverMade(UnixLocalSandboxClient):
    async def create(self, **_: object) -> SandboxSession:
        raise AssertionError("the backend was asked to make a sandbox")


def _told(guarded: Guarded, asked: str) -> None:
    """The last record is a denial: by the rule, on the canonical name, or because the spelling has none."""
    entry = guarded.records("decision")[-1].entry
    assert entry.decision == "deny"
    if entry.policies:
        assert entry.policies in {("name",), ("address",)}
        assert str(entry.resource).endswith('evil.example"') or str(entry.resource).startswith('Address::"')
    else:
        assert entry.action == asked
        assert entry.errors
    assert guarded.records("outcome") == []


@pytest.mark.parametrize("attack", HOSTS)
async def test_forbidden_host_of_a_repository(tmp_path: Path, attack: str) -> None:
    """A manifest clones from a forbidden host or the metadata service, under another spelling of it.

    Nothing is made. The record is a denial of the canonical name by the rule, or of a host that has no single form.
    """
    guarded = Guarded(tmp_path, PERMIT_ALL + _FORBID, inner=_NeverMade())
    manifest = Manifest(entries={"r": GitRepo(host=HOSTS[attack], repo="a/b", ref="main")})
    with pytest.raises(PolicyDenied):
        await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=manifest, options=None)
    _told(guarded, "manifest clone")


@pytest.mark.parametrize("attack", HOSTS)
async def test_forbidden_host_on_an_allow_list(tmp_path: Path, attack: str) -> None:
    """An allow-list names a forbidden host or the metadata service, under another spelling of it.

    The guard denies it, with a record as above; where BoxLite's own check takes the entry, it is the name decided on.
    """
    guarded = Guarded(tmp_path, PERMIT_ALL + _FORBID)
    facts = SandboxFacts("i", "sha256:0", "local", "microvm", (HOSTS[attack],))
    with pytest.raises(PolicyDenied):
        await guarded.client.gate.ask_all(facts.questions("create"))
    _told(guarded, "egress connect")
    try:
        (taken,) = check_egress("nic", [HOSTS[attack]]) or ()
    except ConfigurationError:
        return
    assert taken in {"evil.example", "a.evil.example", "169.254.169.254"}


@pytest.mark.parametrize(
    "entry", ["*.example", "*", "0.0.0.0/0", "169.254.0.0/16", "good.example,evil.example", "10.0.0.1"]
)
async def test_allow_list_entry_that_opens_more_than_a_name(tmp_path: Path, entry: str) -> None:
    """A wildcard, a network, two names or an address stands where a name should: no rule for names sees it.

    It is denied as an entry that cannot be decided exactly, with a record.
    """
    guarded = Guarded(tmp_path, PERMIT_ALL)
    with pytest.raises(PolicyDenied):
        await guarded.client.gate.ask_all(SandboxFacts("i", None, "l", "microvm", (entry,)).questions("create"))
    assert guarded.records("decision")[-1].entry.action == "egress connect"


# In each, ROOT stands for the workspace; ROOT/secret/key is forbidden, ROOT/link leads to ROOT/secret/inner.
PATHS: Mapping[str, str] = {
    "plain": "ROOT/secret/key",
    "relative": "secret/key",
    "one dot": "./secret/./key",
    "two dots": "open/../secret/key",
    "two dots, absolute": "ROOT/open/../secret/key",
    "two dots out of the root": "../../../../../../ROOT/secret/key",
    "doubled slashes": "ROOT//secret///key",
    "two slashes before": "/ROOT/secret/key",
    "three slashes before": "//ROOT/secret/key",
    "trailing slash": "secret/key/",
    "trailing dot": "secret/key/.",
    "link to the directory": "folder/key",
    "link to a link": "through/key",
    "link to the file": "innocent",
    "absolute link": "absolute",
    "dots behind a link": "link/../key",
    "dots behind a link, absolute": "ROOT/link/../key",
    "dots behind two links": "open/up/link/../key",
    "backslash": "secret\\key",
    "backslashes and dots": "open\\..\\secret\\key",
    "backslash, absolute": "ROOT\\secret\\key",
    "NUL": "secret/key\0.txt",
    "line feed": "secret/key\n",
    "zero-width space": "secret\u200b/key",
    "right-to-left override": "secret/\u202eyek",
    "other normal form": "secret/cafe\u0301",
    "unpaired surrogate": "secret/\udcff",
    "overlong": "open/" + "./" * 3000 + "../secret/key",
    "deep": "open/" + "x/../" * 500 + "../secret/key",
    "variation selector": "secret/key\ufe0f",
    "by way of the process": "/proc/self/root/ROOT/secret/key",
    "by way of the working directory": "/proc/self/cwd/../../../../../../../../ROOT/secret/key",
}


def _prepared(root: Path) -> None:
    (root / "secret" / "inner").mkdir(parents=True)
    (root / "secret" / "key").write_text("the key")
    (root / "secret" / "caf\u00e9").write_text("the key")
    (root / "open").mkdir()
    # What a wrong reading of the dots would find in place of the key.
    (root / "key").write_text("decoy")
    (root / "open" / "key").write_text("decoy")
    (root / "folder").symlink_to("secret")
    (root / "through").symlink_to("folder")
    (root / "innocent").symlink_to("secret/key")
    (root / "absolute").symlink_to(root / "secret" / "key")
    (root / "link").symlink_to("secret/inner")
    (root / "open" / "up").symlink_to("..")


@pytest.mark.parametrize("operation", ["read", "write", "ls", "rm"])
@pytest.mark.parametrize("attack", PATHS)
async def test_forbidden_path_in_a_session(tmp_path: Path, attack: str, operation: str) -> None:
    """A file of a guarded unix-local session that is forbidden is reached for under another spelling of its path.

    It is denied with a record, or what was decided on is used: then it is the decoy, never the key.
    """
    unguarded = UnixLocalSandboxClient()
    session = await unguarded.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    root = Path(os.path.realpath(session.state.manifest.root))
    rules = f'@id("no") forbid (principal, action, resource in Sandbox::GuestPath::"{root}/secret");'.replace(
        "action,", 'action in [Sandbox::Action::"readFile", Sandbox::Action::"writeFile"],'
    )
    guarded = Guarded(tmp_path, PERMIT_ALL + rules)
    wrapped = GuardedSession.wrap(session, guarded.client.gate, isolated=False)
    path = PATHS[attack].replace("/ROOT" if "/ROOT" in PATHS[attack] else "ROOT", str(root))
    async with session:
        _prepared(root)
        try:
            match operation:
                case "read":
                    with await wrapped.read(Path(path)) as stream:
                        assert stream.read() == b"decoy"
                case "write":
                    await wrapped.write(Path(path), io.BytesIO(b"changed"))
                case "ls":
                    assert [Path(entry.path).name for entry in await wrapped.ls(path)] in ([], ["key"])
                case "rm":
                    await wrapped.rm(path)
        except PolicyDenied:
            entry = guarded.records("decision")[-1].entry
            assert entry.decision == "deny"
            assert entry.policies == ("no",) or entry.errors
        except Exception:  # noqa: BLE001  # the SDK refuses some of them itself, in many ways, after they were decided
            assert all(item.entry.outcome == "error" for item in guarded.records("outcome"))
        else:
            # Allowed: so something else was meant, and that is what was touched.
            assert attack in _ALLOWED, attack
        assert (root / "secret" / "key").read_text() == "the key"
        assert sorted(item.name for item in (root / "secret").iterdir()) == ["caf\u00e9", "inner", "key"]
    await unguarded.delete(session)


# Two dots behind a link: read as the text says, they name the decoy; that is decided on, and that is used.
_ALLOWED = frozenset(name for name in PATHS if name.startswith("dots behind"))


@pytest.mark.parametrize("attack", ["dots behind a link", "dots behind a link, absolute", "dots behind two links"])
async def test_dots_behind_a_link_are_used_as_they_were_decided(tmp_path: Path, attack: str) -> None:
    """`link/../key` is ROOT/key by its text and ROOT/secret/key to the kernel, and the first is permitted.

    The decoy is read, which is what the record of the decision names.
    """
    unguarded = UnixLocalSandboxClient()
    session = await unguarded.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    root = Path(os.path.realpath(session.state.manifest.root))
    guarded = Guarded(tmp_path)
    wrapped = GuardedSession.wrap(session, guarded.client.gate, isolated=False)
    async with session:
        _prepared(root)
        with await wrapped.read(Path(PATHS[attack].replace("ROOT", str(root)))) as stream:
            assert stream.read() == b"decoy"
    await unguarded.delete(session)
    assert {resource for _, action, resource in guarded.decisions() if action == "readFile"} <= {
        f'GuestPath::"{root}/key"',
        f'GuestPath::"{root}/open/key"',
        f'GuestPath::"{root}/open/up/key"',
    }


async def _take(guarded: Guarded, source: str, by: str) -> None:
    if by == "mount":
        found = pinned(Mount(source, "/mnt/data"))
        name = mounting(found.host, found.real, found.guest, writable=False)
        await guarded.client.gate.ask(Question("mount", name, source))
        return
    entry = LocalDir(src=Path(source)) if by == "directory entry" else LocalFile(src=Path(source) / "file")
    manifest = Manifest(entries={"x": entry})
    await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=manifest, options=None)


# In each, HERE stands for a directory of the host; HERE/private is forbidden to mount.
SOURCES: Mapping[str, str] = {
    "plain": "HERE/private",
    "trailing slash": "HERE/private/",
    "dots": "HERE/open/../private",
    "one dot": "HERE/./private/.",
    "doubled slashes": "HERE//private",
    "link": "HERE/link",
    "link to a link": "HERE/second",
    "below": "HERE/private/below",
    "link from below": "HERE/open/below",
    "dots behind a link": "HERE/open/below/..",
    "dots behind a link, back again": "HERE/open/below/../below",
    "two slashes before": "/HERE/private",
    "by way of the process": "/proc/self/root/HERE/private",
}


@pytest.mark.parametrize("attack", SOURCES)
@pytest.mark.parametrize("by", ["directory entry", "file entry", "mount"])
async def test_forbidden_directory_of_the_host(tmp_path: Path, attack: str, by: str) -> None:
    """A directory of the host that is forbidden to mount is asked for under another spelling, or through links.

    Nothing is made. The record is a denial of the real path by the rule, or of a path that leads to two places.
    """
    here = Path(os.path.realpath(tmp_path)) / "here"
    (here / "private" / "below").mkdir(parents=True)
    (here / "private" / "file").write_text("private")
    (here / "private" / "below" / "file").write_text("private")
    (here / "open").mkdir()
    (here / "link").symlink_to("private")
    (here / "second").symlink_to("link")
    (here / "open" / "below").symlink_to("../private/below")
    rule = '@id("no") forbid (principal, action == Sandbox::Action::"mountRead", resource) when '
    rule += f'{{ resource in Sandbox::HostPath::"{here}/private" }};'
    guarded = Guarded(tmp_path, PERMIT_ALL + rule, inner=_NeverMade())
    source = SOURCES[attack].replace("/HERE" if "/HERE" in SOURCES[attack] else "HERE", str(here))
    if attack == "two slashes before":
        source = f"/{source}" if not source.startswith("//") else source
    with pytest.raises(PolicyDenied):
        await _take(guarded, source, by)
    record = guarded.records("decision")[-1].entry
    assert record.decision == "deny"
    assert record.policies == ("no",) or record.errors
    if record.policies:
        assert str(record.resource).startswith(f'HostPath::"{here}/private')


@pytest.mark.parametrize("user", ["0", "00", "#0", "+0", "0:0", "root:root", "1000", "-u root", "root\n", ""])
async def test_second_name_of_an_account(tmp_path: Path, user: str) -> None:
    """A command is to run as root by its number, or by something that a backend may take for root.

    It is a result with code 126: denied by the rule for root, or because the account has no single name; on record.
    """
    rule = '@id("no") forbid (principal, action == Sandbox::Action::"exec", resource) when '
    guarded = Guarded(tmp_path, PERMIT_ALL + rule + '{ context has user && context.user == "root" };')
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=None, options=None)
    async with session:
        assert (await session.exec("id", user=user)).exit_code == 126
    await guarded.client.delete(session)
    (denied,) = [item.entry for item in guarded.records("decision") if item.entry.decision == "deny"]
    assert denied.policies == ("no",) or denied.errors
