"""Latency metrics of simultaneous translation on expected delays, with gradients.

Delays (B, T) are the numbers of encoder states read before each target was emitted, source lengths (B,) the numbers of
encoder states. ``mask`` (B, T) is true for real targets. Each metric is (B,).
"""

from __future__ import annotations

import torch
from torch import Tensor


def average_proportion(delays: Tensor, source_lengths: Tensor, mask: Tensor) -> Tensor:
    """Return the mean fraction of the source that was read, 0 to 1 (Cho & Esipova 2016, arXiv 1606.02012)."""
    return (delays * mask).sum(1) / (source_lengths * mask.sum(1))


def average_lagging(delays: Tensor, source_lengths: Tensor, mask: Tensor) -> Tensor:
    """Return the mean lag behind an ideal policy, in encoder states (Ma et al. 2019, arXiv 1810.08398, equation 8).

    It counts the targets up to the first for which the whole source was read.
    """
    ideal = _places(delays) * (source_lengths / mask.sum(1)).unsqueeze(1)
    whole = delays >= source_lengths.unsqueeze(1) - 1e-3
    counted = mask & (whole.cumsum(1) - whole.long() == 0)  # no earlier target has read all
    return ((delays - ideal) * counted).sum(1) / counted.sum(1)


def differentiable_average_lagging(delays: Tensor, source_lengths: Tensor, mask: Tensor) -> Tensor:
    """Return average lagging over all targets, in encoder states (Cherry & Foster 2019, arXiv 1906.00048).

    Emitting a target takes as long as S / T states: the delay is ``d'(i) = max(d(i), d'(i - 1) + S / T)``.
    """
    steps = source_lengths / mask.sum(1)
    ideal = _places(delays) * steps.unsqueeze(1)
    spent = (delays - ideal).cummax(1).values  # d'(i) is max over j <= i of d(j) + (i - j) S / T: no loop needed
    return (spent * mask).sum(1) / mask.sum(1)


def _places(delays: Tensor) -> Tensor:
    """Return the positions of targets from 0, (T,)."""
    return torch.arange(delays.shape[1], device=delays.device, dtype=delays.dtype)


METRICS = {
    "average_lagging": average_lagging,
    "average_proportion": average_proportion,
    "differentiable_average_lagging": differentiable_average_lagging,
}


def gather(delays: Tensor, method: str) -> Tensor:
    """Return the delays of many heads (B, heads, T) as one delay for each target, (B, T).

    ``method`` is ``average``, ``max`` (the head for which all others wait), or ``weighted_average`` (weighted by the
    softmax of the delays over the heads: Ma et al. 2020, arXiv 1909.12406, equation 10).

    Raises:
        ValueError: an unknown method.
    """
    if method == "average":
        return delays.mean(1)
    if method == "max":
        return delays.amax(1)
    if method == "weighted_average":
        return (delays.softmax(1) * delays).sum(1)
    raise ValueError(f"--latency-gather-method must be weighted_average, average or max, but is {method!r}")


def variance(delays: Tensor, mask: Tensor) -> Tensor:
    """Return the variance of delays (B, heads, T) over heads, its mean over targets, (B,), in encoder states squared.

    It measures how far the heads are apart (arXiv 1909.12406, equation 12).
    """
    return (delays.var(1, unbiased=False) * mask).sum(1) / mask.sum(1)
