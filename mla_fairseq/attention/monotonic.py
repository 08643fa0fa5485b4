"""Monotonic alignments: each target moves forward through the source, by learned decisions.

At step j of the source, target i is emitted with probability ``p(i, j)``, else step j is passed (Raffel et al. 2017,
arXiv 1704.00784). Training computes the expectation over all walks, which are paths through a lattice of nodes (i, j)
from (0, 0): to (i + 1, j) with ``p(i, j)``, to (i, j + 1) with ``1 - p(i, j)``::

    reached(i, j) = (1 - p(i, j - 1)) reached(i, j - 1) + p(i - 1, j) reached(i - 1, j)
    alignment(i, j) = p(i, j) reached(i, j)

This is Raffel's recurrence (equation 9) without its division by products of ``1 - p``: only sums and products of
probabilities, exact for p of 0 and 1, and all nodes of an anti-diagonal are computed at once.

A target that is aligned to a step can attend to the states up to it (``infinite_lookback``: Arivazhagan et al. 2019,
arXiv 1906.05218; ``chunkwise``: Chiu & Raffel 2018, arXiv 1712.05382), separately in each head (Ma et al. 2020,
arXiv 1909.12406).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mla_fairseq.attention.numerics import EPS

SOFT_TYPES = ("hard_aligned", "infinite_lookback", "chunkwise")


@dataclass(frozen=True)
class Monotonic:
    """Options of monotonic heads: how they decide, and what they attend to where they stop.

    Attributes:
        soft: ``hard_aligned``: the last state read; ``infinite_lookback``: all states read; ``chunkwise``: the last
            ``chunk`` states read.
        ratio: states in a pre-decision step (fixed pre-decision, Ma et al. 2020, arXiv 2011.02048).
        pooling: ``average`` or ``last``: what represents the states of a step.
        pad_threshold: ignore the last step if more than this fraction of it is missing.
        chunk: states that ``chunkwise`` attends to.
        mass_preservation: every head emits at the last step.
        noise_mean, noise_var: of the noise on energies in training, which drives probabilities to 0 and 1.
        energy_bias, energy_bias_init: whether a bias is learned, and its initial value.

    Raises:
        ValueError: an unknown ``soft`` or ``pooling``, or numbers out of range.
    """

    soft: str = "infinite_lookback"
    ratio: int = 1
    pooling: str = "average"
    pad_threshold: float = 1.0
    chunk: int = 10
    mass_preservation: bool = True
    noise_mean: float = 0.0
    noise_var: float = 1.0
    energy_bias: bool = False
    energy_bias_init: float = -2.0

    def __post_init__(self) -> None:
        if self.soft not in SOFT_TYPES:
            raise ValueError(f"monotonic attention must be one of {', '.join(SOFT_TYPES)}, but is {self.soft!r}")
        if self.pooling not in ("average", "last"):
            raise ValueError(f"--fixed-pre-decision-type must be average or last, but is {self.pooling!r}")
        for flag, number in (("--fixed-pre-decision-ratio", self.ratio), ("--mocha-chunk-size", self.chunk)):
            if number < 1:
                raise ValueError(f"{flag} must be at least 1, but is {number}")
        if not 0 <= self.pad_threshold <= 1:
            raise ValueError(f"--fixed-pre-decision-pad-threshold must be from 0 to 1, but is {self.pad_threshold}")
        if self.noise_var < 0:
            raise ValueError(f"--noise-var must be at least 0, but is {self.noise_var}")

    def align(self, p: Tensor, lengths: Tensor, states: int) -> tuple[Tensor, Tensor]:
        """Return the alignment to states (B, H, T, S), and the expected number of states read (B, H, T).

        ``p`` are probabilities (B, H, T, J) of emitting at each step, ``lengths`` (B,) the numbers of real states.
        """
        steps = steps_of(lengths, self.ratio, self.pad_threshold)
        alignment = expected_alignment(p, steps, self.mass_preservation)
        step_ends = ends(p.shape[-1], lengths, self.ratio)
        return to_states(alignment, step_ends, states), (alignment * step_ends[:, None, None]).sum(-1)


def expected_alignment(p: Tensor, steps: Tensor | None = None, mass_preservation: bool = True) -> Tensor:
    """Return the probability that target i is aligned to step j, (B, H, T, S).

    Args:
        p: probabilities of emitting (B, H, T, S), float32 or float64.
        steps: (B,), how many of the S steps are real; ``None``: all.
        mass_preservation: a target that reaches the last real step is emitted there, so that rows sum to one (Ma et al.
            2020, section 2.2); else rows of targets that find no step sum to less.
    """
    if steps is None:
        steps = torch.full((len(p),), p.shape[-1], device=p.device)
    steps = steps[:, None, None, None]
    p = p * (torch.arange(p.shape[-1], device=p.device) < steps)
    if mass_preservation:
        p = p.scatter(-1, (steps - 1).expand(*p.shape[:-1], 1), 1.0)
    return _Lattice.apply(p.flatten(0, 1)).view_as(p)


class _Lattice(Function):
    """Map p to alignment, (N, T, S). Inside, the layout is (D, N, T): anti-diagonal d = i + j first, then target i."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        ctx.steps, p = p.shape[-1], _skew(p)
        reached = torch.zeros_like(p)
        reached[0, :, 0] = 1
        alignment = torch.empty_like(p)
        for d in range(len(p)):
            torch.mul(reached[d], p[d], out=alignment[d])
            if d + 1 < len(p):
                torch.sub(reached[d], alignment[d], out=reached[d + 1])  # (1 - p) reached: to the next step
                reached[d + 1, :, 1:] += alignment[d, :, :-1]  # p reached: to the next target
        ctx.save_for_backward(p, reached)
        return _unskew(alignment, ctx.steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        p, reached = ctx.saved_tensors
        of_alignment = _skew(gradient)
        after = torch.zeros_like(p[0])  # gradient of ``reached`` on the next diagonal
        for d in range(len(p) - 1, -1, -1):
            of_alignment[d] -= after
            of_alignment[d, :, :-1] += after[:, 1:]
            after = torch.addcmul(after, p[d], of_alignment[d])
        return _unskew(of_alignment.mul_(reached), ctx.steps)


def _skew(x: Tensor) -> Tensor:
    """Skew (N, T, S) to (T + S - 1, N, T): entry [i + j, n, i] is x[n, i, j], all others are zero."""
    count, targets, steps = x.shape
    width = steps + targets
    # rows padded to S + T, then read as rows of S + T - 1: each starts one place further right than the row above
    rows = F.pad(x, (0, targets)).flatten(1)[:, : targets * (width - 1)]
    return rows.view(count, targets, width - 1).permute(2, 0, 1).contiguous()


def _unskew(x: Tensor, steps: int) -> Tensor:
    """Invert ``_skew``."""
    _, count, targets = x.shape
    rows = F.pad(x.permute(1, 2, 0).reshape(count, -1), (0, targets))
    return rows.view(count, targets, steps + targets)[..., :steps].contiguous()


def infinite_lookback(alignment: Tensor, weights: Tensor, eps: float = EPS) -> Tensor:
    """Return the expected attention (B, H, T, S) if a target that stops at state k attends to all states up to k.

    ``beta(j) = w(j) sum_{k >= j} alignment(k) / sum_{l <= k} w(l)`` (arXiv 1906.05218, equations 10 and 11).
    ``weights`` (B, H, T, S), at least 0, are those of any mechanism before normalization.
    """
    shares = alignment / weights.cumsum(-1).clamp_min(eps)
    return weights * shares.flip(-1).cumsum(-1).flip(-1)


def chunkwise(alignment: Tensor, weights: Tensor, size: int, eps: float = EPS) -> Tensor:
    """Do the same as ``infinite_lookback`` for the last ``size`` states up to k (arXiv 1712.05382, equation 13)."""
    if size < 1:
        raise ValueError(f"a chunk must have at least 1 state, but has {size}")
    sums = F.pad(weights, (size - 1, 0)).unfold(-1, size, 1).sum(-1)  # differences of ``cumsum`` would lose precision
    shares = F.pad(alignment / sums.clamp_min(eps), (0, size - 1)).unfold(-1, size, 1).sum(-1)
    return weights * shares


def steps_of(lengths: Tensor, ratio: int, pad_threshold: float = 1.0) -> Tensor:
    """Return the number of pre-decision steps (B,), at least 1, from the numbers of states (B,).

    A step is ``ratio`` states; the last step counts unless more than the fraction ``pad_threshold`` of it is missing.
    """
    whole, rest = lengths // ratio, lengths % ratio
    counts = (rest > 0) & ((ratio - rest) <= pad_threshold * ratio)
    return (whole + counts).clamp_min(1)


def pool(states: Tensor, ratio: int, pooling: str = "average", mask: Tensor | None = None) -> Tensor:
    """Return one vector for each step of ``ratio`` states, (ceil(S / ratio), B, C), from states (S, B, C).

    It is the ``average`` of the real states (``mask`` (B, S)) or the ``last`` of them.
    """
    if ratio == 1:
        return states
    if mask is None:
        mask = torch.ones(states.shape[1], len(states), dtype=torch.bool, device=states.device)
    missing = -len(states) % ratio
    blocks = F.pad(states, (0, 0, 0, 0, 0, missing)).unflatten(0, (-1, ratio))
    real = F.pad(mask, (0, missing)).t().unflatten(0, (-1, ratio)).unsqueeze(-1)
    if pooling == "average":
        return (blocks * real).sum(1) / real.sum(1).clamp_min(1)
    last = (real.sum(1, keepdim=True) - 1).clamp_min(0)
    return blocks.gather(1, last.expand(-1, 1, -1, blocks.shape[-1])).squeeze(1)


def ends(steps: int, lengths: Tensor, ratio: int) -> Tensor:
    """Return the number of states up to the end of each step, (B, steps), given the numbers of states (B,)."""
    ends = (torch.arange(steps, device=lengths.device) + 1) * ratio
    return torch.minimum(ends, lengths.unsqueeze(-1))


def to_states(alignment: Tensor, ends: Tensor, states: int) -> Tensor:
    """Move alignment to steps (B, H, T, J) to the last state of each step, (B, H, T, S); ``ends`` is (B, J)."""
    places = (ends - 1)[:, None, None].expand_as(alignment)
    return alignment.new_zeros(*alignment.shape[:-1], states).scatter_add(-1, places, alignment)
