"""Softmax attention whose state never grows: a buffer of the latest keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.attention import Layout, Mechanism, SoftmaxAttention, positions
from mla_fairseq.attention.base import Tensors

HIDDEN = -1e9  # added to the scores of keys that are not visible; finite, so that a row that sees no key is not NaN


class BufferedSoftmax(SoftmaxAttention):
    """Softmax attention to the new keys and to the latest ``capacity`` keys before them.

    The state has ``key`` and ``value`` (B, H, capacity, D), the latest key last; slots that were never filled are at
    the front. Which slots are filled follows from the positions of the layout. Beyond its capacity it forgets the
    oldest keys, as a window does.

    Args:
        head_dim: channels of a head (D).
        capacity: keys that the state holds.
    """

    constant_state = True

    def __init__(self, head_dim: int, capacity: int) -> None:
        super().__init__(head_dim)
        self.capacity = capacity
        self.scale = head_dim**-0.5

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        if not self.capacity:
            return self._attend(q, k, v, layout.once("new", lambda: self._hidden(layout, 0))), {}
        held = self._held(state, k)
        keys, values = torch.cat((held["key"], k), dim=2), torch.cat((held["value"], v), dim=2)
        hidden = layout.once(("buffer", self.capacity), lambda: self._hidden(layout, self.capacity))
        # a masked key is kept too: it is after the end of the stream, or moves out before the buffer is full
        new = {"key": keys[:, :, k.shape[2] :], "value": values[:, :, k.shape[2] :]}
        return self._attend(q, keys, values, hidden), new

    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        if not self.capacity:
            return {}
        held = self._held(state, k)
        mask, slots = layout.key_mask, torch.arange(self.capacity, device=k.device)
        kept = slots + (k.shape[2] if mask is None else mask.sum(-1))  # masked keys, the last ones, do not move it
        return {
            "key": torch.cat((held["key"], k), dim=2).index_select(2, kept),
            "value": torch.cat((held["value"], v), dim=2).index_select(2, kept),
        }

    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        """Return the outputs (B, H, T, D) of queries; ``layout.keys`` begin after the keys that were written."""
        hidden = layout.once(("read", self.capacity), lambda: self._hidden(layout, self.capacity)[..., : self.capacity])
        return self._attend(q, state["key"], state["value"], hidden)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        return ((q * self.scale) @ k.transpose(-1, -2) + hidden.to(q.dtype)).softmax(-1) @ v

    def _held(self, state: Tensors, k: Tensor) -> Tensors:
        if state:
            return state
        empty = k.new_zeros(*k.shape[:2], self.capacity, k.shape[3])
        return {"key": empty, "value": empty}

    def _hidden(self, layout: Layout, held: int) -> Tensor:
        """Return 0 for real keys and ``HIDDEN`` for others, (1, 1, 1, held + S)."""
        first = layout.keys[0, :1]
        real = positions(first - held, held + layout.keys.shape[-1], first.device) >= 0
        if layout.key_mask is not None:
            real = real & F.pad(layout.key_mask, (held, 0), value=True)
        return (~real).float()[:, None, None] * HIDDEN


def static(mechanism: Mechanism, head_dim: int, capacity: int) -> Mechanism:
    """Return a mechanism that computes the same and whose state has a static shape.

    Args:
        mechanism: any mechanism.
        head_dim: channels of its heads.
        capacity: tokens that are read later, at most; of effect for softmax attention only.

    Raises:
        ValueError: a mechanism of another package whose state grows.
    """
    if isinstance(mechanism, SoftmaxAttention):
        return BufferedSoftmax(head_dim, capacity)
    if not mechanism.constant_state:
        raise ValueError(
            f"the state of {type(mechanism).__name__} grows with the stream, and a graph has static shapes: train with "
            "another --attn-type"
        )
    return mechanism
