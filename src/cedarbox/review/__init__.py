"""Reviews. What a policy bundle says about itself: test cases beside it, how much they cover, what they would miss.

On top of the house: it uses the policies and the errors, and nothing that enforces, records or runs.
"""

from cedarbox.review.cases import Case, Suite
from cedarbox.review.coverage import PolicyCoverage, measure
from cedarbox.review.mutants import Mutant, mutants_of
from cedarbox.review.run import Outcome, run_suite, survivors

__all__ = ["Case", "Mutant", "Outcome", "PolicyCoverage", "Suite", "measure", "mutants_of", "run_suite", "survivors"]
