"""Aioli (Chen et al. 2024, arXiv:2411.05735) and what this project adds to it."""

from titan_aioli.methods.aioli.aioli import Aioli, UpdateRule

__all__ = ["Aioli", "UpdateRule"]
