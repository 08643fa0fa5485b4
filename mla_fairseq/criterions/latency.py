"""How late a translation is, differentiably: the metrics of simultaneous translation on expected delays.

Delays (B, T) are how many source states were read when each target was written; source and target lengths (B,) are in
the same units, states and targets. Each function returns (B,). ``mask`` (B, T) is true for real targets.
"""

from __future__ import annotations

import torch
from torch import Tensor


def average_proportion(delays: Tensor, source_lengths: Tensor, mask: Tensor) -> Tensor:
    """Cho & Esipova 2016, arXiv 1606.02012: the mean share of the source that was read, 0 to 1."""
    return (delays * mask).sum(1) / (source_lengths * mask.sum(1))


def average_lagging(delays: Tensor, source_lengths: Tensor, mask: Tensor) -> Tensor:
    """Ma et al. 2019, arXiv 1810.08398, equation 8: states behind an ideal writer, up to the first target for which the
    whole source was read."""
    ideal = _places(delays) * (source_lengths / mask.sum(1)).unsqueeze(1)
    whole = delays >= source_lengths.unsqueeze(1) - 1e-3
    counted = mask & (whole.cumsum(1) - whole.long() == 0)  # the first that has read all is the last that counts
    return ((delays - ideal) * counted).sum(1) / counted.sum(1)


def differentiable_average_lagging(delays: Tensor, source_lengths: Tensor, mask: Tensor) -> Tensor:
    """Cherry & Foster 2019, arXiv 1906.00048: as average lagging over all targets, where a target takes its time.

    ``d'(i) = max(d(i), d'(i - 1) + S / T)`` is ``max over j <= i of d(j) + (i - j) S / T``.
    """
    steps = source_lengths / mask.sum(1)
    ideal = _places(delays) * steps.unsqueeze(1)
    spent = (delays - ideal).cummax(1).values
    return (spent * mask).sum(1) / mask.sum(1)


def _places(delays: Tensor) -> Tensor:
    return torch.arange(delays.shape[1], device=delays.device, dtype=delays.dtype)


METRICS = {
    "average_lagging": average_lagging,
    "average_proportion": average_proportion,
    "differentiable_average_lagging": differentiable_average_lagging,
}


def gather(delays: Tensor, method: str) -> Tensor:
    """The delays of many heads (B, heads, T) as one (B, T).

    ``average``; ``max``, the head that all others wait for; or ``weighted_average``, with weights that are the softmax
    of the delays over the heads (Ma et al. 2020, arXiv 1909.12406, equation 10).

    Raises:
        ValueError: another method.
    """
    if method == "average":
        return delays.mean(1)
    if method == "max":
        return delays.amax(1)
    if method == "weighted_average":
        return (delays.softmax(1) * delays).sum(1)
    raise ValueError(f"--latency-gather-method must be weighted_average, average or max, but is {method!r}")


def variance(delays: Tensor, mask: Tensor) -> Tensor:
    """How far heads (B, heads, T) are apart: the variance over heads, in states squared, its mean over targets, (B,)
    (arXiv 1909.12406, equation 12)."""
    return (delays.var(1, unbiased=False) * mask).sum(1) / mask.sum(1)
