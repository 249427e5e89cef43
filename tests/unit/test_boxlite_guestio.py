"""The script that carries a command's output, run by the shell of this machine, and its decoder."""

from __future__ import annotations

import base64
import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cedarbox.boxlite import archive, files, marked, scripts
from cedarbox.boxlite.marked import GuestFailure, MarkedStream, OutputTooLarge

LEFT, RIGHT = "0123456789abcdef", "fedcba9876543210"
MARKER = f"{LEFT}={RIGHT}"


def carried(*command: str, cwd: str = "/", stdin: bytes | None = None) -> tuple[bytes, bytes, bytes | None]:
    """Run a command under the script; return both streams and the exit code's text."""
    flag = "0" if stdin is None else "1"
    done = subprocess.run(
        ["/bin/sh", "-c", scripts.RUN, "sh", LEFT, RIGHT, flag, cwd, *command],
        input=stdin or b"",
        capture_output=True,
        check=False,
    )
    out, err = MarkedStream(MARKER.encode()), MarkedStream(MARKER.encode())
    out.feed(done.stdout.decode("ascii"))
    err.feed(done.stderr.decode("ascii"))
    assert err.done
    return bytes(out.data), bytes(err.data), out.trailer


def test_both_streams_are_exact() -> None:
    every = bytes(range(256)) * 300
    assert carried("sh", "-c", "cat", stdin=every) == (every, b"", b"0")
    octal = 'printf "\\377\\000\\303"; printf "\\251" >&2; exit 7'
    assert carried("sh", "-c", octal) == (b"\xff\0\xc3", b"\xa9", b"7")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), b"0"),
        (("false",), b"1"),
        (("/nonexistent/program",), b"127"),
        (("/etc/passwd",), b"126"),
        (("sh", "-c", "exit 255"), b"255"),
        (("sh", "-c", "kill -9 $$"), b"137"),
        (("sh", "-c", "kill -15 $$"), b"143"),
        (("sh", "-c", "kill 0"), b"143"),
        (("exit", "3"), b"127"),
    ],
)
def test_exit_codes(command: tuple[str, ...], code: bytes) -> None:
    assert carried(*command)[2] == code


def test_a_signal_adds_nothing_to_standard_error() -> None:
    assert carried("sh", "-c", "kill -9 $$")[1] == b""


def test_the_script_s_own_arguments_do_not_end_the_stream() -> None:
    out, _, code = carried("sh", "-c", "cat /proc/[0-9]*/cmdline; tr '\\0' ' ' </proc/$PPID/cmdline; env; echo end")
    assert LEFT.encode() in out
    assert out.endswith(b"end\n")
    assert code == b"0"


def test_arguments_arrive_exactly() -> None:
    argument = "a b'c\"d$e`f\\g\nh*"
    assert carried("printf", "%s", argument)[0] == argument.encode()


def test_standard_input_is_empty_unless_given() -> None:
    assert carried("cat") == (b"", b"", b"0")
    assert carried("wc", "-c", stdin=b"x" * 100_000)[0].strip() == b"100000"


def test_a_working_directory_that_is_missing() -> None:
    out, err, code = carried("pwd", cwd="/nonexistent")
    assert (out, code) == (b"", b"126")
    assert b"/nonexistent" in err
    assert carried("pwd", cwd="/usr")[0] == b"/usr\n"


@given(data=st.binary(max_size=400), cut=st.integers(min_value=1, max_value=50), tail=st.binary(max_size=30))
def test_the_decoder_does_not_care_where_pieces_end(data: bytes, cut: int, tail: bytes) -> None:
    payload = data + MARKER.encode() + b"42\n" + tail
    half = len(payload) // 2
    text = "".join(base64.encodebytes(part).decode() for part in (payload[:half], payload[half:]) if part)
    stream = MarkedStream(MARKER.encode())
    for start in range(0, len(text), cut):
        stream.feed(text[start : start + cut])
    assert (bytes(stream.data), stream.trailer) == (data, b"42")


def test_what_comes_after_the_marker_is_dropped() -> None:
    stream = MarkedStream(MARKER.encode())
    stream.feed(base64.encodebytes(b"kept" + MARKER.encode() + b"0\n").decode())
    stream.feed(base64.encodebytes(b"from a background child").decode())
    assert bytes(stream.data) == b"kept"


def test_noise_is_refused() -> None:
    with pytest.raises(GuestFailure, match="not base64"):
        MarkedStream(MARKER.encode()).feed("sh: out of memory\n")
    with pytest.raises(GuestFailure, match="lacks base64"):
        MarkedStream(MARKER.encode()).feed("!\n")


