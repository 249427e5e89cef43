"""Tells everything that is wrong with policies, with the place of each."""
