"""A bundle is read whole and right, or refused with one line that names the place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.bundles import PERMIT_ALL, SHIPPED, agents, write_bundle

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle, schema_text
from cedarbox.policy.actions import ACTION_GROUPS


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir()))
def test_shipped_bundles_load(name: str) -> None:
    bundle = PolicyBundle.load(SHIPPED / name)
    assert bundle.name == name
    assert bundle.digest.startswith("sha256:")
    assert all(policy.annotations.get("id") and policy.annotations.get("reason") for policy in bundle.policies)


def test_every_action_of_the_schema_is_known_and_no_other() -> None:
    declared: set[str] = set()
    for line in schema_text().splitlines():
        words = line.strip().removeprefix("action ").split(" in [")[0]
        if line.strip().startswith("action ") and " in [" in line:
            declared |= {word.strip() for word in words.split(",")}
    assert declared == set(ACTION_GROUPS)


@pytest.mark.parametrize(
    ("policies", "line", "said"),
    [
        ('// fine\n@id("a")\npermit (principal, action, resource) whn { true };', 3, "whn"),
        ("permit (principal,\n  action\n  resource);", 3, "unexpected token"),
        ("permit (principal, action, resource);\npermit (principal, action, resource", 2, "end of input"),
        ('permit (principal, action == Sandbox::Action::"conect", resource);', 1, "unknown action"),
        ('permit (principal, action == Other::Action::"connect", resource);', 1, "unknown action"),
        ("permit (principal == ?principal, action, resource);", 1, "templates"),
        (
            '\n\n@id("x")\npermit (principal, action == Sandbox::Action::"exec", resource) when { context.prt == 1 };',
            4,
            "prt",
        ),
        (
            """permit (principal, action == Sandbox::Action::"create", resource)
