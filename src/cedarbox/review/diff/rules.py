"""The rules of ``policy diff``."""

from __future__ import annotations

from typing import Final

from cedarbox.review.finding import Rule

__all__ = ["ACCEPTANCE", "METADATA", "NARROWS", "RULES", "UNDECIDED", "WEAKENS", "WIDENS"]

_ACCEPT: Final = """
Look at the request first: it was replayed through Cedar on both sides, so it is real. If it is not meant, change the
policy until the finding is gone. If it is, someone who may answer for it accepts exactly this widening:

    cedarbox policy accept main --bundle policies/site --widening ID --key acceptor.key \\
        --reason "the build needs the new mirror" --expires 90d --to accepted.toml

and the check is told whose acceptance counts: `cedarbox policy diff main --accepted accepted.toml --acceptor
origin/main:keys/acceptor.pub`. Take the public key from a place that the change cannot reach: from the base, as here,
or from a secret of the pipeline.
"""

WIDENS: Final = Rule(
    "D100",
    "change-widens",
    "error",
    "A request goes through that did not before, or goes through with less of an approval",
    "Something is permitted that was not: a permit is new or wider, a forbid is gone or narrower, an agent was put "
    "into a group, an approval was dropped, or `bundle.toml` or `cedarbox.toml` says so.\n" + _ACCEPT,
)
NARROWS: Final = Rule(
    "D101",
    "change-narrows",
    "note",
    "A request that went through is denied now, or needs more of an approval",
    "Nothing to do if it is meant. The request is one that went through; look whether an agent still needs it.",
)
UNDECIDED: Final = Rule(
    "D102",
    "change-not-decided",
    "warning",
    "It could not be proved what the change does",
    "The old version cannot be loaded, the time limit was reached, or a policy uses something that the prover does "
    "not know. Nothing is safe that is not proved: exit code 3. Give it more time with `--timeout`, install the "
    "prover with `pip install 'cedarbox[prove]'`, or write the policy in simpler words.",
)
ACCEPTANCE: Final = Rule(
    "D103",
    "acceptance-not-used",
    "warning",
    "An entry of the acceptances accepts nothing",
    "It expired, nobody signed it whose acceptance counts, it was changed after it was signed, or it is about another "
    "change. Remove it, or make a new one with `cedarbox policy accept`.",
)
METADATA: Final = Rule(
    "D104",
    "metadata-changed",
    "warning",
    "bundle.toml or cedarbox.toml changed in a way that no proof covers",
    "Name and revision of a bundle decide whether a host takes it for newer than what it has: see the state file in "
    "the settings. Raise the revision with each change, and keep the name. The settings say which images, keys, limits "
    "and places a host takes; read each line.",
)
WEAKENS: Final = Rule(
    "D105",
    "change-weakens-review",
    "warning",
    "The change makes the review say less than before",
    "A rule of the linter is switched off or milder, something is suppressed or in the baseline that was not, or a "
    "test case or a property is gone. A change that needs this to look good is one to look at twice: ask why, and "
    "have it made on its own, before the policies that it is for. It fails nothing by itself; `policy review "
    "--fail-level warning` makes it do so.",
)

RULES: Final = (WIDENS, NARROWS, UNDECIDED, ACCEPTANCE, METADATA, WEAKENS)
"""All of them."""
