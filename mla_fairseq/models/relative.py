"""Softmax attention with relative positions (Dai et al. 2019, arXiv 1901.02860, section 3.3) for Conformers."""

from __future__ import annotations

import math
from argparse import Namespace

import torch
from torch import Tensor, nn

from mla_fairseq.attention import Layout, Mechanism, SoftmaxAttention
from mla_fairseq.attention.base import Tensors
from mla_fairseq.attention.softmax import both, trim
from mla_fairseq.models.options import build_site, site_type


def encoder_mechanism(args: Namespace) -> Mechanism:
    """Build the mechanism of a Conformer's self-attention, with the positions of ``--pos-enc-type``.

    Raises:
        ValueError: relative positions for a linear mechanism, whose state has no place for them.
    """
    channels, heads = args.encoder_embed_dim, args.encoder_attention_heads
    if args.pos_enc_type != "rel_pos":
        return build_site(args, "encoder", channels // heads)
    if (name := site_type(args, "encoder")) != "softmax":
        raise ValueError(
            f"--pos-enc-type rel_pos needs softmax attention in the encoder, but its mechanism is {name}: use "
            "--pos-enc-type abs, or --encoder-attn-type softmax"
        )
    return RelativeSoftmax(channels // heads, heads)


class RelativeSoftmax(SoftmaxAttention):
    """Softmax self-attention whose energies depend on the distance of query and key; positions are not added to states.

    Args:
        head_dim: channels of a head (d).
        heads: number of heads (H).
    """

    def __init__(self, head_dim: int, heads: int) -> None:
        super().__init__(head_dim)
        channels = head_dim * heads
        self.linear_pos = nn.Linear(channels, channels, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, head_dim))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, head_dim))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """Return the outputs of a whole sequence."""
        return self._weights(q, k, layout, both(layout.visible(torch.bool), layout.key_mask)) @ v

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        """Return the outputs of the next T queries given as many new keys, and the state after both."""
        state = self.write(state, k, v, layout)
        visible = both(layout.visible(torch.bool, stored=state["key"].shape[-2]), state.get("mask"))
        output = self._weights(q, state["key"], layout, visible) @ state["value"]
        return output, trim(state, layout.view.reach)

    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return weights (B, H, T, S) of which the largest of a row is 1, and zero for keys that are not visible."""
        weights = self._weights(q, k, layout, both(layout.visible(torch.bool), layout.key_mask))
        return weights / weights.amax(-1, keepdim=True).clamp_min(self.eps)

    def _weights(self, q: Tensor, k: Tensor, layout: Layout, visible: Tensor | None) -> Tensor:
        """Return normalized weights (B, H, T, S) of queries that are the last T of the S keys' tokens."""
        u, v = (bias.to(q.dtype).unsqueeze(1) for bias in (self.pos_bias_u, self.pos_bias_v))  # (H, 1, d)
        table = layout.once(("distances", q.shape[1:], k.shape[-2]), lambda: self._table(q, k.shape[-2]))
        places = nn.functional.linear(table, self.linear_pos.weight.to(q.dtype)).unflatten(
            -1, (q.shape[1], q.shape[-1])
        )
        energy = (q + u) @ k.mT + by_distance((q + v) @ places.permute(1, 2, 0), k.shape[-2])
        energy = energy * q.shape[-1] ** -0.5
        if visible is None:
            return energy.softmax(-1)
        # a query that sees no key gets zeros, not NaN
        return energy.masked_fill(~visible, torch.finfo(energy.dtype).min).softmax(-1) * visible.to(energy.dtype)

    def _table(self, q: Tensor, keys: int) -> Tensor:
        """Return the sinusoids (S + T, C) of the distances S - 1 .. -T from a key to a query after it."""
        channels = self.linear_pos.in_features
        rates = torch.exp(
            torch.arange(0, channels, 2, dtype=torch.float, device=q.device) * -(math.log(10000) / channels)
        )
        distances = torch.arange(keys - 1, -q.shape[-2] - 1, -1, dtype=torch.float, device=q.device)
        angles = distances.unsqueeze(-1) * rates
        # sines and cosines take turns, as in fairseq's relative positions
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)[:, :channels].to(q.dtype)


def by_distance(energy: Tensor, keys: int) -> Tensor:
    """Return energies (.., T, S) of queries and keys from those (.., T, S + T) of queries and distances S - 1 .. -T."""
    queries, distances = energy.shape[-2:]
    # query i has key j in column T - 1 - i + j, which is T - 1 + j in rows that are shorter by one
    rows = energy.flatten(-2)[..., queries - 1 : queries * distances - 1]
    return rows.unflatten(-1, (queries, distances - 1))[..., :keys]
