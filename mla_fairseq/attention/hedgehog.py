"""Hedgehog: feature maps that are trained, for instance to mimic softmax attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mla_fairseq.attention.linear import LinearAttention
from mla_fairseq.attention.numerics import linear
from mla_fairseq.attention.registry import register_attention


@register_attention("hedgehog")
class Hedgehog(LinearAttention):
    """Trained exponential features without positions (Hedgehog, arXiv 2402.04347).

    phi(x) = softmax([W x + b, -W x - b]), F = 2 d (section 4.2).

    One map for queries and one for keys, shared by the heads (the paper has one for each head), that start as the
    identity. Exponentials make weights as spiky as softmax's; the negative half keeps what ReLU drops.
    """

    def __init__(self, head_dim: int, options: Any = None) -> None:
        super().__init__(head_dim)
        self.query_map = _identity(head_dim)
        self.key_map = _identity(head_dim)

    def query_features(self, q: Tensor) -> Tensor:
        return _both_signs(linear(self.query_map, q))

    def key_features(self, k: Tensor) -> Tensor:
        return _both_signs(linear(self.key_map, k))


def _identity(size: int) -> nn.Linear:
    layer = nn.Linear(size, size)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _both_signs(x: Tensor) -> Tensor:
    return torch.cat((x, -x), dim=-1).softmax(-1)
