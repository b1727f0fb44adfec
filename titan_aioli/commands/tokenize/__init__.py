"""`titan-aioli tokenize`."""

from titan_aioli.commands.tokenize.command import tokenize

__all__ = ["tokenize"]
