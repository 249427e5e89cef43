"""The main job, end to end on this machine: an agent that works, and then tries to do wrong."""

from cedarbox.demo.run import DemoOptions, DemoResult, run_demo

__all__ = ["DemoOptions", "DemoResult", "run_demo"]
