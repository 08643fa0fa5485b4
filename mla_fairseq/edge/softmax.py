"""Softmax attention whose state never grows: buffers of the latest keys and values, which the caller writes."""

from __future__ import annotations

import torch
from torch import Tensor

from mla_fairseq.attention import Layout, Mechanism, SoftmaxAttention
from mla_fairseq.attention.base import Tensors

HIDDEN = -1e9  # added to the scores of keys that are not visible; finite, so that a row that sees no key is not NaN


class BufferedSoftmax(SoftmaxAttention):
    """Softmax attention to the new keys and to the latest ``capacity`` keys before them.

    The state has ``key`` and ``value`` (B, H, capacity + new, D): token i of a stream is in slot i modulo their number.
    What the slots hold follows from the positions of the layout, one for all streams. Methods return only the new rows
    (B, H, new, D), and the caller writes them. Beyond its capacity it forgets the oldest keys, as a window does. Masked
    keys must be the last ones; later ones overwrite them. Without a capacity there is no state.

    Args:
        head_dim: channels of a head (D).
        capacity: keys that are visible besides new ones.
        new: keys of a call.
    """

    constant_state = True

    def __init__(self, head_dim: int, capacity: int, new: int) -> None:
        super().__init__(head_dim)
        self.width, self.capacity, self.slots = head_dim, capacity, capacity + new
        self.scale = head_dim**-0.5

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        """Return the outputs (B, H, T, D), and the new rows; ``state`` has the keys before them."""
        new = (q * self.scale) @ k.transpose(-1, -2)
        if (mask := layout.key_mask) is not None:
            new = new + layout.once(("masked", HIDDEN), lambda: mask.logical_not().to(q.dtype) * HIDDEN)
        if not self.capacity:
            return new.softmax(-1) @ v, {}
        key, value, hidden = self._filled(state, layout)
        held = (q * self.scale) @ key.transpose(-1, -2) + hidden.to(q.dtype)
        weights = torch.cat((new, held), -1).softmax(-1)
        count = k.shape[2]
        return weights[..., :count] @ v + weights[..., count:] @ value, {"key": k, "value": v}

    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        """Return the new rows."""
        return {"key": k, "value": v}

    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        """Return the outputs (B, H, T, D) of queries; ``layout.keys`` begin after the keys that were written."""
        key, value, hidden = self._filled(state, layout)
        return ((q * self.scale) @ key.transpose(-1, -2) + hidden.to(q.dtype)).softmax(-1) @ value

    def _filled(self, state: Tensors, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys and values of the filled slots, at least one, and 0 for visible keys and ``HIDDEN`` for others.

        A sentence fills a tenth of a ring for the longest speech, so that products with all slots would take most of
        the time of a small model.
        """
        first = layout.keys[0, :1]
        count = layout.once(("filled", self.slots), lambda: first[0].clamp(1, self.slots))
        hidden = layout.once(("hidden", self.slots), lambda: self._hidden(first)[:count])
        return state["key"][:, :, :count], state["value"][:, :, :count], hidden

    def _hidden(self, first: Tensor) -> Tensor:
        """Return 0 for slots of visible keys and ``HIDDEN`` for others, (slots,), before token ``first`` (1,)."""
        slots = torch.arange(self.slots, device=first.device)
        places = first - 1 - (first - 1 - slots) % self.slots  # of the tokens in the slots
        return (places < (first - self.capacity).clamp_min(0)).float() * HIDDEN

    def fresh(self, like: Tensor, streams: int, heads: int) -> Tensors:
        """Return the state of fresh streams, of the type of a tensor."""
        if not self.capacity:
            return {}
        return {name: like.new_zeros(streams, heads, self.slots, self.width) for name in ("key", "value")}


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
