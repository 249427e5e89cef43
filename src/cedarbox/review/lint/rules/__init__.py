"""The rules, by subject; :mod:`cedarbox.review.lint.rulebook` has them all."""

__all__: list[str] = []
