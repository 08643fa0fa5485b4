"""Softmax attention behind the same methods as the linear mechanisms; its state holds the keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention.linear import UNKNOWN, Lengths, Tensors
from mla_fairseq.attention.views import Causal, Prefix, View, span


class SoftmaxAttention(nn.Module):
    """softmax(q . k / sqrt(d)) (Vaswani et al. 2017, arXiv 1706.03762) over torch's fused kernel.

    Shapes as in ``LinearAttention``; lengths are accepted and not needed. The state holds ``key`` and ``value``
    (B, H, S, D) and, where there was padding, ``mask`` (B, S), true for real keys. It grows with the keys unless the
    view has a window: then keys that no later query can see are dropped.
    """

    needs_lengths = False

    def parallel(
        self, q: Tensor, k: Tensor, v: Tensor, view: View, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensor:
        """Outputs (B, H, T, D) of a whole sequence."""
        return self._attend(q, k, v, view, key_mask)

    def weights(
        self, q: Tensor, k: Tensor, view: View, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensor:
        """Weights (B, H, T, S); rows sum to one, or to zero where nothing is seen."""
        scores = (q @ k.transpose(-1, -2)).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
        visible = _visible(q, k, view, key_mask)
        if visible is not None:
            scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        return (weights if visible is None else weights * visible).to(q.dtype)

    def scores(
        self,
        q: Tensor,
        k: Tensor,
        query_start: Tensor,
        key_start: Tensor,
        key_mask: Tensor | None = None,
        lengths: Lengths = UNKNOWN,
    ) -> Tensor:
        """Weights (B, H, T, S) before they are normalised, the largest of a row 1; starts and lengths say nothing here.

        None is below the smallest that can be divided by: 1e-35 in float32.
        """
        energy = (q @ k.transpose(-1, -2)).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
        if key_mask is not None:
            energy = energy.masked_fill(~key_mask[:, None, None], -torch.inf)
        energy = energy - energy.amax(-1, keepdim=True).detach()
        weights = energy.clamp_min(-80 if energy.dtype == torch.float32 else -600).exp()
        return weights if key_mask is None else weights * key_mask[:, None, None]

    def write(
        self, state: Tensors, k: Tensor, v: Tensor, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensors:
        """The state after these keys and values; ``state`` itself is not changed, ``{}`` is a fresh one."""
        if not state:
            return {"key": k, "value": v} if key_mask is None else {"key": k, "value": v, "mask": key_mask}
        new = {
            "key": torch.cat((state["key"], k), dim=-2),
            "value": torch.cat((state["value"], v), dim=-2),
        }
        if key_mask is not None or "mask" in state:
            new["mask"] = torch.cat((state.get("mask", _all_real(state["key"])), _or_all_real(key_mask, k)), dim=-1)
        return new

    def read(self, state: Tensors, q: Tensor, lengths: Lengths = UNKNOWN) -> tuple[Tensor, Tensors]:
        """Outputs (B, H, T, D) of queries over every key in the state, and the state."""
        if not state:
            raise ValueError("nothing was written to this state: write keys before reading it")
        return self._attend(q, state["key"], state["value"], None, state.get("mask")), state

    def advance(
        self,
        state: Tensors,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        view: View,
        key_mask: Tensor | None = None,
        lengths: Lengths = UNKNOWN,
    ) -> tuple[Tensor, Tensors]:
        """Outputs (B, H, T, D) of the next T queries given S new keys, and the state after both.

        Positions in the view count from the first token given here: keys in the state stand before it. ``Blocks``
        calls start at a block.
        """
        state = self.write(state, k, v, key_mask)
        output = self._attend(q, state["key"], state["value"], view, state.get("mask"), k.shape[-2])
        return output, _trim(state, view.reach)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, view: View | None, key_mask: Tensor | None, new: int | None = None
    ) -> Tensor:
        if view == Causal() and key_mask is None and q.shape[-2] == k.shape[-2]:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        visible = _visible(q, k, view, key_mask, new)
        if visible is None:
            return F.scaled_dot_product_attention(q, k, v)
        blind = ~visible.any(-1, keepdim=True)  # softmax over nothing is NaN: let such a row see, then zero it
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible | blind).masked_fill(blind, 0.0)


def _visible(q: Tensor, k: Tensor, view: View | None, key_mask: Tensor | None, new: int | None = None) -> Tensor | None:
    """Visibility and padding as one boolean mask (B or 1, 1, T, S); the last ``new`` keys came with the queries."""
    if isinstance(view, Prefix):
        view.check(q.shape[0], q.shape[-2])
    held = k.shape[-2]
    keys = span(0 if new is None else new - held, held, k.device)
    visible = None if view is None else view.visible(span(0, q.shape[-2], q.device), keys)
    if key_mask is None:
        return visible if visible is None or visible.dim() == 4 else visible[None, None]
    key_mask = key_mask[:, None, None, :]
    return key_mask if visible is None else key_mask & visible


def _all_real(k: Tensor) -> Tensor:
    return torch.ones(k.shape[0], k.shape[-2], dtype=torch.bool, device=k.device)


def _or_all_real(key_mask: Tensor | None, k: Tensor) -> Tensor:
    return _all_real(k) if key_mask is None else key_mask


def _trim(state: Tensors, reach: int | None) -> Tensors:
    """Drop the keys that no later query can see."""
    held = state["key"].shape[-2]
    if reach is None or held <= reach:
        return state
    return {name: x[..., held - reach :] if name == "mask" else x[..., held - reach :, :] for name, x in state.items()}
