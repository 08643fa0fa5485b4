"""Draw the reads and writes of one sentence: each word is placed at the time of the source when it was emitted."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.latency import length_adaptive_average_lagging
from mla_fairseq.evaluation.pictures import COLOURS, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_WORDS = 1000
_WIDTH, _ROW, _WAVE, _MARGIN = 9.0, 0.2, 0.8, 1.5
"""Inches: width of the picture, height of a word's row, of the waveform, and of everything around them."""
_WORD, _CLOCK, _FAINT = COLOURS[0], "#b08d57", "#9aa5b1"
_FONT = 9
_GAP = 6
"""Points between a word and its dot."""
_LETTERS = 60
"""Longest word: a model that repeats itself emits words wider than the picture, which are truncated."""
_WORST_MISMATCH_MS = 100


@dataclass(frozen=True)
class Waveform:
    """The audio of the sentence: ``samples`` (time,) in [-1, 1] at ``sample_rate`` Hz."""

    samples: np.ndarray
    sample_rate: int


def draw_timeline(
    instance: Instance, stem: str | Path, waveform: Waveform | None = None, title: str = ""
) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``; return their paths.

    Each word has its own row, so that words never overlap. Its dot is at its delay; if computing took visible time, a
    faint bar extends from there to the time at which the word appeared. The grey steps are reads (across) and writes
    (down). The dotted line is the ideal translator of LAAL: LAAL is the mean distance of the dots from it, up to the
    first word after the whole source was read.

    Args:
        instance: the sentence.
        stem: path of the pictures without suffix.
        waveform: audio to draw above the words.
        title: title in place of the sentence's number and latency.

    Raises:
        ValueError: no word, more than ``MAX_WORDS``, or a waveform of another length than the source.
    """
    _check(instance, waveform)
    rows = len(instance.units)
    reference = textwrap.wrap(f"reference: {instance.reference}", 120)
    height = rows * _ROW + _MARGIN + (_WAVE if waveform else 0) + 0.15 * len(reference)
    figure = new_figure(_WIDTH, height)
    if waveform:
        above, axes = figure.subplots(2, sharex=True, height_ratios=[_WAVE, rows * _ROW + 0.2])
        _draw_waveform(above, waveform)
    else:
        axes = above = figure.subplots()
    _draw_reading(axes, instance)
    _draw_clock(axes, instance)
    _draw_words(axes, instance)
    _dress(axes, instance, reference)
    above.set_title(title or _title(instance), fontsize=10, loc="left", parse_math=False)
    return save(figure, stem)


def _check(instance: Instance, waveform: Waveform | None) -> None:
    """Check that the sentence can be drawn and that the waveform is that of its source."""
    words = len(instance.units)
    if not 0 < words <= MAX_WORDS:
        raise ValueError(
            f"sentence {instance.index} does not have 1 to {MAX_WORDS} words ({words}): choose another sentence"
        )
    if waveform is None:
        return
    length = 1000 * len(waveform.samples) / waveform.sample_rate
    if abs(length - instance.source_length) > _WORST_MISMATCH_MS:
        raise ValueError(
            f"the audio of sentence {instance.index} ({length:.0f} ms) does not have the length in the log "
            f"({instance.source_length:.0f} ms): give its audio, or add --no-waveform"
        )


def _title(instance: Instance) -> str:
    """Return the default title: number and LAAL of the sentence."""
    laal = length_adaptive_average_lagging(instance.delays, instance.source_length, instance.reference_length)
    return f"sentence {instance.index}, LAAL {laal / 1000:.2f} s"


def _draw_waveform(axes: Axes, waveform: Waveform, bins: int = 600) -> None:
    """Draw the envelope: the lowest and highest sample of each bin."""
    parts = np.array_split(np.asarray(waveform.samples, dtype=float), min(bins, len(waveform.samples)))
    ends = np.cumsum([len(part) for part in parts]) / waveform.sample_rate
    low, high = [part.min() for part in parts], [part.max() for part in parts]
    axes.fill_between(ends, low, high, color=_FAINT, linewidth=0.4, step="pre")
    axes.set_axis_off()


def _draw_reading(axes: Axes, instance: Instance) -> None:
    """Draw reads and writes as steps, the ideal as a diagonal, and the end of the source."""
    rows, end = np.arange(len(instance.units)), instance.source_length / 1000
    delays = np.array(instance.delays) / 1000
    # x and y of the steps: right to each delay, then down past the row of its word
    across = np.concatenate([[0.0], np.repeat(delays, 2)[:-1], delays[-1:]])
    down = np.concatenate([[-0.5, -0.5], np.repeat(rows[:-1] + 0.5, 2), [rows[-1] + 0.5]])
    axes.plot(across, down, color=_FAINT, linewidth=1, alpha=0.6, zorder=1)
    step = end / max(len(rows), instance.reference_length)
    axes.plot(rows * step, rows, color="black", linewidth=1, linestyle=":", zorder=1, label="ideal (diagonal of LAAL)")
    axes.axvline(end, color="black", linewidth=0.8, alpha=0.5, zorder=1)


def _draw_clock(axes: Axes, instance: Instance) -> None:
    """Draw a faint bar from each delay to the computation-aware time."""
    if not instance.elapsed or np.allclose(instance.elapsed, instance.delays, rtol=0, atol=1):
        return
    rows = np.arange(len(instance.units)) + 0.34
    starts, ends = np.array(instance.delays) / 1000, np.array(instance.elapsed) / 1000
    axes.hlines(rows, starts, ends, color=_CLOCK, linewidth=1.6, alpha=0.55, zorder=2, label="computing time")
    axes.plot(ends, rows, "|", color=_CLOCK, markersize=4, alpha=0.8, zorder=2)


def _draw_words(axes: Axes, instance: Instance) -> None:
    """Draw dots and words; the layout reserves space for words beyond the end of the axis."""
    delays = np.array(instance.delays) / 1000
    axes.plot(delays, np.arange(len(delays)), "o", color=_WORD, markersize=4, zorder=3, label="word at its delay")
    for row, (word, delay) in enumerate(zip(instance.units, delays, strict=True)):
        text = word if len(word) <= _LETTERS else f"{word[:_LETTERS]}…"
        label = axes.annotate(text, (delay, row), (_GAP, 0), textcoords="offset points", va="center", fontsize=_FONT)
        label.set_parse_math(False)  # a dollar is a dollar


def _dress(axes: Axes, instance: Instance, reference: list[str]) -> None:
    """Add axis labels, the reference and the legend."""
    axes.set_ylim(len(instance.units) - 0.3, -0.7)
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
    axes.set_yticks([])
    label = f"time (s); the source ends at {instance.source_length / 1000:.2f} s\n" + "\n".join(reference)
    axes.set_xlabel(label, fontsize=8, loc="left", parse_math=False)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.figure.legend(loc="outside upper right", ncols=3, fontsize=8, frameon=False)
