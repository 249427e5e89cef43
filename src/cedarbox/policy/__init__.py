"""Decides. Pure: no clock, no network, and no disk but for loading a bundle."""

from cedarbox.policy.approval import Approval
from cedarbox.policy.bundle import SCHEMA_VERSION, Policy, PolicyBundle, schema_text
from cedarbox.policy.engine import Decision, PolicyEngine

__all__ = ["SCHEMA_VERSION", "Approval", "Decision", "Policy", "PolicyBundle", "PolicyEngine", "schema_text"]
