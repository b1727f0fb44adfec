"""Aioli with evidence: what the run has shown so far, how sure it is, and a step that fits both."""

from titan_aioli.methods.aioli_bayes.method import AioliBayes

__all__ = ["AioliBayes"]
