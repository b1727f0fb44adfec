"""A small decoder-only transformer, so that the plain loop has something to train."""

import torch
import torch.nn.functional as F
from torch import nn


class Transformer(nn.Module):
    """Pre-norm with learned positions: ids [B, S] to logits [B, S, V]."""

    def __init__(self, vocab_size: int, seq_len: int, dim: int = 128, num_layers: int = 2, heads: int = 4):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(seq_len, dim)
        self.blocks = nn.ModuleList([Block(dim, heads) for _ in range(num_layers)])
        self.norm = nn.RMSNorm(dim)
        self.output = nn.Linear(dim, vocab_size, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids_BS: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids_BS.shape[1], device=ids_BS.device)
        x = self.tokens(ids_BS) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


class Block(nn.Module):
    """Causal attention and a feed-forward layer."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.ffn_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.ffn = nn.Sequential(
            nn.Linear(dim, 4 * dim, bias=False), nn.SiLU(), nn.Linear(4 * dim, dim, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.ffn(self.ffn_norm(x))
