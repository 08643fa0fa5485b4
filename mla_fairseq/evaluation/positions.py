"""Draw quality and latency along recordings: a system that gets worse with time shows it here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from mla_fairseq.evaluation.latency import length_adaptive_average_lagging
from mla_fairseq.evaluation.offline import score
from mla_fairseq.evaluation.omnisteval import AlignedSegment
from mla_fairseq.evaluation.pictures import COLOURS, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPANS = 10


def draw_positions(logs: Mapping[str, Sequence[AlignedSegment]], stem: str | Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``, a line for each named log; return their paths.

    Above: chrF; below: LongLAAL. Each point takes the segments that begin in one tenth of the longest recording; those
    of several recordings go together. A tenth without words, or with a negative latency, has no point below.

    Raises:
        ValueError: no segment.
    """
    if not any(logs.values()):
        raise ValueError("no segment to draw: give at least one")
    figure = new_figure(7, 5)
    above, below = figure.subplots(2, sharex=True)
    longest = max(segment.offset for segments in logs.values() for segment in segments)
    for number, (name, segments) in enumerate(logs.items()):
        spans = dict(_spans(segments, longest))
        style = {"color": COLOURS[number % len(COLOURS)], "marker": "o", "markersize": 4, "label": name}
        above.plot(spans.keys(), [_chrf(span) for span in spans.values()], **style)
        measured = {minute: mean_laal(span) for minute, span in spans.items() if any(one.delays for one in span)}
        latencies = {minute: latency for minute, latency in measured.items() if latency >= 0}
        below.plot(latencies.keys(), latencies.values(), **style)
    _dress(above, "chrF")
    _dress(below, "LongLAAL (ms)")
    below.set_xlabel("position in the recording (minutes)")
    for text in above.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
    return save(figure, stem)


def mean_laal(segments: Sequence[AlignedSegment]) -> float:
    """Return the mean LAAL in ms of the segments that have words, which OmniSTEval calls LongLAAL."""
    return fmean(
        length_adaptive_average_lagging(one.delays, one.source_length, max(1, one.reference_length))
        for one in segments
        if one.delays
    )


def _spans(segments: Sequence[AlignedSegment], longest: float) -> Iterator[tuple[float, list[AlignedSegment]]]:
    """Yield the middle of each tenth that has segments, in minutes, and the segments."""
    width = max(longest / _SPANS, 1e-9)
    for span in range(_SPANS):
        inside = [one for one in segments if min(int(one.offset / width), _SPANS - 1) == span]
        if inside:
            yield (span + 0.5) * width / 60, inside


def _chrf(segments: Sequence[AlignedSegment]) -> float:
    return score([one.prediction for one in segments], [one.reference for one in segments]).chrf


def _dress(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])  # markers at the top are whole
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
