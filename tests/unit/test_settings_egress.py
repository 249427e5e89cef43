"""The settings of egress: a default that carries nothing unasked, and no value that means something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from cedarbox.errors import ConfigurationError
from cedarbox.settings import EgressSettings, load_settings

TEXT = """\
[egress]
mode = "nic"
[egress.limits]
connections = 32
idle_s = 2.5
[egress.secrets.mirror-token]
reference = "env:MIRROR_TOKEN"
[egress.secrets.git_token]
reference = "file:/run/secrets/git token"
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "cedarbox.toml"
    path.write_text(text)
    return path


def test_without_a_section_the_broker_carries(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, "")).egress == EgressSettings()
    assert EgressSettings().mode == "broker"
    assert EgressSettings().limits.given() == {}
    assert EgressSettings().secrets == {}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    egress = load_settings(written(tmp_path, TEXT)).egress
    assert egress.mode == "nic"
    assert egress.limits.given() == {"connections": 32, "idle_s": 2.5}
    assert {name: secret.reference for name, secret in egress.secrets.items()} == {
        "mirror-token": "env:MIRROR_TOKEN",
        "git_token": "file:/run/secrets/git token",
    }


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEDARBOX_EGRESS__MODE", "none")
    monkeypatch.setenv("CEDARBOX_EGRESS__LIMITS__CONNECTIONS", "8")
    monkeypatch.setenv("CEDARBOX_EGRESS__SECRETS__GIT_TOKEN__REFERENCE", "env:OTHER")
    egress = load_settings(written(tmp_path, TEXT)).egress
    assert egress.mode == "none"
    assert egress.limits.given() == {"connections": 8, "idle_s": 2.5}
    assert {name: secret.reference for name, secret in egress.secrets.items()} == {
        "mirror-token": "env:MIRROR_TOKEN",
        "git_token": "env:OTHER",
    }


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[egress]\nmode = "open"\n', "egress.mode"),
        ("[egress]\nproxy = 1\n", "egress.proxy"),
        ("[egress.limits]\nconnections = 0\n", "egress.limits.connections"),
        ("[egress.limits]\nbytes_out = -1\n", "egress.limits.bytes_out"),
        ("[egress.limits]\nbytes_in = 1.5\n", "egress.limits.bytes_in"),
        ("[egress.limits]\nidle_s = 0\n", "egress.limits.idle_s"),
        ("[egress.limits]\nidle_s = inf\n", "egress.limits.idle_s"),
        ("[egress.limits]\ndial_s = nan\n", "egress.limits.dial_s"),
        ("[egress.limits]\nconections = 1\n", "egress.limits.conections"),
        ('[egress.secrets.token]\nvalue = "x"\n', "egress.secrets.token"),
        ('[egress.secrets.token]\nreference = "s3cr3t"\n', "egress.secrets.token.reference"),
        ('[egress.secrets.token]\nreference = "env:"\n', "egress.secrets.token.reference"),
        ('[egress.secrets.token]\nreference = "env:A B"\n', "egress.secrets.token.reference"),
        ('[egress.secrets.token]\nreference = "file:relative"\n', "egress.secrets.token.reference"),
        ('[egress.secrets.token]\nreference = "file:/dir/"\n', "egress.secrets.token.reference"),
        ('[egress.secrets.token]\nreference = "file:/a\\nb"\n', "egress.secrets.token.reference"),
        ('[egress.secrets.Token]\nreference = "env:A"\n', "egress.secrets.Token"),
        ('[egress.secrets."a/b"]\nreference = "env:A"\n', "egress.secrets.a/b"),
        ('[egress.secrets."1a"]\nreference = "env:A"\n', "egress.secrets.1a"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path, text))
    assert f" {key}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
