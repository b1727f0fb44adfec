"""titan_aioli: the mixture of data groups, changed while torchtitan trains.

Start with `titan_aioli.methods` (what decides), `titan_aioli.data` (what is read) and
`titan_aioli.train` (what joins the two inside torchtitan's training loop).
"""

__version__ = "0.1.0"
