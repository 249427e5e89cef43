"""``policy fmt``: the result is Cedar's, means the same, and has every comment; otherwise nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cedarpy
import pytest
from tests.unit.bundles import SHIPPED
from tests.unit.cedar_text import CedarText
from typer.testing import CliRunner

from cedarbox.cli import app
from cedarbox.errors import CedarboxError
from cedarbox.policy.source import TOKEN
from cedarbox.review.formatting import FormatError, Layout, format_policies

LONG = os.environ.get("CEDARBOX_LONG") == "1"
MESSY = """// What this is.

@id("one")@reason("x")permit(principal,action  ,resource ,) // behind the scope
when{context.a==1// why
&&[1, // one
 2, // two
].contains(context.b)};// behind

// between
   // and more
forbid(principal in A::"//no comment",action,resource)unless{"; // \\" none"==context.s};
// at the end"""


def run(*arguments: str | Path, stdin: str | bytes = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["policy", "fmt", *map(str, arguments)], input=stdin)
    if isinstance(result.exception, CedarboxError):
        return 2, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


def comments(text: str) -> Counter[str]:
    found = (match.group() for match in TOKEN.finditer(text.replace("\r", "\n")))
    return Counter(piece.rstrip() for piece in found if piece.startswith("//"))


def meaning(text: str) -> object:
    return json.loads(cedarpy.policies_to_json_str(text))


def test_formats_as_cedar_does_and_keeps_every_comment() -> None:
    after = format_policies(MESSY)
    assert after == cedarpy.format_policies(MESSY.replace(",)", ")").replace(", // two", " // two"), 120, 2)
    assert comments(after) == comments(MESSY)
    assert sum(comments(after).values()) == 9
    assert meaning(after) == meaning(MESSY)
    assert format_policies(after) == after


def test_cedars_formatter_alone_would_lose_a_comment() -> None:
    alone = cedarpy.format_policies(MESSY, 120, 2)
    assert comments(MESSY) - comments(alone) == Counter({"// behind the scope": 1, "// two": 1})


def test_what_ships_is_formatted() -> None:
    assert run("--check", SHIPPED)[0] == 0


@pytest.mark.parametrize("seed", range(20 if LONG else 1))
def test_keeps_meaning_and_comments_of_any_policies(seed: int) -> None:
    formatted = 0
    for number in range(100):
        maker = CedarText(seed * 1000 + number)
        gaps = ["", " // behind", "\n", "\n// é on a line\n\n// of its own\n", "//\r"]
        before = "".join(maker.pick(gaps) + maker.policy() for _ in range(3)) + maker.pick(gaps)
        try:
            after = format_policies(before)
        except FormatError:
            with pytest.raises(ValueError, match="cannot parse"):
                cedarpy.format_policies(before)
            continue
        formatted += 1
        assert comments(after) == comments(before)
        assert meaning(after) == meaning(before)
        assert format_policies(after) == after
    assert formatted > 50


def test_writes_in_place_and_keeps_the_mode(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    messy, good, hidden = tmp_path / "deep" / "messy.cedar", tmp_path / "good.cedar", tmp_path / ".hidden" / "h.cedar"
    other = tmp_path / "other.txt"
    for file in (messy, hidden, other):
        file.write_text(MESSY)
    good.write_text(format_policies(MESSY))
    messy.chmod(0o666)
    before = good.stat().st_mtime_ns
    old = os.umask(0o077)
    try:
        code, out, err = run(tmp_path)
    finally:
        os.umask(old)
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{messy}: formatted", "1 of 2 files formatted"]
    assert messy.read_text() == format_policies(MESSY)
    assert messy.stat().st_mode & 0o777 == 0o666
    assert good.stat().st_mtime_ns == before
    assert hidden.read_text() == other.read_text() == MESSY
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["messy.cedar"]


def test_check_and_diff_write_nothing(tmp_path: Path) -> None:
    file = tmp_path / "p.cedar"
    file.write_text(MESSY)
    assert run("--check", file) == (1, f"{file}: not formatted\n", "")
    code, out, _ = run("--diff", file)
    assert code == 1
    assert out.startswith(f"--- a/{file}\n+++ b/{file}\n@@ ")
    assert '+@id("one")\n' in out
    assert "\x1b" not in out
    code, out, _ = run("--check", "--json", file)
    assert (code, json.loads(out)) == (1, {"changed": [str(file)], "unchanged": 0, "errors": []})
    assert file.read_text() == MESSY
    assert run(file)[0] == 0
    assert run("--check", file) == (0, "", "")
    assert run("--diff", file) == (0, "", "")


def test_formats_the_standard_input() -> None:
    assert run("-", stdin=MESSY) == (0, format_policies(MESSY), "")
    assert run("-", "--check", stdin=MESSY)[0] == 1
    assert run("-", "--check", stdin=format_policies(MESSY))[0] == 0
    assert run("-", "x.cedar")[0] == 2
    code, out, err = run("-", stdin="permit (principal")
    assert (code, out) == (2, "")
    assert "(standard input):1:18: not Cedar: unexpected end, expected `==`, `in` or `is`, or the end" in err


def test_options_of_the_layout() -> None:
    text = format_policies(MESSY, Layout(width=40, indent=4))
    assert run("-", "--line-width", "40", "--indent-width", "4", stdin=MESSY)[1] == text
    assert text != format_policies(MESSY)


def test_line_ends_stay_and_a_byte_order_mark_goes(tmp_path: Path) -> None:
    windows = tmp_path / "w.cedar"
    windows.write_bytes(b"\xef\xbb\xbf" + MESSY.replace("\n", "\r\n").encode())
    code, out, _ = run(windows)
    assert (code, out) == (0, f"{windows}: formatted (a byte order mark goes, which Cedar does not take)\n")
    assert windows.read_bytes() == format_policies(MESSY).replace("\n", "\r\n").encode()
    assert run("--check", windows)[0] == 0
    two_lines = 'permit (principal, action, resource) when { "a\nb" == context.s };'
    mixed = f"// x\r\n{two_lines}"
    assert meaning(format_policies(mixed)) == meaning(mixed)


@pytest.mark.parametrize(
    ("text", "after"), [("", ""), (" \n", ""), ("// x ", "// x\n"), ("\r\n// a\r\n\r\n//b", "// a\r\n\r\n//b\r\n")]
)
def test_files_without_policies(text: str, after: str) -> None:
    assert format_policies(text) == after
    assert format_policies(after) == after


def test_goes_on_after_a_file_that_is_not_cedar(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text("// x\npermit (principal, action, resource)\nwhen { context.x = 1 };")
    (tmp_path / "b.cedar").write_bytes(b"// \n// \xff\n")
    (tmp_path / "c.cedar").write_text(MESSY)
    (tmp_path / "d.cedar").symlink_to(tmp_path / "c.cedar")
    os.mkfifo(tmp_path / "e.cedar")
    (tmp_path / "f.cedar").write_text(f"permit (principal, action, resource) when {{ {'(' * 5000} }};")
    (tmp_path / "g.cedar").write_text("\x1b[31mpermit")
    code, out, err = run(tmp_path)
    assert code == 2
    assert f"{tmp_path / 'c.cedar'}: formatted" in out
    lines = err.splitlines()
    assert len(lines) == 6
    assert "a.cedar:3:18: not Cedar: `=` is no operator; compare with `==`" in lines[0]
    assert "b.cedar:2: not UTF-8 text" in lines[1]
    assert "d.cedar: cannot read it" in lines[2]
    assert "e.cedar: cannot read it" in lines[3]
    assert "f.cedar:1:1: brackets or conditionals are more than 64 deep" in lines[4]
    assert "\x1b" not in err


@pytest.mark.parametrize("path", ["missing", "empty", "secret"])
def test_paths_that_cannot_be_formatted(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run(tmp_path / path)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_formats_the_bundle_of_the_settings_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SHIPPED / "baseline", tmp_path / "b")
    (tmp_path / "b" / "policies.cedar").write_text(MESSY)
    (tmp_path / "cedarbox.toml").write_text('[policy]\nbundle = "b"\n')
    monkeypatch.chdir(tmp_path)
    code, out, _ = run()
    assert (code, out) == (0, f"{Path('b') / 'policies.cedar'}: formatted\n")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda text: text.replace("// why", "// whatever"), "would change a comment"),
        (lambda text: text.replace("// why", "", 1), "would change a comment"),
        (lambda text: text.replace("permit", "forbid", 1), "would change what the policy means"),
        (lambda text: text.replace("== 1", "!= 1"), "would change what the policy means"),
        (lambda text: text + "// and more\n", "finds no end"),
    ],
)
def test_does_not_trust_the_formatter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[str], str], said: str
) -> None:
    real = cedarpy.format_policies
    monkeypatch.setattr(cedarpy, "format_policies", lambda *given: wrong(real(*given)))
    file = tmp_path / "p.cedar"
    file.write_text(MESSY)
    code, _, err = run(file)
    assert code == 2
    assert said in err
    assert file.read_text() == MESSY


def test_formats_a_file_in_parts_as_cedar_does_as_a_whole() -> None:
    text = "".join(path.read_text() for path in sorted(SHIPPED.glob("developer/*.cedar")))
    for width in (40, 80):
        assert format_policies(text, Layout(width)) == cedarpy.format_policies(text, width, 2) != text


def test_prints_text_as_it_is() -> None:
    text = "// é 🔒\npermit (principal, action, resource);\n"
    assert CliRunner().invoke(app, ["policy", "fmt", "-"], input=text.encode()).stdout_bytes == text.encode()
