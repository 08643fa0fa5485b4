"""The read/write picture of one sentence: time runs along the source, each word stands where it was written."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.latency import length_adaptive_average_lagging
from mla_fairseq.evaluation.pictures import COLOURS, new_figure, save

MAX_WORDS = 1000
_WIDTH, _ROW, _WAVE, _MARGIN = 9.0, 0.2, 0.8, 1.5
"""Inches: the picture's width, a word's row, the waveform, and all that surrounds them."""
_WORD, _CLOCK, _FAINT = COLOURS[0], "#b08d57", "#9aa5b1"
_FONT = 9
_GAP = 6
"""Points between a word and its dot."""
_LETTERS = 60
"""A model that stutters writes words longer than the picture is wide: they are cut."""
_WORST_MISMATCH_MS = 100


@dataclass(frozen=True)
class Waveform:
    """The audio of the sentence: ``samples`` (frames,) in [-1, 1]."""

    samples: np.ndarray
    sample_rate: int


def draw_timeline(
    instance: Instance, stem: str | Path, waveform: Waveform | None = None, title: str = ""
) -> list[Path]:
    """Writes ``stem.png`` and ``stem.svg``.

    Each word has a row, so that none covers another, however long the sentence.  Its dot stands at its delay; where
    computing took visible time, a faint bar runs from there to the moment at which the word really appeared.  The grey
    stairs are the reads (across) and writes (down); the dotted line is the ideal writer of LAAL, and LAAL the mean
    distance of the dots to it, up to the first word that saw the whole source.

    Args:
        instance: the sentence.
        stem: path of the pictures without their suffix.
        waveform: drawn above.
        title: instead of the sentence's number and latency.

    Raises:
        ValueError: no word was written, or more than ``MAX_WORDS``, or the waveform is not that of the sentence.
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
    words = len(instance.units)
    if not 0 < words <= MAX_WORDS:
        raise ValueError(
            f"sentence {instance.index} has {words} words; a timeline shows 1 to {MAX_WORDS}, so choose another."
        )
    if waveform is None:
        return
    length = 1000 * len(waveform.samples) / waveform.sample_rate
    if abs(length - instance.source_length) > _WORST_MISMATCH_MS:
        raise ValueError(
            f"the audio of sentence {instance.index} is {length:.0f} ms long, but the log says "
            f"{instance.source_length:.0f} ms: it is another file; draw without it."
        )


def _title(instance: Instance) -> str:
    laal = length_adaptive_average_lagging(instance.delays, instance.source_length, instance.reference_length)
    return f"sentence {instance.index}, LAAL {laal / 1000:.2f} s"


def _draw_waveform(axes, waveform: Waveform, bins: int = 600) -> None:
    """The envelope: the lowest and highest sample of each bin."""
    parts = np.array_split(np.asarray(waveform.samples, dtype=float), min(bins, len(waveform.samples)))
    ends = np.cumsum([len(part) for part in parts]) / waveform.sample_rate
    low, high = [part.min() for part in parts], [part.max() for part in parts]
    axes.fill_between(ends, low, high, color=_FAINT, linewidth=0.4, step="pre")
    axes.set_axis_off()


def _draw_reading(axes, instance: Instance) -> None:
    """Reads and writes as stairs, the ideal as a diagonal, and where the source ends."""
    rows, end = np.arange(len(instance.units)), instance.source_length / 1000
    delays = np.array(instance.delays) / 1000
    across = np.concatenate([[0.0], np.repeat(delays, 2)[:-1], delays[-1:]])
    down = np.concatenate([[-0.5, -0.5], np.repeat(rows[:-1] + 0.5, 2), [rows[-1] + 0.5]])
    axes.plot(across, down, color=_FAINT, linewidth=1, alpha=0.6, zorder=1)
    step = end / max(len(rows), instance.reference_length)
    axes.plot(rows * step, rows, color="black", linewidth=1, linestyle=":", zorder=1, label="ideal (LAAL's diagonal)")
    axes.axvline(end, color="black", linewidth=0.8, alpha=0.5, zorder=1)


def _draw_clock(axes, instance: Instance) -> None:
    """A faint bar from each delay to the computation-aware time."""
    if not instance.elapsed or np.allclose(instance.elapsed, instance.delays, rtol=0, atol=1):
        return
    rows = np.arange(len(instance.units)) + 0.34
    starts, ends = np.array(instance.delays) / 1000, np.array(instance.elapsed) / 1000
    axes.hlines(rows, starts, ends, color=_CLOCK, linewidth=1.6, alpha=0.55, zorder=2, label="time for computing it")
    axes.plot(ends, rows, "|", color=_CLOCK, markersize=4, alpha=0.8, zorder=2)


def _draw_words(axes, instance: Instance) -> None:
    """Dots and words; the layout leaves room for those that reach beyond the end of the axis."""
    delays = np.array(instance.delays) / 1000
    axes.plot(delays, np.arange(len(delays)), "o", color=_WORD, markersize=4, zorder=3, label="word, at its delay")
    look = {"textcoords": "offset points", "va": "center", "fontsize": _FONT, "parse_math": False}
    for row, (word, delay) in enumerate(zip(instance.units, delays, strict=True)):
        axes.annotate(word if len(word) <= _LETTERS else f"{word[:_LETTERS]}…", (delay, row), (_GAP, 0), **look)


def _dress(axes, instance: Instance, reference: list[str]) -> None:
    axes.set_ylim(len(instance.units) - 0.3, -0.7)
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
    axes.set_yticks([])
    label = f"seconds; the source ends at {instance.source_length / 1000:.2f} s\n" + "\n".join(reference)
    axes.set_xlabel(label, fontsize=8, loc="left", parse_math=False)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.figure.legend(loc="outside upper right", ncols=3, fontsize=8, frameon=False)
