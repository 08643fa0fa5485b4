"""Softmax attention with the interface of a mechanism; its state is the keys and values."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.attention.base import Layout, Mechanism, Tensors
from mla_fairseq.attention.registry import register_attention
from mla_fairseq.attention.views import Causal


@register_attention("softmax")
class SoftmaxAttention(Mechanism):
    """Softmax attention over torch's fused kernel (arXiv 1706.03762).

    The state has ``key`` and ``value`` (B, H, S, D) and, after padded input, ``mask`` (B, S), true for real keys. It
    grows with the keys unless the view has a window: then keys that no later query can see are dropped.
    """

    window = True
    constant_state = False
    half_precision = True
    eps = torch.finfo(torch.float32).tiny

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        if layout.view == Causal() and layout.key_mask is None:  # torch's fastest kernel, which needs no mask
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return _attend(q, k, v, both(layout.visible(torch.bool), layout.key_mask))

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        if not state and q.shape[-2] > 1:  # ``parallel`` may use the fastest kernel
            output, state = self.parallel(q, k, v, layout), self.write(state, k, v, layout)
        else:
            state = self.write(state, k, v, layout)
            step = q.shape[-2] == 1 and layout.view == Causal()  # all stored keys are earlier
            visible = None if step or not q.numel() else layout.visible(torch.bool, stored=state["key"].shape[-2])
            output = _attend(q, state["key"], state["value"], both(visible, state.get("mask")))
        return output, trim(state, layout.view.reach)

    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        mask = layout.key_mask
        if not state:
            return {"key": k, "value": v} if mask is None else {"key": k, "value": v, "mask": mask}
        new = {"key": torch.cat((state["key"], k), dim=-2), "value": torch.cat((state["value"], v), dim=-2)}
        if mask is not None or "mask" in state:
            new["mask"] = torch.cat((_real(state.get("mask"), state["key"]), _real(mask, k)), dim=-1)
        return new

    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        if not state:
            raise ValueError("this state is empty: write keys before reading it")
        return _attend(q, state["key"], state["value"], both(None, state.get("mask")))

    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return weights (B, H, T, S) before normalization, the largest of a row 1; zero for keys that are not visible.

        Other weights are at least 1e-35 in float32, so that their sums can be divided by.
        """
        energy = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
        visible = both(layout.visible(torch.bool), layout.key_mask)
        if visible is not None:
            energy = energy.masked_fill(~visible, torch.finfo(energy.dtype).min)
        energy = energy - energy.amax(-1, keepdim=True).detach() if energy.numel() else energy  # else none is largest
        scores = energy.clamp_min(-80 if energy.dtype == torch.float32 else -600).exp()  # no underflow to zero
        return scores if visible is None else scores * visible.to(scores.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
    if visible is None:
        return F.scaled_dot_product_attention(q, k, v)
    blind = ~visible.any(-1, keepdim=True)  # softmax over no key is NaN: let such a query see all, then zero its output
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible | blind).masked_fill(blind, 0.0)


def both(visible: Tensor | None, key_mask: Tensor | None) -> Tensor | None:
    """Return which keys are visible (B or 1, 1, T or 1, S) and real as ``key_mask`` (B, S) says; ``None``: all are."""
    if key_mask is None:
        return visible
    key_mask = key_mask[:, None, None] if key_mask.dim() == 2 else key_mask.unsqueeze(2)
    return key_mask if visible is None else key_mask & visible


def _real(mask: Tensor | None, k: Tensor) -> Tensor:
    return torch.ones(k.shape[0], k.shape[-2], dtype=torch.bool, device=k.device) if mask is None else mask


def trim(state: Tensors, reach: int | None) -> Tensors:
    """Drop the keys that no later query can see."""
    first = state["key"].shape[-2] - (reach or 0)
    if reach is None or first <= 0:
        return state
    return {name: x[..., first:] if name == "mask" else x[..., first:, :] for name, x in state.items()}
