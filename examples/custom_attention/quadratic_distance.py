"""A mechanism of one's own: attention that fades with the square of the distance.

    weight(i, j) = (ReLU(q_i) . ReLU(k_j)) (1 - (a - b)^2),    a = i / L_q,  b = j / L_k

It is linear because the distance is a product of two small vectors, so that a sum over the past carries it:

    1 - (a - b)^2 = [1 - a^2, 2a, -1] . [1, b, b^2]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mla_fairseq.attention import LinearAttention, register_attention
from mla_fairseq.attention.features import ReLUFeatures
from mla_fairseq.attention.positions import proportion


class QuadraticPositions(nn.Module):
    """psi with M = 3. Arguments as in ``mla_fairseq.attention.positions``; returns (B, 1, N, 3)."""

    size = 3

    def query(self, features: Tensor, index: Tensor, length: Tensor) -> Tensor:
        a = proportion(index.to(features.dtype), length)
        return torch.stack((1 - a * a, 2 * a, -torch.ones_like(a)), dim=-1).unsqueeze(1)

    def key(self, features: Tensor, index: Tensor, length: Tensor) -> Tensor:
        b = proportion(index.to(features.dtype), length)
        return torch.stack((torch.ones_like(b), b, b * b), dim=-1).unsqueeze(1)


@register_attention("quadratic_distance")
def quadratic_distance(head_dim: int, options: None) -> nn.Module:
    """ReLU features re-weighted by 1 - (a - b)^2."""
    return LinearAttention(ReLUFeatures(), QuadraticPositions())
