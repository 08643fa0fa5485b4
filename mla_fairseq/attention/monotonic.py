"""Monotonic alignments: each target moves forward through the source, by decisions that are learned.

At step j of the source, target i is written with probability ``p(i, j)``, else j is left behind (Raffel et al. 2017,
arXiv 1704.00784). Training takes the expectation over all such walks. The walks are paths through a lattice of nodes
(i, j) that start at (0, 0), go down, to (i + 1, j), with ``p(i, j)`` and right, to (i, j + 1), with ``1 - p(i, j)``::

    reached(i, j) = (1 - p(i, j - 1)) reached(i, j - 1) + p(i - 1, j) reached(i - 1, j)
    alignment(i, j) = p(i, j) reached(i, j)

which is Raffel's recurrence (equation 9) without its division by products of ``1 - p``: sums and products of
probabilities alone, exact for p of 0 and 1, with all nodes of an anti-diagonal at once.

Where a target is aligned to a step, soft attention over what came up to it can follow (``infinite_lookback``:
Arivazhagan et al. 2019, arXiv 1906.05218; ``chunkwise``: Chiu & Raffel 2018, arXiv 1712.05382), each head for itself
(Ma et al. 2020, arXiv 1909.12406).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mla_fairseq.attention.numerics import EPS


def expected_alignment(p: Tensor, steps: Tensor | None = None, mass_preservation: bool = True) -> Tensor:
    """Probability that target i is aligned to step j, (B, H, T, S), from ``p`` (B, H, T, S) in float32 or float64.

    Args:
        p: probabilities of writing.
        steps: (B,), how many of the S steps are real; ``None``: all.
        mass_preservation: who has come to the last real step writes there, so that rows sum to one (Ma et al. 2020,
            section 2.2); else targets that find no step have a row that sums to less.
    """
    if steps is not None:
        places = torch.arange(p.shape[-1], device=p.device)
        p = p * (places < steps[:, None, None, None])
    if mass_preservation:
        last = torch.full_like(p[:, :1, :1, :1], p.shape[-1] - 1, dtype=torch.long) if steps is None else steps - 1
        p = p.scatter(-1, last.reshape(-1, 1, 1, 1).expand(*p.shape[:-1], 1), 1.0)
    return _Lattice.apply(p.flatten(0, 1)).view_as(p)


class _Lattice(Function):
    """(N, T, S) -> (N, T, S). Inside, (D, N, T): anti-diagonal d = i + j first, then the target i."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        ctx.steps, p = p.shape[-1], _skew(p)
        reached = torch.zeros_like(p)
        reached[0, :, 0] = 1
        written = torch.empty_like(p)
        for d in range(len(p)):
            torch.mul(reached[d], p[d], out=written[d])
            if d + 1 < len(p):
                torch.sub(reached[d], written[d], out=reached[d + 1])
                reached[d + 1, :, 1:] += written[d, :, :-1]
        ctx.save_for_backward(p, reached)
        return _unskew(written, ctx.steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        p, reached = ctx.saved_tensors
        of_written = _skew(gradient)
        after = torch.zeros_like(p[0])  # gradient of ``reached`` on the next diagonal
        for d in range(len(p) - 1, -1, -1):
            of_written[d] -= after
            of_written[d, :, :-1] += after[:, 1:]
            after = torch.addcmul(after, p[d], of_written[d])
        return _unskew(of_written.mul_(reached), ctx.steps)


def _skew(x: Tensor) -> Tensor:
    """(N, T, S) -> (T + S - 1, N, T): entry [i + j, n, i] is x[n, i, j], others are zero."""
    count, targets, steps = x.shape
    width = steps + targets
    rows = F.pad(x, (0, targets)).flatten(1)[:, : targets * (width - 1)]
    return rows.view(count, targets, width - 1).permute(2, 0, 1).contiguous()


def _unskew(x: Tensor, steps: int) -> Tensor:
    """The way back."""
    _, count, targets = x.shape
    rows = F.pad(x.permute(1, 2, 0).reshape(count, -1), (0, targets))
    return rows.view(count, targets, steps + targets)[..., :steps].contiguous()


def infinite_lookback(alignment: Tensor, weights: Tensor, eps: float = EPS) -> Tensor:
    """Expected attention (B, H, T, S) where a target that stops at state k attends to the states up to k.

    ``beta(j) = w(j) sum_{k >= j} alignment(k) / sum_{l <= k} w(l)`` (arXiv 1906.05218, equations 10 and 11).
    ``weights`` (B, H, T, S), at least 0, are those of any mechanism before they are normalised.
    """
    shares = alignment / weights.cumsum(-1).clamp_min(eps)
    return weights * shares.flip(-1).cumsum(-1).flip(-1)


def chunkwise(alignment: Tensor, weights: Tensor, size: int, eps: float = EPS) -> Tensor:
    """As ``infinite_lookback``, with attention to the last ``size`` states up to k (arXiv 1712.05382, equation 13)."""
    if size < 1:
        raise ValueError(f"a chunk must have at least 1 state, but has {size}")
    sums = F.pad(weights, (size - 1, 0)).unfold(-1, size, 1).sum(-1)  # of differences of sums little would be left
    shares = F.pad(alignment / sums.clamp_min(eps), (0, size - 1)).unfold(-1, size, 1).sum(-1)
    return weights * shares


def steps_of(lengths: Tensor, ratio: int, pad_threshold: float = 1.0) -> Tensor:
    """Decision steps of sequences with so many states, (B,) -> (B,), at least one each.

    A step is ``ratio`` states; the last one counts unless more than ``pad_threshold`` of it is missing.
    """
    whole, rest = lengths // ratio, lengths % ratio
    counts = (rest > 0) & ((ratio - rest) <= pad_threshold * ratio)
    return (whole + counts).clamp_min(1)


def pool(states: Tensor, ratio: int, kind: str = "average", mask: Tensor | None = None) -> Tensor:
    """States (S, B, C) to one vector for each step of ``ratio`` states, (ceil(S / ratio), B, C).

    ``kind`` is ``average`` (over the real states, ``mask`` (B, S)) or ``last`` (the last real one).
    """
    if ratio == 1:
        return states
    if mask is None:
        mask = torch.ones(states.shape[1], len(states), dtype=torch.bool, device=states.device)
    missing = -len(states) % ratio
    blocks = F.pad(states, (0, 0, 0, 0, 0, missing)).unflatten(0, (-1, ratio))
    real = F.pad(mask, (0, missing)).t().unflatten(0, (-1, ratio)).unsqueeze(-1)
    if kind == "average":
        return (blocks * real).sum(1) / real.sum(1).clamp_min(1)
    last = (real.sum(1, keepdim=True) - 1).clamp_min(0)
    return blocks.gather(1, last.expand(-1, 1, -1, blocks.shape[-1])).squeeze(1)


def ends(steps: int, lengths: Tensor, ratio: int) -> Tensor:
    """States up to the end of each step, (B, steps), of sequences with so many states (B,)."""
    ends = (torch.arange(steps, device=lengths.device) + 1) * ratio
    return torch.minimum(ends, lengths.unsqueeze(-1))


def to_states(alignment: Tensor, ends: Tensor, states: int) -> Tensor:
    """Alignment to steps (B, H, T, J) as alignment to the last state of each, (B, H, T, S); ``ends`` is (B, J)."""
    places = (ends - 1)[:, None, None].expand_as(alignment)
    return alignment.new_zeros(*alignment.shape[:-1], states).scatter_add(-1, places, alignment)
