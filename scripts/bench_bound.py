"""Bound the gain of faster attention: a mechanism that costs nothing and still trains its projections."""

from __future__ import annotations

import torch
from torch import Tensor

from mla_fairseq.attention import Layout, LinearAttention, register_attention


class ReturnValues(torch.autograd.Function):
    """Return the values unchanged; queries, keys and values get gradients that cost nothing to compute.

    Without gradients, a step would omit half of the projections' backward pass, which no attention can omit.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.keys = k.shape[-2]
        return v.expand_as(v)[..., : q.shape[-2], :] if q.shape[-2] <= ctx.keys else q.expand_as(q)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_keys = gradient
        if gradient.shape[-2] != ctx.keys:
            of_keys = gradient[..., :1, :].expand(*gradient.shape[:-2], ctx.keys, gradient.shape[-1])
        return gradient, of_keys, of_keys


@register_attention("free")
class FreeAttention(LinearAttention):
    """Attention that returns its values, for training only."""

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        return ReturnValues.apply(q, k, v)
