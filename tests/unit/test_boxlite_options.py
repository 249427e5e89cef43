"""The options of a BoxLite sandbox: what is refused, and how."""

from __future__ import annotations

from typing import Any

import pytest
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from hypothesis import given
from hypothesis import strategies as st

from cedarbox.boxlite import BoxLiteSandboxClientOptions, api, network
from cedarbox.boxlite.environment import check_environment_key
from cedarbox.egress import allowlist
from cedarbox.errors import CedarboxError, ConfigurationError, ImageError
from cedarbox.policy.canonical import canonical_host

DIGEST = "sha256:" + "a" * 64


def options(**values: Any) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(**{"image": "python:3.12-slim", **values})


def test_published_names_and_defaults_are_kept() -> None:
    made = options()
    assert (made.type, made.cpus, made.memory_mib, made.workspace_root) == ("boxlite", 2, 1024, "/workspace")
    assert (made.egress_allowlist, made.auto_remove, made.boot_timeout_s) == (None, True, 30.0)
    assert made.egress_mode == "broker"
    positional: Any = BoxLiteSandboxClientOptions
    assert positional("python:3.12-slim", 4).cpus == 4


def test_options_survive_json() -> None:
    made = options(egress_mode="nic", egress_allowlist=("Mirror.Corp.Example", "10.0.0.0/8"), exposed_ports=(8080,))
    again = BaseSandboxClientOptions.parse(made.model_dump(mode="json"))
    assert again == made
    assert made.egress_allowlist == ("mirror.corp.example", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"cpus": 0}, ConfigurationError),
        ({"cpus": 65}, ConfigurationError),
        ({"cpus": True}, ConfigurationError),
        ({"cpus": "two"}, ConfigurationError),
        ({"memory_mib": 16}, ConfigurationError),
        ({"memory_mib": 10**9}, ConfigurationError),
        ({"disk_size_gb": 0}, ConfigurationError),
        ({"boot_timeout_s": 0}, ConfigurationError),
        ({"boot_timeout_s": float("nan")}, ConfigurationError),
        ({"boot_timeout_s": float("inf")}, ConfigurationError),
        ({"auto_remove": "yes"}, ConfigurationError),
        ({"workspace_root": "workspace"}, ConfigurationError),
        ({"workspace_root": "/"}, ConfigurationError),
        ({"workspace_root": "//x"}, ConfigurationError),
        ({"workspace_root": "/etc"}, ConfigurationError),
        ({"workspace_root": "/proc/self"}, ConfigurationError),
        ({"workspace_root": "/a/../etc"}, ConfigurationError),
        ({"workspace_root": "/a\nb"}, ConfigurationError),
        ({"exposed_ports": (80,)}, ConfigurationError),
        ({"exposed_ports": (0,), "egress_mode": "nic", "egress_allowlist": ("a.example",)}, ConfigurationError),
        ({"exposed_ports": (65536,), "egress_mode": "nic", "egress_allowlist": ("a.example",)}, ConfigurationError),
        ({"exposed_ports": ("80",), "egress_mode": "nic", "egress_allowlist": ("a.example",)}, ConfigurationError),
        ({"exposed_ports": (80,), "egress_allowlist": ("a.example",)}, ConfigurationError),
        ({"exposed_ports": (80,), "egress_mode": "nic"}, ConfigurationError),
        ({"exposed_ports": (80,), "egress_mode": "nic", "egress_allowlist": ()}, ConfigurationError),
        ({"egress_mode": "none", "egress_allowlist": ("a.example",)}, ConfigurationError),
        ({"egress_mode": "open"}, ConfigurationError),
        ({"egress_mode": None}, ConfigurationError),
        ({"egress_mode": "nic", "egress_allowlist": ("2001:db8::1",)}, ConfigurationError),
        ({"egress_allowlist": ("a.example:443",)}, ConfigurationError),
        ({"egress_allowlist": ("10.0.0.1/8",)}, ConfigurationError),
        ({"egress_allowlist": ("::/0",)}, ConfigurationError),
        ({"egress_allowlist": ("*",)}, ConfigurationError),
        ({"egress_allowlist": ("*.10.0.0.1",)}, ConfigurationError),
        ({"egress_allowlist": (7,)}, ConfigurationError),
        ({"env": {"A": "b"}}, ConfigurationError),
        ({"image": None}, ImageError),
        ({"rootfs": "/tmp/x"}, ImageError),
        ({"image": ""}, ImageError),
        ({"image": "Upper/Case"}, ImageError),
        ({"image": "a b"}, ImageError),
        ({"image": "--help"}, ImageError),
        ({"image": "python@sha256:abc"}, ImageError),
        ({"image": None, "rootfs": ""}, ImageError),
        ({"image": None, "rootfs": "a\0b"}, ImageError),
    ],
)
def test_bad_values_give_one_line(values: dict[str, Any], error: type[CedarboxError]) -> None:
    with pytest.raises(error) as caught:
        options(**values)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "image",
    ["python", "python:3.12-slim", "mirror.corp.example/a/b:1", "localhost:5000/x@" + DIGEST, "a/b__c/d-e:T@" + DIGEST],
)
def test_image_references(image: str) -> None:
    assert options(image=image).image == image


