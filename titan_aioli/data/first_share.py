"""The first share of a group's documents: what a short run reads so that it repeats them as a long one does.

A group of N_j tokens is read p_j R / N_j times in a run of R tokens. A run of R' tokens that reads only the
first N_j R' / R of them reads those as often, at every mixture: what repetition does to the loss shows in it.

Source: repetition-matched proxies, arXiv:2606.07597.
"""

from collections.abc import Sequence

import numpy as np

from titan_aioli.stores.tokens import TokenStore


def first_share(stores: Sequence[TokenStore], share: float) -> list[TokenStore]:
    """The first documents of every store, so many that their tokens come nearest to the share of them.

    Each store keeps at least one document, and they keep their sizes relative to each other. A store without
    documents is cut at a token.

    Args:
        stores: of one group.
        share: in (0, 1].
    """
    return [store.part(0, _num_kept(store, share)) for store in stores]


def _num_kept(store: TokenStore, share: float) -> int:
    """Number of documents; of tokens where the store has no documents."""
    wanted = share * store.num_tokens
    if store.document_offsets is None:
        return min(store.num_tokens, max(1, round(wanted)))
    nearest = int(np.argmin(np.abs(store.document_offsets - wanted)))
    return min(len(store.document_offsets) - 1, max(1, nearest))
