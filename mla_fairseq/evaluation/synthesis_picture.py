"""The picture of one synthesised utterance: its spectrogram, where it looked in the text, and when it would end."""

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
    """Writes ``stem.png`` and ``stem.svg``.

    Args:
        mel: (T, F) log magnitudes.
        attention: (S, T) weights.
        end: (T,) probabilities of the end.
        symbols: S of them; the end of sentence, if the model read one, may be left out.
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
    bottom.set_ylabel("end")
    bottom.set_xlabel("seconds")
    if title:
        figure.suptitle(title, fontsize=9)
    return save(figure, stem)
