"""Draw the training curve: loss against updates and against minutes, on training and validation data."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mla_fairseq.evaluation.pictures import new_figure, save
from mla_fairseq.evaluation.training_log import Point, TrainingLog, read_training_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN, _VALID = "#7f8fa6", "#c23616"
_SERIES = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Round numbers from 1 to 10, the finest series first."""
_APART = 0.08
"""Smallest distance of two ticks, as a fraction of the axis."""


def draw_training_curve(log_path: str | Path, stem: str | Path, title: str = "", tokens: bool = True) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``; return their paths.

    Args:
        log_path: log of ``fairseq-train --log-format json``.
        stem: path of the pictures without suffix.
        title: title above the picture.
        tokens: the loss is in bits per target token, so a perplexity scale is drawn; ``False`` for spectrograms.

    Raises:
        ValueError: the log is missing, or contains no update yet.
    """
    log = read_training_log(log_path)
    if not log.train:
        if log.updates:
            short = f"{log_path} has {log.updates} updates, fewer than --log-interval"
            raise ValueError(f"{short}: train longer, or run fairseq-train with a smaller --log-interval")
        raise ValueError(f"{log_path} contains no training statistics: run fairseq-train with --log-format json")
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


def _plot(axes: Axes, log: TrainingLog, attribute: str, label: str) -> None:
    """Draw both curves over an attribute of ``Point``, ``update`` or ``minutes``."""

    def xs(points: list[Point]) -> list[float]:
        return [getattr(point, attribute) for point in points]

    axes.plot(xs(log.train), [point.loss for point in log.train], color=_TRAIN, linewidth=1, label="train")
    axes.plot(xs(log.valid), [point.loss for point in log.valid], color=_VALID, marker="o", markersize=3, label="valid")
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)


def _perplexity_scale(axes: Axes) -> None:
    """Add a second scale on the right: perplexity = 2 ** loss."""
    second = axes.secondary_yaxis("right", functions=(_exp2, _log2))
    second.set_ylabel("perplexity")
    ticks = perplexity_ticks(*axes.get_ylim())
    second.set_yticks(ticks, [f"{tick:g}" if tick < 1e6 else f"{tick:.0e}" for tick in ticks])


def perplexity_ticks(low: float, high: float) -> list[float]:
    """Return round perplexities for ticks along an axis from ``low`` to ``high`` bits."""
    if high - low < 1.5:  # on so short an axis perplexity is nearly linear
        return _equal_steps(2.0**low, 2.0**high)
    # on an axis of bits, equal steps of perplexity crowd at the top; numbers that grow by factors do not
    tens = range(math.floor(low * math.log10(2)), math.ceil(high * math.log10(2)) + 1)
    for series in _SERIES:
        ticks = [digit * 10.0**ten for ten in tens for digit in series]
        gap = min(math.log2(later / earlier) for earlier, later in pairwise(ticks))
        if gap >= _APART * (high - low):
            break
    return [tick for tick in ticks if low <= math.log2(tick) <= high]


def _equal_steps(low: float, high: float) -> list[float]:
    """Return about six round numbers from ``low`` to ``high`` in equal steps."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def _exp2(bits: ArrayLike) -> np.ndarray:
    """Return the perplexity of a loss in bits."""
    return np.power(2.0, bits)


def _log2(values: ArrayLike) -> np.ndarray:
    """Return the logarithm; matplotlib also asks for values below 0."""
    return np.log2(np.maximum(values, 1e-9))
