"""The bound of what attention can gain: a mechanism that costs nothing and still trains its projections."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mla_fairseq.attention.registry import register_attention


class ReturnValues(torch.autograd.Function):
    """Return the values as they are; queries, keys and values get gradients that cost nothing to make.

    Without those gradients a step would leave out half the backward pass of the projections, which no attention can.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.sources = k.shape[-2]
        return v.expand_as(v)[..., : q.shape[-2], :] if q.shape[-2] <= ctx.sources else q.expand_as(q)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        some = gradient
        if gradient.shape[-2] != ctx.sources:
            some = gradient[..., :1, :].expand(*gradient.shape[:-2], ctx.sources, gradient.shape[-1])
        return gradient, some, some


class FreeAttention(nn.Module):
    """Attention of no cost, for training alone."""

    needs_lengths = False
    in_order = False
    positions = None

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, *unused: object) -> Tensor:
        """Return values (B, H, T, D) for queries (B, H, T, D)."""
        return ReturnValues.apply(q, k, v)


@register_attention("free")
def free(head_dim: int, options: None) -> nn.Module:
    """Attention that returns its values."""
    return FreeAttention()
