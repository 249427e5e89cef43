"""The life of a sandbox: what the one story that is told of it must say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cedarbox.conformance.bench import EVERY, Bench
from cedarbox.conformance.check import Check, checks_of, equal, holds
from cedarbox.conformance.story import Story

__all__ = ["checks"]

_TREE = b"""\
every.bin regular file 644
tool regular file 750
link symbolic link 777
void directory 755
given.txt missing
"""


async def not_running_before_its_start(bench: Bench, story: Story) -> None:
    """A session does not run before it is started."""
    equal(story.of("running before start"), False, "running()")


async def running_after_its_start(bench: Bench, story: Story) -> None:
    """A started session runs."""
    equal(story.of("running after start"), True, "running()")


async def ids_differ(bench: Bench, story: Story) -> None:
    """Two sessions have two ids."""
    holds(story.of("other id") != story.of("id"), "both have one id")


async def workspaces_are_apart(bench: Bench, story: Story) -> None:
    """A file in the workspace of one sandbox is not in that of another."""
    equal(story.of("files apart").split()[0], b"1", "the exit code of looking for it")


async def disks_are_apart(bench: Bench, story: Story) -> None:
    """A file elsewhere in one sandbox is not in another."""
    equal(story.of("files apart").split()[1], b"1", "the exit code of looking for it")


async def processes_are_apart(bench: Bench, story: Story) -> None:
    """A process of one sandbox is not seen in another."""
    equal(story.of("process seen"), 0, "the number of its processes that are seen")


async def a_state_comes_back(bench: Bench, story: Story) -> None:
    """A state goes through JSON and comes back as the same state of the same type."""
    first, second = story.of("state type")
    equal(first, second, "the type")
    holds(story.of("state round trip"), "the state that came back is another one")


async def a_state_names_its_backend(bench: Bench, story: Story) -> None:
    """The type of a state is the id of the client."""
    client, state = story.of("backend ids")
    equal(state, client, "the type")


async def a_foreign_state_is_refused(bench: Bench, story: Story) -> None:
    """A state of another backend is refused."""
    holds(story.of("foreign state").startswith("refused"), "a state of another type was taken")


async def stopping_twice(bench: Bench, story: Story) -> None:
    """A session can be stopped twice."""
    holds(story.of("stopped twice"), "it cannot")


async def stopping_ends_terminals(bench: Bench, story: Story) -> None:
    """Stopping ends the terminals."""
    holds(story.of("terminal"), "the terminal did not run before")
    equal(story.of("terminals after stop"), 0, "the number of their processes that still run")


async def not_running_after_shutdown(bench: Bench, story: Story) -> None:
    """A session that was shut down does not run; shutting it down again is harmless."""
    equal(story.of("running after shutdown"), False, "running()")
    holds(story.of("shut down twice"), "it cannot be shut down twice")


async def nothing_runs_after_shutdown(bench: Bench, story: Story) -> None:
    """A command after the shutdown is refused."""
    outcome = story.of("exec after shutdown")
    holds(outcome.startswith("refused") or "b'ran" not in outcome, "a command ran after the shutdown")


async def taken_up_again(bench: Bench, story: Story) -> None:
    """A session that was shut down is taken up again from its state, with its files."""
    equal(story.of("tree after reattaching"), _TREE, "the files")


async def taken_up_with_all_of_its_disk(bench: Bench, story: Story) -> None:
    """What was written after the last stop is there when a session is taken up again."""
    equal(story.of("later after reattaching"), b"later\n", "the file")


async def not_running_after_deletion(bench: Bench, story: Story) -> None:
    """A deleted session does not run; deleting it again is harmless."""
    equal(story.of("running after delete"), False, "running()")
    holds(story.of("deleted twice"), "it cannot be deleted twice")


async def resumed_after_deletion(bench: Bench, story: Story) -> None:
    """After deletion, the workspace comes back from its snapshot, exact."""
    equal(story.of("running after resuming"), True, "running()")
    equal(story.of("content after resuming"), EVERY, "the content")
    equal(story.of("tree after resuming"), _TREE, "the files")
    equal(story.of("again after resuming"), b"again\n", "what was written last")


async def what_passes_is_made_again(bench: Bench, story: Story) -> None:
    """What the manifest calls ephemeral is made again after deletion."""
    holds(story.of("passing after resuming").startswith(b"passing"), "the file is missing")


async def the_same_session_after_deletion(bench: Bench, story: Story) -> None:
    """Id and environment of a resumed session are those of the first."""
    equal(story.of("id after resuming"), story.of("id"), "the id")
    holds(story.of("passing after resuming").endswith(b"told"), "the environment is another one")


async def forks_begin_alike(bench: Bench, story: Story) -> None:
    """Forks of one snapshot begin with its files, each with an id of its own."""
    equal(story.of("trees of forks"), [(_TREE, b"again\n")] * 2, "the files")
    equal(len(set(story.of("ids of forks"))), 3, "the number of different ids")


async def forks_go_their_own_ways(bench: Bench, story: Story) -> None:
    """What one fork writes is in no other, and not in the sandbox that it came from."""
    equal(story.of("writes of forks"), [b"again\n", b"0\n0\n", b"1\n1\n"], "what the three see")


def _asked(story: Story, check: Callable[[Bench, Story], Awaitable[None]]) -> Callable[[Bench], Awaitable[None]]:
    async def run(bench: Bench) -> None:
        await story.tell(bench)
        await check(bench, story)

    run.__name__, run.__doc__ = getattr(check, "__name__", "check"), check.__doc__
    return run


async def running_while_shared(bench: Bench) -> None:
    """The shared session runs, and did not before its start."""
    equal(await bench.session.running(), True, "running()")
    if bench.ran_before_start is not None:
        equal(bench.ran_before_start, False, "running() before the start")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area. They share one story, which is new in every call."""
    story = Story()

    def told(
        *parts: Callable[[Bench, Story], Awaitable[None]], needs: frozenset[str] = frozenset()
    ) -> tuple[Check, ...]:
        # The first check that is run waits for the whole story.
        return checks_of("life", *(_asked(story, part) for part in parts), needs=needs, limit_s=600.0)

    return (
        *checks_of("life", running_while_shared),
        *told(
            not_running_before_its_start,
            running_after_its_start,
            ids_differ,
            workspaces_are_apart,
            a_state_comes_back,
            a_state_names_its_backend,
            a_foreign_state_is_refused,
            stopping_twice,
            not_running_after_shutdown,
            nothing_runs_after_shutdown,
            taken_up_again,
            not_running_after_deletion,
            resumed_after_deletion,
            what_passes_is_made_again,
            the_same_session_after_deletion,
            forks_begin_alike,
            forks_go_their_own_ways,
        ),
        *told(disks_are_apart, processes_are_apart, needs=frozenset(("isolation",))),
        *told(stopping_ends_terminals, needs=frozenset(("pty",))),
        *told(taken_up_with_all_of_its_disk, needs=frozenset(("reattach",))),
    )
