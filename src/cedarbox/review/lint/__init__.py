"""Lint: what a reviewer of sandbox policies would ask about, found before they have to."""
