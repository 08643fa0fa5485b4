"""Softmax attention whose state never grows: a ring of the latest keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from mla_fairseq.attention import Layout, Mechanism, SoftmaxAttention
from mla_fairseq.attention.base import Tensors

HIDDEN = -1e9  # added to the scores of keys that are not visible; finite, so that a row that sees no key is not NaN


class BufferedSoftmax(SoftmaxAttention):
    """Softmax attention to the new keys and to the latest ``capacity`` keys before them.

    The state has ``key`` and ``value`` (B, H, capacity + new, D): token i of a stream is in slot i modulo their number.
    What the slots hold follows from the positions of the layout, one for all streams. Beyond its capacity it forgets
    the oldest keys, as a window does. Masked keys must be the last ones; a later call overwrites them.

    Args:
        head_dim: channels of a head (D).
        capacity: keys that are visible besides new ones.
        new: keys of a call.
    """

    constant_state = True

    def __init__(self, head_dim: int, capacity: int, new: int) -> None:
        super().__init__(head_dim)
        self.capacity, self.slots = capacity, capacity + new
        self.scale = head_dim**-0.5

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        state = self.write(state, k, v, layout)
        count = layout.keys.shape[-1] if layout.key_mask is None else layout.key_mask.sum(-1)
        return self._attend(state, q, layout.once(("advance", self.slots), lambda: self._hidden(layout, count))), state

    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        state = state or self._fresh(k)
        slots = layout.once(
            ("slots", self.slots), lambda: (layout.keys[0] % self.slots).reshape(1, 1, -1, 1).expand(k.shape)
        )
        return {"key": state["key"].scatter(2, slots, k), "value": state["value"].scatter(2, slots, v)}

    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        """Return the outputs (B, H, T, D) of queries; ``layout.keys`` begin after the keys that were written."""
        return self._attend(state, q, layout.once(("read", self.slots), lambda: self._hidden(layout, 0)))

    def _attend(self, state: Tensors, q: Tensor, hidden: Tensor) -> Tensor:
        scores = (q * self.scale) @ state["key"].transpose(-1, -2)
        return (scores + hidden.to(q.dtype)).softmax(-1) @ state["value"]

    def _hidden(self, layout: Layout, count: int | Tensor) -> Tensor:
        """Return 0 for slots of visible keys and ``HIDDEN`` for others, (slots,), once ``count`` keys are written."""
        first = layout.keys[0, :1]
        last = first + count - 1
        places = (
            last - (last - torch.arange(self.slots, device=first.device)) % self.slots
        )  # of the tokens in the slots
        return (places < (first - self.capacity).clamp_min(0)).float() * HIDDEN

    def _fresh(self, k: Tensor) -> Tensors:
        empty = k.new_zeros(*k.shape[:2], self.slots, k.shape[3])
        return {"key": empty, "value": empty}


def static(mechanism: Mechanism, head_dim: int, capacity: int, new: int) -> Mechanism:
    """Return a mechanism that computes the same and whose state has a static shape.

    Args:
        mechanism: any mechanism.
        head_dim: channels of its heads.
        capacity: tokens that are visible besides new ones, at most; of effect for softmax attention only.
        new: tokens of a call.

    Raises:
        ValueError: a mechanism of another package whose state grows.
    """
    if isinstance(mechanism, SoftmaxAttention):
        return BufferedSoftmax(head_dim, capacity, new)
    if not mechanism.constant_state:
        raise ValueError(
            f"the state of {type(mechanism).__name__} grows with the stream, and a graph has static shapes: train with "
            "another --attn-type"
        )
    return mechanism
