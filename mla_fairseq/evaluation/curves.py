"""The picture of a training: loss against updates and against minutes, on training and validation data."""

from __future__ import annotations

import os
from pathlib import Path

from mla_fairseq.evaluation.training_log import Point, TrainingLog, read_training_log

_TRAIN, _VALID = "#7f8fa6", "#c23616"


def draw_training_curve(log_path: str | Path, stem: str | Path, title: str = "") -> list[Path]:
    """Writes ``stem.png`` and ``stem.svg``.

    Args:
        log_path: log of ``fairseq-train --log-format json``.
        stem: path of the pictures without their suffix.
        title: written above the picture.

    Raises:
        ValueError: the log is missing, or holds no update yet.
    """
    log = read_training_log(log_path)
    if not log.train:
        raise ValueError(f"{log_path} holds no training statistics; fairseq-train needs --log-format json.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _plot(left, log, "update", "updates")
    _plot(right, log, "minutes", "minutes")
    left.set_ylabel("loss per target token (bits)")
    _perplexity_scale(right)
    left.legend(frameon=False)
    if title:
        figure.suptitle(title)
    return [_save(figure, Path(f"{stem}.{kind}")) for kind in ("png", "svg")]


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


def _log2(values):
    import numpy as np

    return np.log2(np.maximum(values, 1e-9))


def _save(figure, path: Path) -> Path:
    """Written beside its place first, so that a killed run leaves no half picture."""
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, dpi=150, format=path.suffix[1:])
    os.replace(partial, path)
    return path