def test_memory_is_bounded_and_a_sink_is_not() -> None:
    piece = base64.b64encode(bytes(3 * 2**20)).decode() + "\n"
    stream = MarkedStream(MARKER.encode())
    with pytest.raises(OutputTooLarge):
        stream.feed(piece * (marked.MAX_OUTPUT_BYTES // (3 * 2**20) + 2))
    sink = io.BytesIO()
    sunk = MarkedStream(MARKER.encode(), sink)
    sunk.feed(piece)
    sunk.feed(base64.b64encode(MARKER.encode() + b"0\n").decode() + "\n")
    assert sunk.done
    assert sink.getvalue() == bytes(3 * 2**20)
    assert not sunk.data


def shell(script: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["/bin/sh", "-c", script, "sh", *arguments], input=stdin, capture_output=True, check=False)


def test_write_script(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"

    def write(data: bytes, *, path: Path = target, size: int | None = None, new: bool = False) -> int:
        return shell(
            files.WRITE, str(path), str(len(data) if size is None else size), str(int(new)), "word", stdin=data
        ).returncode

    assert write(b"one", new=True) == 0
    assert target.read_bytes() == b"one"
    assert target.stat().st_mode & 0o777 == 0o644
    assert write(b"two", new=True) == files.EXISTS
    target.chmod(0o750)
    assert write(b"three\0\xff") == 0
    assert target.read_bytes() == b"three\0\xff"
    assert target.stat().st_mode & 0o777 == 0o750
    assert write(b"short", size=99) == files.SHORT
    assert target.read_bytes() == b"three\0\xff"
    assert write(b"x", path=tmp_path / "deep") == files.NOT_A_FILE
    link = tmp_path / "link"
    link.symlink_to(target)
    assert write(b"through") == 0
    assert write(b"through the link", path=link) == 0
    assert link.is_symlink()
    assert target.read_bytes() == b"through the link"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    assert write(b"x", path=dangling, new=True) == files.EXISTS
    assert write(b"short", path=tmp_path / "new", size=99, new=True) == files.SHORT
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dangling", "deep", "file", "link"]


@pytest.mark.parametrize("new", [True, False])
def test_write_in_parts(tmp_path: Path, new: bool) -> None:
    target, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(target)
    if not new:
        target.write_bytes(b"before")
        target.chmod(0o640)
    arguments = (str(target if new else link), "6", str(int(new)), "word")
    begun = {"file": b"" if new else b"before", "link": b"" if new else b"before"}

    def held() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    for script, stdin, beside in (
        (files.WRITE_FIRST, b"one", b"one"),
        (files.WRITE_NEXT, b"two", b"onetwo"),
    ):
        assert shell(script, *arguments, stdin=stdin).returncode == 0
        assert held() == begun | {".cedarbox.word": beside}
    assert shell(files.WRITE_LAST, *arguments).returncode == 0
    assert held() == {"file": b"onetwo", "link": b"onetwo"}
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == (0o644 if new else 0o640)
    # What is whole is not undone, and what was never begun is not gone on with.
    assert shell(files.WRITE_UNDONE, *arguments).returncode == 0
    assert shell(files.WRITE_NEXT, *arguments, stdin=b"more").returncode == 1
    assert shell(files.WRITE_LAST, str(target), "6", "0", "word").returncode != 0
    assert held() == {"file": b"onetwo", "link": b"onetwo"}


@pytest.mark.parametrize("new", [True, False])
def test_a_write_that_was_cut_off_is_undone(tmp_path: Path, new: bool) -> None:
    target = tmp_path / "file"
    if not new:
        target.write_bytes(b"before")
    arguments = (str(target), "6", str(int(new)), "word")
    assert shell(files.WRITE_FIRST, *arguments, stdin=b"one").returncode == 0
    assert shell(files.WRITE_UNDONE, *arguments).returncode == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({} if new else {"file": b"before"})
    # A file that is somebody else's is left alone, empty or not.
    target.write_bytes(b"")
    assert shell(files.WRITE_FIRST, str(target), "6", "1", "word", stdin=b"one").returncode == files.EXISTS
    assert shell(files.WRITE_UNDONE, str(target), "6", "1", "word").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_read_script(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0\xffabc")
    (tmp_path / "link").symlink_to("file")
    assert shell(files.READ, str(tmp_path / "link"), "0").stdout == b"\0\xffabc"
    large = shell(files.READ, str(tmp_path / "link"), "4")
    assert (large.returncode, large.stdout) == (files.TOO_LARGE, str(tmp_path / "file").encode() + b"\n")
    assert shell(files.READ, str(tmp_path / "missing"), "4").returncode == 1
    assert shell(files.READ, str(tmp_path), "4").returncode == files.NOT_A_FILE


def test_excludes_are_anchored_at_the_root() -> None:
    assert archive.excludes("workspace", [Path("b"), Path("a/b"), Path()]) == [
        "--exclude=workspace/a/b",
        "--exclude=workspace/b",
    ]
