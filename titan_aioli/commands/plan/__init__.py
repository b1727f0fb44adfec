"""`titan-aioli plan`."""

from titan_aioli.commands.plan.command import plan

__all__ = ["plan"]
