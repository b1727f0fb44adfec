"""Mixing laws: the loss of every group as a function of the proportions, fitted to a table of runs.

A *static* law speaks of whole runs (final loss against the mixture of the run), a *dynamic* one of a
phase (loss drop against its mixture). Both take two shapes: linear, and log-linear with
an irreducible loss. Plain numpy and scipy; a fit takes milliseconds.
"""

from titan_aioli.laws.cover import dirichlet_cover, merge_closest
from titan_aioli.laws.fidelity import Similarity, mse, r2, similarity
from titan_aioli.laws.linear import LinearLaw, fit_linear, fit_scale
from titan_aioli.laws.log_linear import LogLinearLaw, fit_log_linear, offset_by_correlation
from titan_aioli.laws.olmix import fit_olmix
from titan_aioli.laws.optimum import optimal_mixture, repetition_caps
from titan_aioli.laws.repetition import RepeatedLaw, effective_shares

__all__ = [
    "LinearLaw",
    "LogLinearLaw",
    "RepeatedLaw",
    "Similarity",
    "dirichlet_cover",
    "effective_shares",
    "fit_linear",
    "fit_log_linear",
    "fit_olmix",
    "fit_scale",
    "merge_closest",
    "mse",
    "offset_by_correlation",
    "optimal_mixture",
    "r2",
    "repetition_caps",
    "similarity",
]
