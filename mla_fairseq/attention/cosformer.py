"""cosFormer: ReLU features, re-weighted by the cosine of the distance of relative positions."""

import math

import torch
from torch import Tensor

from mla_fairseq.attention.base import Layout
from mla_fairseq.attention.linear import ReLUAttention
from mla_fairseq.attention.registry import register_attention


@register_attention("cosformer")
class CosFormer(ReLUAttention):
    """ReLU features, re-weighted by the cosine of the distance of relative positions (arXiv 2202.08791).

    psi = [cos a, sin a] with a = pi/2 min(i / L, 1), M = 2, so that psi_q . psi_k = cos(a_q - a_k): equation 10, with
    separate lengths L for queries and keys and for each sample, as in MLA (arXiv 2304.08453).
    """

    needs_lengths = True
    fixed_positions = True
    position_size = 2

    # psi is the same in every layer: the first layer computes it, the others take it from the layout
    def query_positions(self, q: Tensor, layout: Layout) -> Tensor:
        return layout.once(("cosine of queries", q.dtype), lambda: on_circle(layout.relative_queries(q.dtype)))

    def key_positions(self, k: Tensor, layout: Layout) -> Tensor:
        return layout.once(("cosine of keys", k.dtype), lambda: on_circle(layout.relative_keys(k.dtype)))


def on_circle(share: Tensor) -> Tensor:
    """Return [cos a, sin a], (.., N, 2), with a = pi/2 times relative positions (.., N)."""
    angle = share * (math.pi / 2)
    return torch.stack((angle.cos(), angle.sin()), dim=-1)
