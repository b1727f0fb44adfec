"""Positions of tokens, by which torchtitan 0.3 rotates embeddings and finds the documents of a row."""

import torch


def positions_of(inputs_BS: torch.Tensor, end_of_document: int | None) -> torch.Tensor:
    """The position of each token in its row, or in its document: [B, S] int64, without a host sync.

    Args:
        inputs_BS: token ids.
        end_of_document: id of the last token of a document; the next token is at position 0. None: rows are
            not cut, and a token sees all earlier ones of its row.
    """
    places_BS = torch.arange(inputs_BS.shape[1], device=inputs_BS.device).expand_as(inputs_BS)
    if end_of_document is None:
        return places_BS.contiguous()
    is_first_BS = torch.zeros_like(inputs_BS, dtype=torch.bool)
    is_first_BS[:, 1:] = inputs_BS[:, :-1] == end_of_document
    first_places_BS = torch.where(is_first_BS, places_BS, 0).cummax(dim=1).values
    return places_BS - first_places_BS
