"""Content features (phi): what a token says, as non-negative numbers.

A feature map takes queries or keys (.., d) and returns (.., F), all >= 0, so that weights are never negative and the
normaliser never cancels. There is no 1 / sqrt(d): the normaliser would divide it out again. One that treats queries
and keys apart has two methods, ``query`` and ``key``. What all features of a query have in common cancels; what those
of a key have does not. One that is flat where it is zero may have ``waking``, the same map with a gradient there, which
losses upon attention weights follow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class ReLUFeatures(nn.Module):
    """phi(x) = max(x, 0): cosFormer (arXiv 2202.08791), and MLA's "simple attention" (arXiv 2304.08453)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def waking(self, x: Tensor) -> Tensor:
        """The same, with a gradient at zero too, where it would raise x."""
        return _WakingReLU.apply(x)


class SquaredReLUFeatures(nn.Module):
    """phi(x) = max(x, 0)^2 (So et al. 2021, arXiv 2109.08668, use it between layers): sharper weights than ReLU's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()

    def waking(self, x: Tensor) -> Tensor:
        """The same, with a gradient of slope 1 at zero, where it would raise x."""
        y = _WakingReLU.apply(x)
        return y.square() + (y - y.detach()) * (y == 0)


class _WakingReLU(Function):
    """max(x, 0) of slope 1 also below zero, but for gradients whose descent raises x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.relu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * ((x > 0) | (gradient < 0))


class SoftmaxFeatures(nn.Module):
    """phi(x) = softmax(x) over the features, of queries and keys alike.

    Efficient attention (Shen et al. 2018, arXiv 1812.01243, section 3.2) takes the keys' softmax over time, which
    cannot stream: over the features each token's depends on that token alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


class ELUFeatures(nn.Module):
    """phi(x) = ELU(x) + 1 (Katharopoulos et al. 2020, arXiv 2006.16236, equation 7); F = d."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _ELUPlusOne.apply(x)
        return _elu_plus_one(x)


def _elu_plus_one(x: Tensor) -> Tensor:
    """exp(min(x, 0)) + max(x, 0): half the time of torch's ELU."""
    return x.clamp_max(0).exp_().add_(F.relu(x))


class _ELUPlusOne(Function):
    """The slope is min(phi(x), 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _elu_plus_one(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradient * y.clamp_max(1)
