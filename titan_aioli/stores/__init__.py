"""Tokens on disk: every format that is read, and the one that is written. No torch."""
