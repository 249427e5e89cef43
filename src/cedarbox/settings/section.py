"""What every section of the settings is."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """A section: unknown keys are errors, and nothing changes once it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