def test_dictionary_options_are_checked_too() -> None:
    with pytest.raises(ConfigurationError, match="host '\\*' has a character"):
        BaseSandboxClientOptions.parse({"type": "boxlite", "image": "python", "egress_allowlist": ["*"]})


@pytest.mark.parametrize(
    "entry",
    [
        "", "*", "*.", ".", "a..b", "a.example.", "-a.example", "a-.example", "host:443", "https://a.example", "a b",
        "::1", "[::1]", "fe80::/10", "10.0.0.0/33", "10.0.0.1/8", "0.0.0.0/0", "1.2.3", "1.2.3.256", "01.2.3.4",
        "127.1",
        "2130706433", "0x7f.1", "a.0x1", "*.1.2.3.4", "a*.example", "*.*.example", "münchen.example", "a\n.example",
        "a" * 64 + ".example", "10.0.0.0/255.0.0.0", "/8", "a.example/8", 7, None, b"a.example",
    ],
)  # fmt: skip
def test_egress_entries_that_are_refused(entry: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        network.egress_entry(entry)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "canonical"),
    [
        ("A.Example", "a.example"),
        ("*.Wild.Example", "*.wild.example"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("localhost", "localhost"),
        ("_dmarc.a.example", "_dmarc.a.example"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    ],
)
def test_egress_entries_that_are_taken(entry: str, canonical: str) -> None:
    assert network.egress_entry(entry) == canonical


def open_to_all(spec: api.NetworkSpec) -> bool:
    """BoxLite reads enabled without a list as everything open."""
    return spec.outbound.mode != "disabled" and not spec.outbound.allow_net


@pytest.mark.parametrize(
    ("mode", "allow"),
    [
        ("nic", ()),
        ("nic", []),
        ("none", ()),
        ("none", None),
        ("broker", None),
        ("broker", ()),
        ("broker", ("a.example",)),
    ],
)
def test_no_list_means_no_card(mode: str, allow: Any) -> None:
    assert network.network_spec(mode, allow).outbound.mode == "disabled"


def test_a_card_without_a_list_is_refused_and_not_opened() -> None:
    with pytest.raises(ConfigurationError, match="no policies are in force here"):
        network.network_spec("nic", None)


def test_entries_of_the_broker_have_one_spelling() -> None:
    given = ("Mirror.Corp.Example.", "*.Wild.Example", "[2001:DB8::1]", "10.0.0.0/8", "2001:db8::/32", "10.0.0.1")
    made = options(egress_allowlist=given)
    assert made.egress_allowlist == (
        *("mirror.corp.example", "*.wild.example", "2001:db8::1", "10.0.0.0/8", "2001:db8::/32", "10.0.0.1"),
    )
    entries = made.egress_allowlist
    for text, listed in (
        *(("mirror.corp.example", True), ("x.mirror.corp.example", False), ("wild.example", False)),
        *(("a.b.wild.example", True), ("notwild.example", False), ("2001:db8:1::", True), ("10.9.9.9", True)),
        *(("11.0.0.1", False), ("::1", False)),
    ):
        assert allowlist.lists(entries, canonical_host(text)) is listed


_anything = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.integers(),
    st.booleans(),
    st.binary(max_size=8),
    st.lists(
        st.one_of(st.none(), st.text(max_size=12), st.sampled_from(["", "*", "a.example", "10.0.0.0/8"])), max_size=4
    ),
    st.lists(st.sampled_from(["a.example", "*.b.example", "10.1.2.3"]), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)


_modes = st.one_of(st.sampled_from(["nic", "nic", "broker", "none"]), st.none(), st.text(max_size=4))


@given(mode=_modes, allow=_anything)
def test_the_open_network_cannot_be_built(mode: Any, allow: Any) -> None:
    try:
        spec = network.network_spec(mode, allow)
    except ConfigurationError:
        return
    assert not open_to_all(spec)
    assert (spec.outbound.mode == "enabled") is (mode == "nic" and bool(allow))


@given(mode=_modes, allow=_anything)
def test_no_option_leads_to_the_open_network(mode: Any, allow: Any) -> None:
    try:
        made = options(egress_mode=mode, egress_allowlist=allow)
        spec = network.network_spec(made.egress_mode, made.egress_allowlist)
    except ConfigurationError:
        return
    assert not open_to_all(spec)
    assert tuple(spec.outbound.allow_net) == ((made.egress_allowlist or ()) if mode == "nic" else ())


@pytest.mark.parametrize(
    "key", ["BOXLITE_EXECUTOR", "boxlite_executor", "BOXLITE_", "A=B", "", "A\0B", "A B", "CEDARBOX_EXEC"]
)
def test_environment_keys_that_are_refused(key: str) -> None:
    with pytest.raises(ConfigurationError):
        check_environment_key(key, where="manifest environment")


def test_other_environment_keys_pass() -> None:
    check_environment_key("PATH", where="manifest environment")
    check_environment_key("MY_BOXLITE_X", where="manifest environment")
