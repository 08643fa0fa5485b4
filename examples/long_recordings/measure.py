"""Measure how a simultaneous model translates long recordings: pauses, no pauses, silence, noise, lost onsets.

The segments of a test set are translated one by one, then joined to recordings of several kinds, each by a long session
at the same k. Prints a table, a row for each kind; OmniSTEval (extra long-form) aligns words and segments. On silent
recordings words are counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Protocol

import numpy as np
from tqdm import tqdm

from examples.long_recordings.streams import Shape, join, white
from mla_fairseq.cli.options import Help, add_data, data_root, run_command
from mla_fairseq.data.mustc import Corpus
from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.long_form import score_recordings
from mla_fairseq.evaluation.segmentation import ReferenceSegment
from mla_fairseq.evaluation.simultaneous import score_instances
from mla_fairseq.files import write_json
from mla_fairseq.speech import SAMPLE_RATE, read_audio
from mla_fairseq.streaming import Emission, IncrementalSession, LongSession, Translator, WaitKPolicy
from mla_fairseq.streaming.detectors import DETECTORS

PIECE = 1920  # samples of a push: 120 ms
MS = 1000 / SAMPLE_RATE
LONG = (1.0, 3.0)  # pauses in seconds
WAV = "stream.wav"

LOST = {"first 30 ms cut off": 0.03, "first 60 ms cut off": 0.06}
STREAMS = {
    "pauses": Shape(),
    "no pauses": Shape(pause=(0, 0), trimmed=True),
    "pauses of 1 to 3 s, zeros": Shape(pause=LONG, floor=None),
    "pauses of 1 to 3 s, noise of -60 dB": Shape(pause=LONG, floor=-60),
    "pauses of 1 to 3 s, noise of -50 dB": Shape(pause=LONG, floor=-50),
    "pauses of 1 to 3 s, noise of -40 dB": Shape(pause=LONG, floor=-40),
    "noise of -60 dB under all": Shape(noise=-60),
    "noise of -50 dB under all": Shape(noise=-50),
    "noise of -40 dB under all": Shape(noise=-40),
    "no pauses, noise of -50 dB under all": Shape(pause=(0, 0), trimmed=True, noise=-50),
}
SILENT: dict[str, float | None] = {"only zeros": None, "only noise of -60 dB": -60, "only noise of -40 dB": -40}
KINDS = ("sentences", *LOST, *STREAMS, *SILENT)
_COLUMNS = {
    "bleu": ("BLEU", ".1f"),
    "chrf": ("chrF", ".1f"),
    "words": ("words", "d"),
    "expected": ("expected", "d"),
    "empty": ("empty", "d"),
    "first": ("first word", ".2f"),
    "last": ("last word", ".2f"),
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
    """What one kind of recording gave; ``None``: nothing to measure.

    Attributes:
        bleu, chrf: corpus scores, 0 to 100.
        words, expected: words written, and words of the references.
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


def translate(session: Listener, samples: np.ndarray, reference: str = "", index: int = 0) -> tuple[Instance, float]:
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
    instance = Instance(index, *times, " ".join(words), reference, len(reference.split()), length, (WAV,))
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


def of_stream(
    pieces: Sequence[np.ndarray], references: Sequence[str], begin: Callable[[], Listener], shape: Shape
) -> Row:
    """Return the row of segments (N,) that are joined to one recording."""
    samples, places = join(pieces, shape)
    instance, seconds = translate(begin(), samples)
    segments = [
        ReferenceSegment(WAV, start / SAMPLE_RATE, length / SAMPLE_RATE, text)
        for (start, length), text in zip(places, references, strict=True)
    ]
    scores, aligned = score_recordings([instance], segments, elapsed="clock")
    quality = {"bleu": scores.bleu, "chrf": scores.chrf, "empty": scores.empty}
    latency = {"yaal": scores.long_yaal, "yaal_ca": scores.long_yaal_ca}
    latency |= _ends([(one.delays, one.source_length) for one in aligned])
    return Row(scores.words, scores.reference_words, seconds / (len(samples) / SAMPLE_RATE), **quality, **latency)


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


def measure(args: argparse.Namespace) -> dict[str, Row]:
    """Return the row of each kind of recording."""
    translator = Translator.load(args.checkpoint, args.data_bin, args.config_yaml)
    segments = Corpus(data_root(args.data) / args.pair).read(args.split)[: args.limit]
    pieces = [read_audio(one.wav, one.start, one.length) for one in segments]
    references = [one.target for one in segments]

    def session() -> IncrementalSession:
        return IncrementalSession(translator, WaitKPolicy(args.waitk_lagging))

    def long() -> LongSession:
        return LongSession(session(), DETECTORS[args.detector]() if args.detector else None, longest=args.longest)

    def row(kind: str) -> Row:
        if kind in STREAMS:
            return of_stream(pieces, references, long, replace(STREAMS[kind], seed=args.seed))
        if kind in SILENT:
            return of_silence(args.silence, SILENT[kind], long)
        lost = round(LOST.get(kind, 0) * SAMPLE_RATE)
        return of_sentences([one[lost:] for one in pieces], references, session)

    return {kind: row(kind) for kind in tqdm(args.kinds or KINDS, desc="measure", unit="kind")}


def render(rows: Mapping[str, Row]) -> str:
    """Return a markdown table."""
    lines = [
        f"| speech | {' | '.join(name for name, _ in _COLUMNS.values())} |",
        "|---" + "|---:" * len(_COLUMNS) + "|",
    ]
    for kind, row in rows.items():
        values = [(getattr(row, key), form) for key, (_, form) in _COLUMNS.items()]
        cells = ["-" if value is None else format(value, form) for value, form in values]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    units = "first word: s after the start of a segment; last word: s after its end; YAAL: ms (_CA: with computing)"
    return "\n".join([*lines, "", f"{units}; CPU: s per s of audio"])


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m examples.long_recordings.measure``."""
    name = "python -m examples.long_recordings.measure"
    parser = argparse.ArgumentParser(name, description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("checkpoint", type=Path, help="wait-k model")
    add("--data-bin", type=Path, required=True, help="prepared folder of the model")
    add("--config-yaml", default="config_st.yaml", help="data configuration in it")
    add_data(parser)
    add("--pair", required=True, help="language pair (a folder of DATA), such as en-de")
    add("--split", default="tst-COMMON", help="split to translate")
    add("--limit", type=int, help="number of segments, from the first (default: all)")
    add("--waitk-lagging", type=int, default=5, metavar="K", help="lag of wait-k")
    add("--detector", choices=DETECTORS, help="what finds speech (default: the boundary output, else energy)")
    add("--longest", type=float, default=30.0, help="longest stretch, in s")
    add("--silence", type=float, default=60.0, help="minutes of the silent recordings")
    add("--kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"what to measure (default: all): {'; '.join(KINDS)}")
    add("--seed", type=int, default=1, help="seed of pauses and noise")
    add("--output", type=Path, help="JSON file for the rows")
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write.

    Raises:
        ValueError, OSError: files or flags are wrong.
    """
    rows = measure(args)
    print(render(rows))
    if args.output:
        write_json(args.output, {kind: asdict(row) for kind, row in rows.items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m examples.long_recordings.measure``."""
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
