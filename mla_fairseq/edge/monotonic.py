"""Monotonic attention with static shapes: all source states of a speech have a slot, and each head a position.

The model's own decoding keeps, for some mechanisms, what each head has read as a state of constant size, and drops
what all heads have passed. Here the attention is computed from the stored keys, which gives the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from mla_fairseq.attention import Full, Layout, MonotonicMultiheadAttention, positions
from mla_fairseq.attention.base import Tensors
from mla_fairseq.attention.monotonic import steps_of
from mla_fairseq.edge.attention import Heads, fuse


class Reading(NamedTuple):
    """What the heads of a layer did for one token of each hypothesis.

    Attributes:
        output: (B, C).
        held: where the heads are now.
        seen: (B,), how many source states they have read.
        waiting: (B,), which hypotheses need more of them.
    """

    output: Tensor
    held: Tensors
    seen: Tensor
    waiting: Tensor


class MonotonicSite(Heads):
    """Monotonic cross-attention: ``write`` adds source states, ``advance`` tries the next token of each hypothesis.

    The state of ``write`` has a slot for each source state: ``key`` and ``value`` (1, H, slots, d); and one for each
    pre-decision step: ``decide`` (1, H, steps, d), the sum of its keys, or the last of them.

    Args:
        attention: the module of the model.
        capacity: source states of the longest speech.
        new: source states of a call.

    Attributes:
        fresh: the state of a source that has not begun.
        rings: names of the state of which ``write`` returns only new rows.
    """

    rings = ("key", "value")

    def __init__(self, attention: MonotonicMultiheadAttention, capacity: int, new: int) -> None:
        super().__init__(attention)
        self.attention, self.rule, self.mechanism = attention, attention.monotonic, attention.mechanism
        self.slots = capacity + new  # rows of a call that do not count have slots too
        self.steps = -(-self.slots // self.rule.ratio)
        self.q = fuse(attention.q_proj_mono, attention.q_proj)
        self.kv = fuse(attention.k_proj_mono, attention.k_proj, attention.v_proj)
        empty = attention.q_proj.weight.new_zeros(1, self.heads, self.slots, self.dim)
        self.fresh: Tensors = {"decide": empty[:, :, : self.steps].clone(), "key": empty, "value": empty.clone()}

    def start(self, streams: int) -> Tensors:
        """Return the state of hypotheses that have not begun, ``step`` (B, H): the pre-decision step of each head."""
        return {"step": torch.zeros(streams, self.heads, dtype=torch.long)}

    def write(self, source: Tensor, state: Tensors, layout: Layout) -> Tensors:
        """Return the state after source states (S, C); those that ``layout`` masks, the last ones, do not count.

        Of ``key`` and ``value``, return the new rows.
        """
        decide, k, v = self.split(self.kv(source), 3)
        places = layout.keys[0]
        assert layout.key_mask is not None
        in_step = (places // self.rule.ratio == torch.arange(self.steps).unsqueeze(1)) & layout.key_mask  # (steps, S)
        sums = state["decide"]
        if self.rule.pooling == "last":
            count = in_step.long()
            later = count.flip(1).cumsum(1).flip(1) - count  # how many states of the same step follow
            sums = sums * ~in_step.any(1, keepdim=True)
            in_step = in_step & (later == 0)
        return {"decide": sums + in_step.to(decide.dtype) @ decide, "key": k, "value": v}

    def advance(self, x: Tensor, state: Tensors, held: Tensors, layout: Layout, ended: Tensor) -> Reading:
        """Return the outputs (B, C) of one token (B, C) of each hypothesis, and where the heads are then.

        ``layout.keys`` begin after the states that were written; ``ended`` (1,) is 1 if no more states follow.
        """
        q_mono, q = self.split_hypotheses(self.q(x), 2)
        read = layout.keys[0, :1]
        step, found = self._decide(q_mono, state["decide"], held["step"], read, ended)
        seen = torch.minimum((step + 1) * self.rule.ratio, read)
        output = self._weights(q, state["key"], seen, layout).to(q.dtype) @ state["value"]
        if not self.rule.mass_preservation:
            output = output * found[..., None, None]
        return Reading(self.join(output), {"step": step}, seen.amax(1), ~found.all(1))

    def _decide(
        self, q: Tensor, keys: Tensor, step: Tensor, read: Tensor, ended: Tensor
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the next step of each head, and whether it found one, else it is at the end: (B, H) each."""
        rule, places = self.rule, torch.arange(self.steps)
        if rule.pooling == "average":
            keys = keys / (read - places * rule.ratio).clamp(1, rule.ratio).unsqueeze(1)
        p = self.attention._emit_probability(q, keys)[:, :, 0]
        known = torch.where(ended > 0, steps_of(read, rule.ratio, rule.pad_threshold), read // rule.ratio)
        stops = (p > 0.5) & (places >= step.unsqueeze(-1)) & (places < known)
        found = stops.any(-1)
        last = known - int(rule.mass_preservation)  # else past the last step, for all later targets too
        return torch.where(found, stops.int().argmax(-1), last), found

    def _weights(self, q: Tensor, keys: Tensor, seen: Tensor, layout: Layout) -> Tensor:
        """Return the weights (B, H, 1, slots) of heads that have read ``seen`` (B, H) states."""
        rule, places = self.rule, torch.arange(self.slots)
        back = {"hard_aligned": 1, "chunkwise": rule.chunk}.get(rule.soft)
        visible = places < seen.unsqueeze(-1)
        if back is not None:
            visible = visible & (places >= seen.unsqueeze(-1) - back)
        if rule.soft == "hard_aligned":
            return visible.to(q.dtype).unsqueeze(2)
        layout = replace(layout, view=Full(), keys=positions(0, self.slots), key_mask=visible.any(1))
        weights = self.mechanism.scores(q, keys, layout) * visible.unsqueeze(2)
        return weights / weights.sum(-1, keepdim=True).clamp_min(self.mechanism.eps)
