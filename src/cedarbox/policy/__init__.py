"""Decides. Pure: no clock, no network, and no disk but for loading a bundle."""

from cedarbox.policy.approval import Approval
from cedarbox.policy.bundle import Policy, PolicyBundle
from cedarbox.policy.engine import Decision, PolicyEngine
from cedarbox.policy.schema import SCHEMA_VERSION, schema_text

__all__ = ["SCHEMA_VERSION", "Approval", "Decision", "Policy", "PolicyBundle", "PolicyEngine", "schema_text"]
