"""Draw one synthesised utterance: its spectrogram, its attention to the text, and the probability of its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mla_fairseq.evaluation.pictures import COLOURS, new_figure, save

MAX_LABELS = 40


def draw_synthesis(
    stem: str | Path,
    mel: np.ndarray,
    attention: np.ndarray,
    end: np.ndarray,
    symbols: Sequence[str],
    seconds_per_frame: float,
    title: str = "",
) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``; return their paths.

    Args:
        stem: path of the pictures without suffix.
        mel: (T, F), log magnitudes.
        attention: (S, T), cross-attention weights.
        end: (T,), probability of the end at each frame.
        symbols: S symbols; the end of sentence may be left out.
        seconds_per_frame: time from frame to frame.
        title: title above the picture.
    """
    figure = new_figure(10, 7)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 4, 1))
    right = len(mel) * seconds_per_frame
    top.imshow(mel.T, origin="lower", aspect="auto", extent=(0, right, 0, mel.shape[1]), cmap="magma")
    top.set_ylabel("mel bin")
    middle.imshow(
        attention, origin="lower", aspect="auto", extent=(0, right, -0.5, len(attention) - 0.5), cmap="viridis",
        vmin=0,
    )  # fmt: skip
    middle.set_ylabel("symbol")
    if len(symbols) <= MAX_LABELS:
        middle.set_yticks(range(len(symbols)), symbols, fontsize=6)
    bottom.plot(np.arange(len(end)) * seconds_per_frame, end, color=COLOURS[1])
    bottom.set_ylim(-0.02, 1.02)
    bottom.set_ylabel("end probability")
    bottom.set_xlabel("time (s)")
    if title:
        figure.suptitle(title, fontsize=9)
    return save(figure, stem)
