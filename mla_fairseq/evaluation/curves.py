"""The picture of a training: loss against updates and against minutes, on training and validation data."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

from mla_fairseq.evaluation.pictures import new_figure, save
from mla_fairseq.evaluation.training_log import Point, TrainingLog, read_training_log

_TRAIN, _VALID = "#7f8fa6", "#c23616"
_SERIES = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Round numbers from 1 to 10, the finest series first."""
_APART = 0.08
"""Nearest that two ticks may be, as a share of the axis."""


def draw_training_curve(log_path: str | Path, stem: str | Path, title: str = "", tokens: bool = True) -> list[Path]:
    """Writes ``stem.png`` and ``stem.svg``.

    Args:
        log_path: log of ``fairseq-train --log-format json``.
        stem: path of the pictures without their suffix.
        title: written above the picture.
        tokens: the loss is in bits per target token, which has a perplexity; spectrograms have none.

    Raises:
        ValueError: the log is missing, or holds no update yet.
    """
    log = read_training_log(log_path)
    if not log.train:
        raise ValueError(f"{log_path} holds no training statistics; fairseq-train needs --log-format json.")
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2, sharey=True)
    _plot(left, log, "update", "updates")
    _plot(right, log, "minutes", "minutes")
    left.set_ylabel("loss per target token (bits)" if tokens else "loss")
    if tokens:
        _perplexity_scale(right)
    left.legend(frameon=False)
    if title:
        figure.suptitle(title)
    return save(figure, stem)


def _plot(axes, log: TrainingLog, attribute: str, label: str) -> None:
    def xs(points: list[Point]) -> list[float]:
        return [getattr(point, attribute) for point in points]

    axes.plot(xs(log.train), [point.loss for point in log.train], color=_TRAIN, linewidth=1, label="train")
    axes.plot(xs(log.valid), [point.loss for point in log.valid], color=_VALID, marker="o", markersize=3, label="valid")
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)


def _perplexity_scale(axes) -> None:
    """A second scale on the right: perplexity = 2 ** loss."""
    second = axes.secondary_yaxis("right", functions=(lambda bits: 2.0**bits, _log2))
    second.set_ylabel("perplexity")
    ticks = perplexity_ticks(*axes.get_ylim())
    second.set_yticks(ticks, [f"{tick:g}" if tick < 1e6 else f"{tick:.0e}" for tick in ticks])


def perplexity_ticks(low: float, high: float) -> list[float]:
    """Round perplexities along an axis from ``low`` to ``high`` bits, none crowded.

    On an axis of bits equal steps of perplexity crowd at the top; round numbers that grow by factors do not.  Where
    the axis is so short that perplexity is nearly straight, equal steps are best.
    """
    if high - low < 1.5:
        return _equal_steps(2.0**low, 2.0**high)
    tens = range(math.floor(low * math.log10(2)), math.ceil(high * math.log10(2)) + 1)
    for series in _SERIES:
        ticks = [digit * 10.0**ten for ten in tens for digit in series]
        gap = min(math.log2(later / earlier) for earlier, later in pairwise(ticks))
        if gap >= _APART * (high - low):
            break
    return [tick for tick in ticks if low <= math.log2(tick) <= high]


def _equal_steps(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def _log2(values):
    import numpy as np

    return np.log2(np.maximum(values, 1e-9))
