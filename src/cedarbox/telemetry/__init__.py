"""SHOWS: sealed tracing of the Agents SDK, spans of this process, and what must be hidden in them."""

__all__: list[str] = []
