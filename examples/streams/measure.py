"""Measure how a simultaneous model translates long recordings: pauses, no pauses, silence, noise, lost onsets.

The segments of a test set are translated one by one, then as recordings of several kinds, each by a long session at the
same k. Prints a table; OmniSTEval (extra long-form) aligns the words with the segments. The silent rows count words.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from examples.streams.streams import Shape, join, trim, white
from mla_fairseq.cli.options import Help, add_data, data_root, run_command
from mla_fairseq.data.mustc import Corpus
from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.long_form import score_recordings
from mla_fairseq.evaluation.offline import score
from mla_fairseq.evaluation.segmentation import ReferenceSegment
from mla_fairseq.files import write_json
from mla_fairseq.speech import SAMPLE_RATE, read_audio
from mla_fairseq.streaming import IncrementalSession, LongSession, SileroDetector, Translator, WaitKPolicy
from mla_fairseq.streaming.detectors import Detector, EnergyDetector

PIECE = 1920  # samples of a push: 120 ms
SHORT, LONG = (0.12, 0.36), (1.0, 3.0)  # pauses in seconds
LOST = {"30 ms of onset lost": 0.03, "60 ms of onset lost": 0.06}
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
DETECTORS: dict[str, Callable[[], Detector]] = {"energy": EnergyDetector, "silero": SileroDetector}


@dataclass(frozen=True)
class Row:
    """Scores of one kind of recording. Times are means in seconds, ``None`` if nothing was written.

    Attributes:
        words, expected: words written, and words of the references.
        empty: segments without a word.
        first: from the start of a segment to its first word.
        last: from the end of a segment to its last word; below 0 before it.
        cost: CPU seconds per second of audio.
    """

    bleu: float
    chrf: float
    words: int
    expected: int
    empty: int
    first: float | None
    last: float | None
    cost: float


Begin = Callable[[], IncrementalSession | LongSession]


@dataclass(frozen=True)
class Words:
    """Words of a recording, the ms of audio that had arrived with each, and the CPU seconds that they took."""

    words: tuple[str, ...]
    times: tuple[float, ...]
    seconds: float


def translate(session: IncrementalSession | LongSession, samples: np.ndarray) -> Words:
    """Return the words of samples (N,), which arrive in pieces of 120 ms."""
    begin, words, times = time.process_time(), [], []
    for start in range(0, len(samples), PIECE):
        stop = min(start + PIECE, len(samples))
        new = [word for one in session.push(samples[start:stop], stop == len(samples)) for word in one.text.split()]
        words += new
        times += [1000 * stop / SAMPLE_RATE] * len(new)
    return Words(tuple(words), tuple(times), time.process_time() - begin)


def of_sentences(pieces: Sequence[np.ndarray], references: Sequence[str], begin: Begin) -> Row:
    """Return the scores of segments that are translated one by one."""
    found = [translate(begin(), piece) for piece in tqdm(pieces, desc="sentences", leave=False)]
    lengths = [1000 * len(piece) / SAMPLE_RATE for piece in pieces]
    return _row([" ".join(one.words) for one in found], [one.times for one in found], lengths, references, found)


def of_stream(pieces: Sequence[np.ndarray], references: Sequence[str], begin: Begin, shape: Shape) -> Row:
    """Return the scores of segments that are joined to one recording."""
    samples, places = join(pieces, shape)
    found, length = translate(begin(), samples), 1000 * len(samples) / SAMPLE_RATE
    instance = Instance(0, found.words, found.times, (), " ".join(found.words), "", 0, length, ("stream.wav",))
    segments = [
        ReferenceSegment("stream.wav", start / SAMPLE_RATE, size / SAMPLE_RATE, text)
        for (start, size), text in zip(places, references, strict=True)
    ]
    _, aligned = score_recordings([instance], segments)
    lengths = [one.source_length for one in aligned]
    return _row([one.prediction for one in aligned], [one.delays for one in aligned], lengths, references, [found])


def _row(
    texts: Sequence[str],
    times: Sequence[Sequence[float]],
    lengths: Sequence[float],
    references: Sequence[str],
    found: Sequence[Words],
) -> Row:
    """Return the scores of texts whose words have these times, in ms from the start of their segment."""
    quality = score(list(texts), list(references))
    spoken = [(one, length) for one, length in zip(times, lengths, strict=True) if one]
    return Row(
        bleu=quality.bleu,
        chrf=quality.chrf,
        words=sum(len(one.words) for one in found),
        expected=sum(len(one.split()) for one in references),
        empty=sum(not text.strip() for text in texts),
        first=fmean(one[0] for one, _ in spoken) / 1000 if spoken else None,
        last=fmean(one[-1] - length for one, length in spoken) / 1000 if spoken else None,
        cost=sum(one.seconds for one in found) / (sum(lengths) / 1000),
    )


def rows(args: argparse.Namespace) -> dict[str, Row]:
    """Return the row of each kind of recording that ``--only`` selects."""
    translator = Translator.load(args.checkpoint, args.data_bin)
    segments = Corpus(data_root(args.data) / args.pair).read(args.split)[: args.limit]
    pieces = [read_audio(one.wav, one.start, one.length) for one in segments]
    references = [one.target for one in segments]

    def session() -> IncrementalSession:
        return IncrementalSession(translator, WaitKPolicy(args.k))

    def long() -> LongSession:
        return LongSession(session(), DETECTORS[args.detector]() if args.detector else None, longest=args.longest)

    jobs: dict[str, Callable[[], Row]] = {"sentences": lambda: of_sentences(pieces, references, session)}
    for name, lost in LOST.items():
        cut = [trim(piece)[round(lost * SAMPLE_RATE) :] for piece in pieces]
        jobs[name] = lambda cut=cut: of_sentences(cut, references, session)
    for name, shape in STREAMS.items():
        jobs[name] = lambda shape=shape: of_stream(pieces, references, long, replace(shape, seed=args.seed))
    for name, level in SILENT.items():
        jobs[name] = lambda level=level: of_silence(args.silence, level, long)
    chosen = [name for name in jobs if not args.only or name in args.only]
    return {name: jobs[name]() for name in tqdm(chosen, desc="rows", unit="row")}


def of_silence(minutes: float, level: float | None, begin: Begin) -> Row:
    """Return the number of words that are written on minutes of silence or noise."""
    found = translate(begin(), white(round(minutes * 60 * SAMPLE_RATE), level, np.random.default_rng(1)))
    return Row(0.0, 0.0, len(found.words), 0, 0, None, None, found.seconds / (minutes * 60))


def render(found: Mapping[str, Row]) -> str:
    """Return a markdown table."""
    lines = [
        "| speech | BLEU | chrF | words / expected | empty | first word (s) | last word (s) | CPU s per s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in found.items():
        quality = f"{row.bleu:.1f} | {row.chrf:.1f}" if row.expected else "- | -"
        times = " | ".join("-" if one is None else f"{one:.2f}" for one in (row.first, row.last))
        lines.append(f"| {name} | {quality} | {row.words} / {row.expected} | {row.empty} | {times} | {row.cost:.3f} |")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m examples.streams.measure``."""
    parser = argparse.ArgumentParser("python -m examples.streams.measure", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("checkpoint", type=Path, help="wait-k model")
    add("--data-bin", type=Path, required=True, help="prepared folder of the model")
    add_data(parser)
    add("--pair", required=True, help="language pair (a folder of DATA), such as en-de")
    add("--split", default="tst-COMMON", help="split to translate")
    add("--limit", type=int, help="number of segments, from the first (default: all)")
    add("--k", type=int, default=5, help="lag of wait-k")
    add("--detector", choices=DETECTORS, help="what finds speech (default: the boundary output, or energy without one)")
    add("--longest", type=float, default=30.0, help="longest stretch, in s")
    add("--silence", type=float, default=60.0, help="minutes of the silent recordings")
    kinds = ["sentences", *LOST, *STREAMS, *SILENT]
    add("--only", nargs="+", choices=kinds, metavar="KIND", help=f"rows to measure, of: {'; '.join(kinds)}")
    add("--seed", type=int, default=1, help="seed of pauses and noise")
    add("--output", type=Path, help="JSON file for the rows")
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write.

    Raises:
        ValueError, OSError: files or flags are wrong.
    """
    found = rows(args)
    print(render(found))
    if args.output:
        write_json(args.output, {name: asdict(row) for name, row in found.items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m examples.streams.measure``."""
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
