"""Rows: which sequence of which group a step trains on, and how it is read."""
