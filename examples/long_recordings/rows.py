"""Translate test sets one by one and joined to long recordings, and score both: a row of a table for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Protocol

import numpy as np

from examples.long_recordings.streams import Shape, file_name, join, recordings, white
from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.long_form import LongFormScores, score_recordings
from mla_fairseq.evaluation.offline import score
from mla_fairseq.evaluation.omnisteval import AlignedSegment
from mla_fairseq.evaluation.segmentation import ReferenceSegment
from mla_fairseq.evaluation.simultaneous import score_instances, table_lines
from mla_fairseq.speech import SAMPLE_RATE
from mla_fairseq.streaming import Emission

PIECE = 1920  # samples of a push: 120 ms
MS = 1000 / SAMPLE_RATE
_COLUMNS = {
    "bleu": ("BLEU", ".1f"),
    "chrf": ("chrF", ".1f"),
    "words": ("words", "d"),
    "expected": ("expected", "d"),
    "empty": ("empty", "d"),
    "first": ("first word", ".2f"),
    "last": ("last word", "z.2f"),  # 0.00, not -0.00
    "yaal": ("YAAL", ".0f"),
    "yaal_ca": ("YAAL_CA", ".0f"),
    "cost": ("CPU", ".3f"),
}


class Listener(Protocol):
    """A session, long or not."""

    def push(self, samples: np.ndarray, final: bool) -> list[Emission]:
        """Return the words that the next samples (N,) make final."""


@dataclass(frozen=True)
class Row:
    """What one kind of recording gave; ``None``: not measured.

    Attributes:
        bleu, chrf: corpus scores, 0 to 100.
        words, expected: words emitted, and words of the references.
        empty: segments without a word.
        first: mean time from the start of a segment to its first word, in s of audio.
        last: the same from its end to its last word; below 0 before it.
        yaal, yaal_ca: latency in ms without and with computing (LongYAAL in a long recording).
        cost: CPU seconds per second of audio.
    """

    words: int
    expected: int
    cost: float
    bleu: float | None = None
    chrf: float | None = None
    empty: int | None = None
    first: float | None = None
    last: float | None = None
    yaal: float | None = None
    yaal_ca: float | None = None


def translate(
    session: Listener, samples: np.ndarray, reference: str = "", index: int = 0, name: str = ""
) -> tuple[Instance, float]:
    """Return the words of samples (N,), which arrive in pieces of 120 ms, and the CPU seconds that they took."""
    words, delays, elapsed, clock, cpu = [], [], [], 0.0, time.process_time()
    edges = [*range(0, len(samples), PIECE), len(samples)]
    for start, stop in pairwise(edges):
        begin = time.perf_counter()
        emissions = session.push(samples[start:stop], stop == len(samples))
        clock = max(clock, stop * MS) + 1000 * (time.perf_counter() - begin)
        new = [word for emission in emissions for word in emission.text.split()]
        words += new
        delays += [stop * MS] * len(new)
        elapsed += [clock] * len(new)
    times, length = (tuple(words), tuple(delays), tuple(elapsed)), len(samples) * MS
    instance = Instance(index, *times, " ".join(words), reference, len(reference.split()), length, (name,))
    return instance, time.process_time() - cpu


def of_sentences(pieces: Sequence[np.ndarray], references: Sequence[str], begin: Callable[[], Listener]) -> Row:
    """Return the row of segments (N,) that are translated one by one."""
    pairs = enumerate(zip(pieces, references, strict=True))
    done = [translate(begin(), piece, text, number) for number, (piece, text) in pairs]
    found, seconds = [one for one, _ in done], sum(cpu for _, cpu in done)
    scores = score_instances(found)
    places = [(one.delays, one.source_length) for one in found]
    cost = seconds / (sum(one.source_length for one in found) / 1000)
    quality = {"bleu": scores.bleu, "chrf": scores.chrf, "empty": scores.empty}
    latency = {"yaal": scores.yaal, "yaal_ca": scores.yaal_ca, **_ends(places)}
    return Row(sum(len(one.units) for one in found), _words(references), cost, **quality, **latency)


@dataclass(frozen=True)
class Recording:
    """The translation of segments that were joined: all scores, words by segment, and CPU seconds per second."""

    scores: LongFormScores
    aligned: list[AlignedSegment]
    cost: float


def translate_joined(
    pieces: Sequence[np.ndarray], references: Sequence[str], begin: Callable[[], Listener], shape: Shape
) -> Recording:
    """Join segments (N,) to recordings, and return their translation."""
    instances, segments, cpu = [], [], 0.0
    for number, part in enumerate(recordings([len(piece) for piece in pieces], shape.minutes)):
        samples, places = join(pieces[part], shape, name := file_name(number))
        instance, seconds = translate(begin(), samples, index=number, name=name)
        instances.append(instance)
        cpu += seconds
        segments += [
            ReferenceSegment(name, start / SAMPLE_RATE, length / SAMPLE_RATE, text)
            for (start, length), text in zip(places, references[part], strict=True)
        ]
    length = sum(one.source_length for one in instances) / 1000
    return Recording(*score_recordings(instances, segments, elapsed="clock"), cpu / length)


def of_stream(
    pieces: Sequence[np.ndarray], references: Sequence[str], begin: Callable[[], Listener], shape: Shape
) -> Row:
    """Return the row of segments (N,) that are joined to recordings."""
    made = translate_joined(pieces, references, begin, shape)
    scores = made.scores
    quality = {"bleu": scores.bleu, "chrf": scores.chrf, "empty": scores.empty}
    latency = {"yaal": scores.long_yaal, "yaal_ca": scores.long_yaal_ca}
    latency |= _ends([(one.delays, one.source_length) for one in made.aligned])
    return Row(scores.words, scores.reference_words, made.cost, **quality, **latency)


def of_drift(
    pieces: Sequence[np.ndarray],
    references: Sequence[str],
    begin: Callable[[], Listener],
    shape: Shape,
    minutes: float = 30.0,
    compared: float = 5.0,
) -> dict[str, Row]:
    """Return the rows of the first and the last minutes of a long recording; both have the same segments (N,)."""

    def draw(length: float, order: Iterator[int]) -> list[int]:
        drawn: list[int] = []
        while sum(len(pieces[index]) for index in drawn) < length * 60 * SAMPLE_RATE:
            drawn.append(next(order))
        return drawn

    order = _repeated(len(pieces), Random(shape.seed))
    ends = draw(compared, order)
    drawn = ends + draw(minutes - 2 * compared, order) + ends
    made = translate_joined([pieces[one] for one in drawn], [references[one] for one in drawn], begin, shape)
    first, last = made.aligned[: len(ends)], made.aligned[-len(ends) :]
    length = last[-1].offset / 60
    return {f"{name} {compared:g} of {length:.0f} minutes": _of_part(part, made.cost)
            for name, part in (("first", first), ("last", last))}  # fmt: skip


def _repeated(count: int, random: Random) -> Iterator[int]:
    """Yield the numbers below ``count`` again and again, each time in another order."""
    while True:
        yield from random.sample(range(count), count)


def _of_part(aligned: Sequence[AlignedSegment], cost: float) -> Row:
    """Return the row of some segments of a recording."""
    quality = score([one.prediction for one in aligned], [one.reference for one in aligned])
    empty = sum(not one.prediction.strip() for one in aligned)
    words, expected = sum(len(one.delays) for one in aligned), _words([one.reference for one in aligned])
    ends = _ends([(one.delays, one.source_length) for one in aligned])
    return Row(words, expected, cost, quality.bleu, quality.chrf, empty, **ends)


def of_silence(minutes: float, level: float | None, begin: Callable[[], Listener]) -> Row:
    """Return the row of minutes of digital silence, or of noise of a level in dB."""
    seconds = minutes * 60
    instance, cpu = translate(begin(), white(round(seconds * SAMPLE_RATE), level, np.random.default_rng(1)))
    return Row(len(instance.units), 0, cpu / seconds)


def _ends(places: Sequence[tuple[Sequence[float], float]]) -> dict[str, float]:
    """Return the mean times of first and last words, from (times of the words, length of the segment) in ms."""
    spoken = [(times, length) for times, length in places if times]
    if not spoken:
        return {}
    first, last = [times[0] for times, _ in spoken], [times[-1] - length for times, length in spoken]
    return {"first": fmean(first) / 1000, "last": fmean(last) / 1000}


def _words(references: Sequence[str]) -> int:
    return sum(len(text.split()) for text in references)


def render(rows: Mapping[str, Row]) -> str:
    """Return a markdown table."""
    units = "first word: s after the start of a segment; last word: s after its end; YAAL: ms (_CA: with computing)"
    return "\n".join([*table_lines(rows, _COLUMNS, "speech"), "", f"{units}; CPU: s per s of audio"])
