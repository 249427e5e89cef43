"""Reviews. What a policy bundle says about itself, what a change of it permits, and what holds of it.

On top of the house: it uses the policies and the errors, and nothing that enforces, records or runs.
"""

__all__: list[str] = []
