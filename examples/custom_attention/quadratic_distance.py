"""A mechanism of your own: weight(i, j) = (ReLU(q_i) . ReLU(k_j)) (1 - (a - b)^2), a = i / L_q, b = j / L_k.

It is linear because 1 - (a - b)^2 = [1 - a^2, 2a, -1] . [1, b, b^2]: a product of a query's and a key's vector.
"""

import torch
from torch import Tensor

from mla_fairseq.attention import Layout, ReLUAttention, register_attention


@register_attention("quadratic_distance")
class QuadraticDistance(ReLUAttention):
    """ReLU features, re-weighted by the squared distance of relative positions; psi has M = 3 numbers."""

    needs_lengths = True  # i / L needs L before the first key
    fixed_positions = True  # psi depends only on positions and lengths, so that layers can share psi_q . psi_k
    position_size = 3

    def query_positions(self, q: Tensor, layout: Layout) -> Tensor:
        a = layout.relative_queries(q.dtype)  # (B or 1, 1, T)
        return torch.stack((1 - a * a, 2 * a, -torch.ones_like(a)), dim=-1)

    def key_positions(self, k: Tensor, layout: Layout) -> Tensor:
        b = layout.relative_keys(k.dtype)  # (B or 1, 1, S)
        return torch.stack((torch.ones_like(b), b, b * b), dim=-1)
