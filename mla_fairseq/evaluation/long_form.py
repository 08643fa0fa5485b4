"""Score translations of whole recordings: the program OmniSTEval aligns their words with reference segments.

OmniSTEval (Polák et al. 2025, arXiv 2509.17349) also computes the latencies. Its alignment is quadratic in the words of
a recording: 10 minutes take about 10 s of CPU and 0.2 GB, an hour some minutes and 4 GB.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mla_fairseq.errors import UserError, install, needs
from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.offline import score
from mla_fairseq.evaluation.segmentation import ReferenceSegment, by_recording
from mla_fairseq.evaluation.simultaneous import render_table
from mla_fairseq.files import read_tsv, write_json, write_text
from mla_fairseq.processes import ending_with

log = logging.getLogger(__name__)
EXTRA = "long-form"
ELAPSED = ("simuleval", "clock")
_OLDEST = (0, 1, 10)  # older versions compute other latencies
_LATENCIES = {
    f"long_{name}{tail}": f"Long{name.upper()} ({aware})"
    for tail, aware in (("", "CU"), ("_ca", "CA"))
    for name in ("yaal", "laal")
}
"""Names of the latencies here and in OmniSTEval."""
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
        words, reference_words: words written, and words of the references, in units.
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


@dataclass(frozen=True)
class AlignedSegment:
    """The words that belong to a reference segment.

    Attributes:
        offset: start of the segment in its recording, in seconds.
        source_length: its length in ms.
        prediction, reference: the words written, and those expected.
        reference_length: units of the reference.
        delays: for each unit of the prediction, ms from the start of the segment; negative before it.
    """

    offset: float
    source_length: float
    prediction: str
    reference: str
    reference_length: int
    delays: tuple[float, ...]


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
    version = _version()
    found = by_recording(instances, segments)
    if elapsed == "simuleval":
        found = {wav: on_a_clock(one) for wav, one in found.items()}
    with TemporaryDirectory() as folder:
        _run(Path(folder), found, segments, unit)
        aligned = _read_aligned(Path(folder), segments, unit)
        latencies = _read_latencies(Path(folder))
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
    while the next audio arrives. After ten minutes that is off by minutes. A clock waits for audio, then computes.
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


def _version() -> str:
    """Return the version of OmniSTEval.

    Raises:
        UserError: it is not installed, or too old.
    """
    with needs(EXTRA):
        version = metadata.version("omnisteval")
    if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < _OLDEST:
        raise UserError(f"OmniSTEval is too old ({version}): {install(EXTRA)}")
    return version


def _run(folder: Path, found: Mapping[str, Instance], segments: Sequence[ReferenceSegment], unit: str) -> None:
    """Let OmniSTEval align and measure; it writes to ``folder``."""
    timed = all(one.elapsed for one in found.values() if one.units)  # it wants all of them or none
    lines = [json.dumps(_line(wav, one, unit, timed), ensure_ascii=False) for wav, one in found.items()]
    places = [{"wav": one.wav, "offset": one.offset, "duration": one.duration} for one in segments]
    write_text(folder / "log", "\n".join(lines) + "\n")
    write_json(folder / "places.json", places)
    write_text(folder / "references", "".join(f"{one.reference}\n" for one in segments))
    files = ("--hypothesis_file", "log", "--speech_segmentation", "places.json", "--ref_sentences_file", "references")
    command = [Path(sys.executable).with_name("omnisteval"), "longform", *files, f"--{unit}_level", "--no_quality"]
    # stopped with this process, because it may take minutes
    end = ending_with(os.getpid())
    done = subprocess.run(
        [*map(str, command), "--output_folder", "."], cwd=folder, capture_output=True, text=True, preexec_fn=end
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"omnisteval cannot score it ({reason}): check log and segmentation")


def _line(wav: str, instance: Instance, unit: str, timed: bool) -> dict[str, Any]:
    """Return the line of a recording as OmniSTEval counts its units."""
    line = {
        "source": [wav],
        "prediction": (" " if unit == "word" else "").join(instance.units),
        "delays": instance.delays,
        "source_length": instance.source_length,
    }
    return {**line, "elapsed": instance.elapsed} if timed else line


def _read_aligned(folder: Path, segments: Sequence[ReferenceSegment], unit: str) -> list[AlignedSegment]:
    """Return the words of each segment."""
    lines = map(json.loads, (folder / "instances.resegmented.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        AlignedSegment(
            segment.offset,
            segment.duration * 1000,
            line["prediction"],
            line["reference"],
            _length(line["reference"], unit),
            tuple(line.get("emission_cu", ())),
        )
        for segment, line in zip(segments, lines, strict=True)
    ]


def _read_latencies(folder: Path) -> dict[str, float | None]:
    """Return the latencies that OmniSTEval could compute."""
    table = {row["metric"]: float(row["value"]) for row in read_tsv(folder / "scores.tsv")}
    values = {key: table.get(name, math.nan) for key, name in _LATENCIES.items()}
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def _without_negative(latencies: dict[str, float | None], silence: str) -> dict[str, float | None]:
    """Return the latencies, or none of them if one is negative; ``silence`` is part of the warning."""
    for key, value in latencies.items():
        if value is not None and value < 0:
            log.warning(
                "%s is negative (%.0f ms) and no latency is reported: words were written before the speech that they "
                "are aligned with, as after a system went silent (%s)",
                _LATENCIES[key],
                value,
                silence,
            )
            return dict.fromkeys(latencies)
    return latencies


def _length(reference: str, unit: str) -> int:
    """Return the number of units of a reference."""
    return len(reference.split()) if unit == "word" else len("".join(reference.split()))