when { context.isolation == Sandbox::Isolation::"microvmm" };""",
            2,
            "microvmm",
        ),
        ('@id("a") permit (principal, action, resource);\n@id("a") forbid (principal, action, resource);', 2, "second"),
    ],
)
def test_a_mistake_in_a_policy_is_named_with_its_line(tmp_path: Path, policies: str, line: int, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        PolicyBundle.load(write_bundle(tmp_path, policies))
    assert said in str(caught.value)
    assert caught.value.path == tmp_path / "policies.cedar"
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entities", "said"),
    [
        ("[", "not JSON"),
        ("{}", "list"),
        ("[1]", "uid"),
        ('[{"uid": {"type": "Sandbox::Host", "id": "x"}, "attrs": {}, "parents": []}]', "Sandbox::Host"),
        ('[{"uid": {"type": "Sandbox::Agent", "id": "x"}, "attrs": {}, "parents": []}]', "does not fit"),
    ],
)
def test_a_mistake_in_the_entities_is_named(tmp_path: Path, entities: str, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, entities=entities))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("name = ", "not TOML"),
        ("schema = 1\n", "name"),
        ('name = "x"\n', "schema is None"),
        ('name = "x"\nschema = 2\n', "schema is 2"),
        ('name = "x"\nschema = true\n', "schema is True"),
        ('name = "x"\nschema = 1\nrevision = -1\n', "revision"),
        ('name = "x"\nschema = 1\nsurprise = 1\n', "surprise"),
    ],
)
def test_a_mistake_in_the_metadata_is_named(tmp_path: Path, metadata: str, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, metadata=metadata))


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        PolicyBundle.load(tmp_path / "nowhere")


def test_a_directory_without_policies_is_refused(tmp_path: Path) -> None:
    (write_bundle(tmp_path, PERMIT_ALL) / "policies.cedar").unlink()
    with pytest.raises(BundleError, match=r"no \.cedar file"):
        PolicyBundle.load(tmp_path)


@pytest.mark.parametrize("missing", ["entities.json", "bundle.toml"])
def test_a_missing_part_is_refused(tmp_path: Path, missing: str) -> None:
    (write_bundle(tmp_path, PERMIT_ALL) / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        PolicyBundle.load(tmp_path)


def test_a_link_in_a_bundle_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.cedar"
    outside.write_text(PERMIT_ALL)
    bundle = write_bundle(tmp_path / "bundle", PERMIT_ALL)
    (bundle / "linked.cedar").symlink_to(outside)
    with pytest.raises(BundleError, match="not a regular file"):
        PolicyBundle.load(bundle)


def test_a_fifo_in_a_bundle_is_refused(tmp_path: Path) -> None:
    os.mkfifo(write_bundle(tmp_path, PERMIT_ALL) / "pipe.cedar")
    with pytest.raises(BundleError, match="not a regular file"):
        PolicyBundle.load(tmp_path)


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (write_bundle(tmp_path, PERMIT_ALL) / "policies.cedar").write_bytes(b"// one\n// \xff\n")
    with pytest.raises(BundleError, match=r"policies\.cedar:2"):
        PolicyBundle.load(tmp_path)


def test_the_digest_covers_every_file_that_decides(tmp_path: Path) -> None:
    digests = {PolicyBundle.load(write_bundle(tmp_path / "a", PERMIT_ALL)).digest}
    digests.add(PolicyBundle.load(write_bundle(tmp_path / "b", PERMIT_ALL + "\n")).digest)
    digests.add(PolicyBundle.load(write_bundle(tmp_path / "c", PERMIT_ALL, entities=agents("other"))).digest)
    digests.add(PolicyBundle.load(write_bundle(tmp_path / "d", PERMIT_ALL, metadata='name = "y"\nschema = 1\n')).digest)
    renamed = write_bundle(tmp_path / "e", PERMIT_ALL)
    (renamed / "policies.cedar").rename(renamed / "other.cedar")
    digests.add(PolicyBundle.load(renamed).digest)
    assert len(digests) == 5


def test_the_digest_does_not_depend_on_the_place(tmp_path: Path) -> None:
    first = PolicyBundle.load(write_bundle(tmp_path / "a", PERMIT_ALL))
    assert PolicyBundle.load(write_bundle(tmp_path / "b", PERMIT_ALL)).digest == first.digest


@pytest.mark.parametrize(
    "condition",
    ["(" * 5000 + "true" + ")" * 5000, "[" * 5000 + "]" * 5000, " && ".join(["true"] * 20_000), "if true then " * 5000],
    ids=["brackets", "sets", "chain", "conditionals"],
)
def test_a_policy_that_would_crash_the_parser_is_refused_before_it_sees_it(tmp_path: Path, condition: str) -> None:
    with pytest.raises(BundleError, match=r"policies\.cedar:2: .*(deep|operators)"):
        PolicyBundle.load(write_bundle(tmp_path, f"\npermit (principal, action, resource) when {{ {condition} }};"))


@pytest.mark.parametrize("entities", ["[" * 100_000, "[1" + "0" * 5000 + "]"], ids=["deep", "long number"])
def test_json_that_exhausts_the_reader_is_refused(tmp_path: Path, entities: str) -> None:
    with pytest.raises(BundleError, match="not JSON that can be read"):
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, entities=entities))


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(BundleError, match="NUL"):
        PolicyBundle.load("a\0b")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('on_denied_tool = ["remove"]', "on_denied_tool must be"),
        ("on_denied_tool = {}", "on_denied_tool must be"),
        ("on_denied_tool = 1", "on_denied_tool must be"),
        ("description = 5", "description must be text"),
        ('description = "a"\nname = "a\\nb"', "name must be one line"),
        (f'description = "a"\nname = "{"x" * 101}"', "name must be one line"),
        ('description = "a"\nname = "\\u202e"', "name must be one line"),
    ],
)
def test_metadata_of_a_wrong_kind(tmp_path: Path, line: str, said: str) -> None:
    name = "" if "name =" in line else 'name = "test"\n'
    with pytest.raises(BundleError, match=said):
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, metadata=f"{name}schema = 1\n{line}\n"))
