"""The order of tokens for experts on CPU ranks.

torchtitan 0.2 sorts the tokens that a rank's experts get with a Triton kernel, which needs a GPU; it also has
a loop that gives the same order on a CPU, which nothing calls.
"""

from functools import partial

from torchtitan.models.moe import utils
from torchtitan.models.moe.kernels import generate_permute_indices


def use_on_cpu() -> None:
    """Let torchtitan sort the tokens with the loop."""
    utils.generate_permute_indices = partial(generate_permute_indices, use_cpu=True)
