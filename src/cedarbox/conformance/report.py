"""What a run of the checks found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Outcome", "Report", "Result"]


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    KNOWN = "known failure"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Result:
    """One check and how it ended.

    Attributes:
        name: The check.
        area: Its area.
        says: What should hold.
        outcome: How it ended.
        reason: Why it did not pass, in one line; empty when it did.
        seconds: How long it took, in seconds.
    """

    name: str
    area: str
    says: str
    outcome: Outcome
    reason: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The results of one backend.

    Attributes:
        backend: Its name.
        results: One a check, in the order in which they were run.
    """

    backend: str
    results: Sequence[Result]

    @property
    def counts(self) -> Counter[Outcome]:
        """How many checks ended how."""
        return Counter(result.outcome for result in self.results)

    @property
    def good(self) -> bool:
        """Whether some check passed and none failed that is not known to."""
        return self.counts[Outcome.PASSED] > 0 and not self.counts[Outcome.FAILED]

    def of(self, outcome: Outcome) -> list[Result]:
        """Return the results with one outcome."""
        return [result for result in self.results if result.outcome is outcome]

    def as_json(self) -> dict[str, object]:
        """Return the report as a JSON document."""
        return {
            "backend": self.backend,
            "counts": {outcome.value: self.counts[outcome] for outcome in Outcome},
            "good": self.good,
            "results": [
                {
                    "name": result.name,
                    "area": result.area,
                    "says": result.says,
                    "outcome": result.outcome.value,
                    "reason": result.reason,
                    "seconds": round(result.seconds, 3),
                }
                for result in self.results
            ],
        }
