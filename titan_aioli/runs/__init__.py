"""The folder of a run: what is written while it trains, and how it is read back."""
