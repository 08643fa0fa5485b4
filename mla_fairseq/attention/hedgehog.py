"""Hedgehog: feature maps that are trained, such as to mimic softmax attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mla_fairseq.attention.linear import LinearAttention
from mla_fairseq.attention.precision import linear
from mla_fairseq.attention.registry import register_attention


class HedgehogFeatures(nn.Module):
    """phi(x) = softmax([W x + b, -W x - b]), F = 2 d (Zhang et al. 2024, arXiv 2402.04347, section 4.2).

    One map for queries and one for keys, shared by the heads (the paper has one for each head), that start as the
    identity. Exponentials make weights as spiky as softmax's; the negative half keeps what ReLU throws away.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_map = _identity(head_dim)
        self.key_map = _identity(head_dim)

    def query(self, x: Tensor) -> Tensor:
        return _both_ways(linear(self.query_map, x))

    def key(self, x: Tensor) -> Tensor:
        return _both_ways(linear(self.key_map, x))


def _identity(size: int) -> nn.Linear:
    layer = nn.Linear(size, size)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _both_ways(x: Tensor) -> Tensor:
    return torch.cat((x, -x), dim=-1).softmax(-1)


@register_attention("hedgehog")
def hedgehog(head_dim: int, options: None) -> nn.Module:
    """Trained exponential features without positions (arXiv 2402.04347)."""
    return LinearAttention(HedgehogFeatures(head_dim))
