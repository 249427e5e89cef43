"""Questions as files for any solver that reads SMT-LIB, so that an answer can be had again without cedarbox."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cedarbox.review.prove.goals import Environment, Goal, Side, goal_text
from cedarbox.review.prove.prepared import Prepared
from cedarbox.text import printable

__all__ = ["Dump", "dumped"]

Dump = Callable[[str, str], None]
"""Given the name of a file and its text. The same question has the same name and text."""

_ODD: Final = re.compile(r"[^A-Za-z0-9]+")


def dumped(
    dump: Dump,
    goal: Goal,
    environment: Environment,
    sides: Mapping[str, Side],
    asked: Sequence[Prepared],
    *,
    solved: bool,
) -> None:
    """Write what is asked.

    Args:
        dump: Writes a file.
        goal: The goal.
        environment: The kind of request.
        sides: The policies, by name.
        asked: One formula for each class of principals; none when the goal is false whatever the policies say.
        solved: A solver is needed for them.
    """
    formulas = [(each.principal, each.script.text, each.skipped) for each in asked] or [(None, "(assert false)", "")]
    for principal, script, skipped in formulas:
        said = [
            "Is there a request for which this is so?",
            f"  {goal_text(goal)}",
            f"action: {environment.action}; resource: {environment.resource_type}; "
            f"principal: {environment.principal_type}" + ("" if principal is None else f"::{json.dumps(principal)}"),
            *(_side(name, side) for name, side in sides.items()),
            "unsat: there is none, which is proved. sat: there may be one, which counts when Cedar decides it so.",
        ]
        if skipped:
            said.append(f"not encoded, so that sat proves nothing: {skipped}")
        if not solved:
            said.append("cedarbox asked no solver this: what it knows of the formula is enough for unsat.")
        # Ids come from files: nothing in one may end the comment.
        head = "".join(f"; {printable(line)}\n" for line in said)
        text = f"{head}(set-logic ALL)\n{script}\n(check-sat)\n"
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        resource = environment.resource_type.rsplit("::", 1)[-1]
        name = "-".join(filter(None, (_ODD.sub("-", part)[:60] for part in (environment.action_id, resource))))
        dump(f"{name}-{digest}.smt2", text)


def _side(name: str, side: Side) -> str:
    digest = hashlib.sha256(json.dumps(dict(side.slot_policies), sort_keys=True).encode()).hexdigest()
    kind = "an error denies" if side.deny_on_error else "plain Cedar"
    return f"{name}: {len(side.slot_policies)} policies, sha256 of their JSON form {digest}; {kind}"
