"""The checks of the conformance kit that are run in the emulated machine: quick ones, some of every area.

There a command takes a second, and a file of a guarded sandbox ten; natively all checks are run.
"""

from __future__ import annotations

__all__ = ["GUARDED", "PLAIN"]

_BOTH = (
    "exec.arguments-are-exact",
    "exec.standard-input-is-empty",
    "exec.two-streams",
    "exec.every-byte-of-output",
    "exec.every-byte-of-error",
    "exec.exit-codes",
    "exec.exit-code-without-a-shell",
    "exec.a-missing-program",
    "exec.a-file-that-is-no-program",
    "exec.environment-of-the-manifest",
    "exec.environment-of-the-host",
    "exec.a-long-argument",
    "exec.a-zero-byte-in-an-argument",
    "ends.a-limit-that-is-not-reached",
    "pty.said-to-be-there",
    "pty.a-short-command",
    "pty.an-unknown-id",
    "pty.a-real-terminal",
    "files.every-byte",
    "manifest.modes-of-the-manifest",
    "users.who-runs-commands",
    "users.an-unknown-user",
    "ports.a-port-that-was-not-declared",
    "apart",
    "life.running-while-shared",
)

PLAIN: tuple[str, ...] = (
    *_BOTH,
    "exec.a-shell-by-default",
    "exec.several-arguments-for-the-shell",
    "exec.another-shell",
    "exec.no-output",
    "exec.a-missing-program-in-a-shell",
    "exec.starts-in-the-workspace",
    "exec.they-really-run-at-once",
    "exec.much-on-both-streams",
    "exec.wide-characters-are-not-split",
    "exec.usable-after-a-failure",
    "pty.an-interrupt",
    "pty.of-another-user",
    "files.a-part-of-nothing",
    "names.listing",
    "patch.creating-what-exists",
    "escape.reading-below-a-link",
    "escape.new-parents-below-a-link",
    "archive.filling-upwards",
    "manifest.odd-names-of-the-manifest",
    "manifest.copies-of-host-files",
)

GUARDED: tuple[str, ...] = (
    *_BOTH,
    "files.text-is-no-payload",
    "files.a-line-feed-in-a-name",
    "names.listing-of-nothing",
    "names.listing-of-what-is-missing",
    "patch.creating",
    "escape.reading-upwards",
    "escape.reading-through-a-link",
    "archive.filling-with-what-is-no-archive",
)
