"""Measure how a simultaneous model translates long recordings: pauses, no pauses, silence, noise, lost onsets.

The segments of a test set are translated one by one, then joined to recordings of several kinds, each by a long session
at the same k. Prints a table, a row for each kind; OmniSTEval (extra long-form) aligns words and segments. On silent
recordings words are counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from examples.long_recordings.rows import Row, of_drift, of_sentences, of_silence, of_stream, render
from examples.long_recordings.streams import Shape
from mla_fairseq.cli.options import Help, add_data, at_least, open_pair, run_command
from mla_fairseq.data.extraction import num_workers, parallel_map
from mla_fairseq.files import write_json
from mla_fairseq.speech import SAMPLE_RATE, read_segment
from mla_fairseq.streaming import IncrementalSession, LongSession, Translator, WaitKPolicy
from mla_fairseq.streaming.detectors import DETECTORS

LONG = (1.0, 3.0)  # pauses in seconds

LOST = {"first 30 ms cut off": 0.03, "first 60 ms cut off": 0.06}
STREAMS = {
    "pauses": Shape(),
    "pauses, energy detector": Shape(),
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
DETECTED = {"pauses, energy detector": "energy"}
DRIFT = "30 minutes"
KINDS = ("sentences", *LOST, *STREAMS, DRIFT, *SILENT)


def measure(args: argparse.Namespace) -> dict[str, Row]:
    """Return the row of each kind of recording."""
    kinds = args.kinds or KINDS
    rows = parallel_map(partial(measure_kind, args), kinds, min(args.workers, len(kinds)))
    return {
        name: row for part in tqdm(rows, total=len(kinds), desc="measure", unit="kind") for name, row in part.items()
    }


def measure_kind(args: argparse.Namespace, kind: str) -> dict[str, Row]:
    """Return the rows of one kind of recording."""
    torch.set_num_threads(1)  # one core for a recording: pushes are small
    translator = Translator.load(args.checkpoint, args.data_bin, args.config_yaml)
    segments = open_pair(args, args.pair).read(args.split)[: args.limit]
    pieces = [read_segment(one.wav, one.start, one.length) for one in segments]
    references = [one.target for one in segments]
    detector = DETECTED.get(kind, args.detector)

    def session() -> IncrementalSession:
        return IncrementalSession(translator, WaitKPolicy(args.waitk_lagging))

    def long() -> LongSession:
        return LongSession(session(), DETECTORS[detector]() if detector else None, longest=args.longest)

    if kind == DRIFT:
        return of_drift(pieces, references, long, Shape(seed=args.seed))
    if kind in STREAMS:
        shape = replace(STREAMS[kind], minutes=args.minutes, seed=args.seed)
        return {kind: of_stream(pieces, references, long, shape)}
    if kind in SILENT:
        return {kind: of_silence(args.silence, SILENT[kind], long)}
    lost = round(LOST.get(kind, 0) * SAMPLE_RATE)
    return {kind: of_sentences([one[lost:] for one in pieces], references, session)}


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
    add("--minutes", type=float, help="length of a recording of joined segments (default: one recording)")
    add("--silence", type=float, default=60.0, help="minutes of the silent recordings")
    add("--kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"what to measure (default: all): {'; '.join(KINDS)}")
    add("--seed", type=int, default=1, help="seed of pauses and noise")
    add("--workers", type=at_least(1), default=num_workers(), help="processes; each measures one kind at a time")
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
