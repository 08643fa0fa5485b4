"""Score translations of whole recordings: quality and latency by segment, which OmniSTEval finds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.offline import score
from mla_fairseq.evaluation.omnisteval import (
    LATENCIES,
    AlignedSegment,
    align,
    find_version,
    read_aligned,
    read_latencies,
)
from mla_fairseq.evaluation.segmentation import ReferenceSegment, by_recording
from mla_fairseq.evaluation.simultaneous import render_table

log = logging.getLogger(__name__)
ELAPSED = ("simuleval", "clock")
_COLUMNS = {
    "bleu": ("BLEU", ".2f"),
    "chrf": ("chrF", ".2f"),
    "long_yaal": ("LongYAAL", ".0f"),
    "long_laal": ("LongLAAL", ".0f"),
    "long_yaal_ca": ("LongYAAL_CA", ".0f"),
    "long_laal_ca": ("LongLAAL_CA", ".0f"),
    "segments": ("segments", "d"),
    "empty": ("empty", "d"),
    "words": ("words", "d"),
    "reference_words": ("expected", "d"),
}


@dataclass(frozen=True)
class LongFormScores:
    """Scores of a test set of whole recordings.

    A latency is in ms, and ``None`` if it was not measured, or if one of the latencies is negative: words that come
    before the speech they are aligned with show a system that went silent, not a fast one.

    Attributes:
        recordings, segments: their numbers.
        empty: number of segments without a word.
        words, reference_words: words emitted, and words of the references, in units.
        bleu, chrf: corpus scores, 0 to 100.
        long_yaal, long_laal: latencies; ``_ca``: computation-aware.
        bleu_signature, chrf_signature, latency_signature: how the scores were computed.
    """

    recordings: int
    segments: int
    empty: int
    words: int
    reference_words: int
    bleu: float
    chrf: float
    long_yaal: float | None
    long_laal: float | None
    long_yaal_ca: float | None
    long_laal_ca: float | None
    bleu_signature: str
    chrf_signature: str
    latency_signature: str


def score_recordings(
    instances: Sequence[Instance],
    segments: Sequence[ReferenceSegment],
    tokenize: str = "13a",
    lowercase: bool = False,
    unit: str = "word",
    elapsed: str = "simuleval",
) -> tuple[LongFormScores, list[AlignedSegment]]:
    """Return the scores of a log, and its words by segment.

    Args:
        instances: the lines of the log, one for each recording.
        segments: all segments of the recordings, from ``read_segmentation``.
        tokenize: sacrebleu's tokeniser for BLEU.
        lowercase: ignore case in BLEU and chrF.
        unit: the unit of a delay: ``word`` or ``char``.
        elapsed: ``simuleval``: the elapsed times of the log are SimulEval's, see ``on_a_clock``; ``clock``: the times
            when words really appeared.

    Raises:
        ValueError: log and segments do not fit each other, or OmniSTEval fails.
        UserError: OmniSTEval is not installed, or too old.
    """
    version = find_version()
    found = by_recording(instances, segments)
    if elapsed == "simuleval":
        found = {wav: on_a_clock(one) for wav, one in found.items()}
    with TemporaryDirectory() as folder:
        align(Path(folder), found, segments, unit)
        aligned = read_aligned(Path(folder), segments, unit)
        latencies = read_latencies(Path(folder))
    quality = score([one.prediction for one in aligned], [one.reference for one in aligned], tokenize, lowercase)
    empty = sum(not one.prediction.strip() for one in aligned)
    scores = LongFormScores(
        recordings=len(found),
        segments=len(aligned),
        empty=empty,
        words=sum(len(one.units) for one in found.values()),
        reference_words=sum(one.reference_length for one in aligned),
        bleu=quality.bleu,
        chrf=quality.chrf,
        **_without_negative(latencies, f"{empty} of {len(aligned)} segments are empty"),
        bleu_signature=quality.bleu_signature,
        chrf_signature=quality.chrf_signature,
        latency_signature=f"unit:{unit}|elapsed:clock|like:OmniSTEval-{version}",
    )
    return scores, aligned


def on_a_clock(instance: Instance) -> Instance:
    """Return a line of SimulEval's log with the times at which its words appeared as ``elapsed``.

    SimulEval adds all computing since the start of a recording to the audio that was read, as if nothing were computed
    while the next audio arrives. A clock waits for audio, then computes. The log does not tell when between two words
    something was computed; it is taken as computed last, so these times are upper limits.
    """
    clock, spent, times = 0.0, 0.0, []
    for delay, elapsed in zip(instance.delays, instance.elapsed, strict=bool(instance.elapsed)):
        computing = max(0.0, elapsed - delay - spent)  # below 0: the system's time was set back
        clock, spent = max(clock, delay) + computing, elapsed - delay
        times.append(clock)
    return replace(instance, elapsed=tuple(times))


def render(scores: Mapping[str, LongFormScores]) -> str:
    """Return a markdown table with a row for each named log, followed by units and signatures."""
    return render_table(
        scores, _COLUMNS, "LongYAAL, LongLAAL: in ms; _CA: computation-aware; -: not measured or refused"
    )


def _without_negative(latencies: dict[str, float | None], silence: str) -> dict[str, float | None]:
    """Return the latencies, or none of them if one is negative; ``silence`` is part of the warning."""
    for key, value in latencies.items():
        if value is not None and value < 0:
            log.warning(
                "%s is negative (%.0f ms) and no latency is reported: words were emitted before the speech they "
                "are aligned with, as after a system went silent (%s)",
                LATENCIES[key],
                value,
                silence,
            )
            return dict.fromkeys(latencies)
    return latencies
