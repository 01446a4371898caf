"""`lwd plan`: what an experiment will take, before the first step."""

from lwd.stages.plan.run import Plan, machine_of, plan
from lwd.stages.plan.table import on_screen

__all__ = ["Plan", "machine_of", "on_screen", "plan"]
