"""Proofs about policies: whether there is any request for which something is so, with one if there is.

What is asked is a formula over the decisions of policies (see :mod:`cedarbox.review.prove.goals`). It is encoded for a
solver, which searches; what it finds is replayed through Cedar before it is told. An answer is one of three: found,
none, or undecided with the reason, and *undecided* never means *safe*.
"""

from cedarbox.review.prove.answers import Answer, Replay, Verdict, Witness
from cedarbox.review.prove.goals import (
    Allows,
    And,
    Environment,
    Fails,
    Goal,
    Holds,
    Matches,
    Not,
    Or,
    PrincipalIs,
    Query,
    Side,
    environments,
)
from cedarbox.review.prove.prover import Prover
from cedarbox.review.prove.searching import Progress, Searcher, Unavailable, answers_of
from cedarbox.review.prove.solvers import available

__all__ = [
    "Allows",
    "And",
    "Answer",
    "Environment",
    "Fails",
    "Goal",
    "Holds",
    "Matches",
    "Not",
    "Or",
    "PrincipalIs",
    "Progress",
    "Prover",
    "Query",
    "Replay",
    "Searcher",
    "Side",
    "Unavailable",
    "Verdict",
    "Witness",
    "answers_of",
    "available",
    "environments",
]
