"""That nothing of a sandbox session goes around the gate.

At import this module checks that every coroutine of the SDK's session class is either gated or on the pass list, so an
SDK that grows a new way to touch the guest is refused instead of let through.
"""

from __future__ import annotations

import inspect

from agents.sandbox.session.sandbox_session import SandboxSession

from cedarbox.errors import CedarboxError

__all__ = ["GATED", "PASSED", "check_coverage"]

GATED = frozenset(
    {
        "_apply_entry_batch",
        "_apply_manifest",
        "_read",
        "_validate_manifest_application",
        "_write_new_file",
        "exec",
        "hydrate_workspace",
        "ls",
        "mkdir",
        "mv",
        "persist_workspace",
        "provision_manifest_accounts",
        "pty_exec_start",
        "pty_write_stdin",
        "read_bounded",
        "resolve_exposed_port",
        "rm",
        "same_file",
        "shutdown",
        "start",
        "stop",
        "write",
    }
)
"""Coroutines that :class:`cedarbox.guard.session.GuardedSession` overrides with a gated version."""

PASSED = frozenset(
    {
        # Composed of gated coroutines of the same object.
        "__aenter__",
        "__aexit__",
        "_aclose_impl",
        "_extract_tar_archive",
        "_extract_zip_archive",
        "aclose",
        "apply_manifest",
        "apply_patch",
        "extract",
        "read",
        # Recorded by what they belong to; they touch no content of the guest.
        "_aclose_dependencies",
        "_annotate",
        "_emit_finish_event",
        "_emit_start_event",
        "_run_pre_stop_hooks",
        "_validate_path_access",
        "pty_terminate_all",
        "run_pre_stop_hooks",
        "running",
        # Never called on a wrapper: the SDK calls them on the session inside it.
        "_after_shutdown",
        "_after_start",
        "_after_start_failed",
        "_after_stop",
        "_before_shutdown",
        "_before_stop",
        "_can_reuse_restorable_snapshot_workspace",
        "_can_skip_snapshot_restore_on_resume",
        "_check_mkdir_with_exec",
        "_check_read_with_exec",
        "_check_rm_with_exec",
        "_check_write_with_exec",
        "_clear_workspace_dir_on_resume_pruned",
        "_clear_workspace_root_on_resume",
        "_compute_and_cache_snapshot_fingerprint",
        "_delete_cached_snapshot_fingerprint_best_effort",
        "_ensure_backend_started",
        "_ensure_runtime_helper_installed",
        "_ensure_runtime_helpers",
        "_exec_checked_nonzero",
        "_exec_internal",
        "_live_workspace_matches_snapshot_on_resume",
        "_persist_snapshot",
        "_prepare_backend_workspace",
        "_probe_workspace_root_for_preserved_resume",
        "_raise_read_error_from_exec",
        "_read_bounded",
        "_read_cached_snapshot_fingerprint",
        "_reapply_ephemeral_manifest_on_resume",
        "_remove_workspace_entry_on_resume",
        "_resolve_exposed_port",
        "_restore_snapshot_and_reapply_ephemeral_on_resume",
        "_restore_snapshot_into_workspace_on_resume",
        "_shutdown_backend",
        "_start_workspace",
        "_terminate_ambiguous_mount_transition",
        "_validate_remote_path_access",
    }
)
"""Coroutines that are let through, each for the reason that stands above it."""


def check_coverage(session: type[SandboxSession]) -> None:
    """Refuse a session class of the SDK that has a coroutine which is neither gated nor passed, or lacks one.

    Raises:
        CedarboxError: Names what is new or gone.
    """
    found = {
        name
        for base in session.__mro__
        for name, member in vars(base).items()
        if inspect.iscoroutinefunction(inspect.unwrap(member) if callable(member) else member)
    }
    problems = [f"new: {name}" for name in sorted(found - GATED - PASSED)]
    problems += [f"gone: {name}" for name in sorted((GATED | PASSED) - found)]
    if problems:
        hint = "install openai-agents >=0.24,<0.25, the version this release was checked against"
        raise CedarboxError(f"the SDK's sandbox session has changed ({', '.join(problems)})", hint=hint)


check_coverage(SandboxSession)
