"""Undoes what cedarbox puts in force for a whole process."""

from tests.unit.conftest import _alone  # noqa: F401
