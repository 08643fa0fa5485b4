"""Attention sites as functions of flat tensors: fused projections around the methods of any mechanism.

Tokens are rows: ``x`` is (N, C), the next N tokens of one stream, or one token of each of N hypotheses. States are
those of the mechanism, (B, ..).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, Causal, Layout, Mechanism
from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.softmax import BufferedSoftmax, static
from mla_fairseq.models.layers import DecoderLayer, EncoderLayer


def fuse(*layers: nn.Linear) -> nn.Linear:
    """Return one layer that gives the outputs of several layers of the same input, side by side."""
    fused = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))
    fused.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    fused.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), requires_grad=False)
    return fused


def fresh(mechanism: Mechanism, attention: AttentionHeads, streams: int) -> Tensors:
    """Return the state of fresh streams: zeros of the shapes that the mechanism's state has."""
    weight, ones = attention.q_proj.weight, torch.ones(1, dtype=torch.long)
    if isinstance(mechanism, BufferedSoftmax):
        return mechanism.fresh(weight, streams, attention.num_heads)
    k = weight.new_zeros(streams, attention.num_heads, 1, attention.head_dim)
    layout = Layout.at(Causal(), 0, 1, query_length=ones, key_length=ones)
    with torch.no_grad():
        state = mechanism.write({}, k, k, layout)
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


class Heads(nn.Module):
    """Rows of tokens as heads, and back."""

    def __init__(self, attention: AttentionHeads) -> None:
        super().__init__()
        self.heads, self.dim = attention.num_heads, attention.head_dim
        self.out = attention.out_proj

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return ``parts`` tensors (1, H, N, D) of the next tokens of a stream, (N, parts H D)."""
        return x.reshape(1, -1, parts * self.heads, self.dim).transpose(1, 2).split(self.heads, dim=1)

    def split_hypotheses(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return ``parts`` tensors (B, H, 1, D) of one token of each hypothesis, (B, parts H D)."""
        return x.reshape(-1, parts * self.heads, 1, self.dim).split(self.heads, dim=1)

    def join(self, heads: Tensor) -> Tensor:
        """Return rows (N, C) of outputs (1, H, N, D) or (B, H, 1, D)."""
        return self.out(heads.transpose(1, 2).reshape(-1, self.heads * self.dim))


class Site(Heads):
    """Attention with the methods of a mechanism.

    Args:
        attention: the module of the model.
        capacity: keys that softmax attention sees besides new ones.
        new: keys of a call.
        streams: streams or hypotheses (B).

    Attributes:
        fresh: the state of fresh streams.
        rings: names of the state of which methods return only new rows.
    """

    def __init__(self, attention: AttentionHeads, capacity: int, new: int, streams: int = 1) -> None:
        super().__init__(attention)
        self.mechanism = static(attention.mechanism, self.dim, capacity, new)
        self.fresh = fresh(self.mechanism, attention, streams)
        self.rings = tuple(self.fresh) if isinstance(self.mechanism, BufferedSoftmax) else ()


class SelfSite(Site):
    """Self-attention; arguments as in ``Site``. With ``hypotheses``, rows are one token of each stream."""

    def __init__(
        self, attention: AttentionHeads, capacity: int, new: int = 1, streams: int = 1, hypotheses: bool = False
    ) -> None:
        super().__init__(attention, capacity, new, streams)
        self.hypotheses = hypotheses
        self.qkv = fuse(attention.q_proj, attention.k_proj, attention.v_proj)

    def forward(self, x: Tensor, state: Tensors, layout: Layout) -> tuple[Tensor, Tensors]:
        """Return the outputs (N, C) of the next tokens (N, C), and the next state."""
        split = self.split_hypotheses if self.hypotheses else self.split
        q, k, v = split(self.qkv(x), 3)
        output, state = self.mechanism.advance(state, q, k, v, layout)
        return self.join(output), state


def attend_self(
    layer: EncoderLayer | DecoderLayer, site: SelfSite, x: Tensor, state: Tensors, layout: Layout
) -> tuple[Tensor, Tensors]:
    """Return rows (N, C) after the self-attention of a layer, with its norm and residual, and the next state."""
    y, state = site(layer.block_input(x, layer.self_attn_layer_norm), state, layout)
    return layer.block_output(y, x, layer.self_attn_layer_norm), state


class CrossSite(Site):
    """Cross-attention: ``write`` adds source states, and each hypothesis ``read``s them; arguments as in ``Site``."""

    def __init__(self, attention: AttentionHeads, capacity: int, new: int) -> None:
        super().__init__(attention, capacity, new)
        self.q, self.kv = attention.q_proj, fuse(attention.k_proj, attention.v_proj)

    def write(self, source: Tensor, state: Tensors, layout: Layout) -> Tensors:
        """Return the state after source states (S, C)."""
        k, v = self.split(self.kv(source), 2)
        return self.mechanism.write(state, k, v, layout)

    def read(self, x: Tensor, state: Tensors, layout: Layout) -> Tensor:
        """Return the outputs (B, C) of one token (B, C) of each hypothesis."""
        (q,) = self.split_hypotheses(self.q(x), 1)
        return self.join(self.mechanism.read(state, q, layout))
