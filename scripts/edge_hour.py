#!/usr/bin/env python3
r"""Translate a long stream with an exported model and with PyTorch, and compare words, memory and time by the minute.

The recordings of tst-COMMON come again and again, with a second of silence after each. Each program has a process of
its own and waits for the other after each minute.

    python scripts/edge_hour.py runs/demo_talks/checkpoint_average.pt runs/data/demo/en-de runs/data/demo_corpus/en-de
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import cycle
from pathlib import Path

import edge_worker
import numpy as np

PROGRAMS = ("PyTorch", "float32")
MINUTE = 60 * edge_worker.RATE // edge_worker.SEGMENT  # segments
HEAD = (
    "minutes",
    *(f"{name}, {program}" for name in ("ms of a segment", "MB", "words") for program in PROGRAMS),
    "equal, with times",
)


def segments(wavs: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield segments (N,) int16 of 280 ms without end."""
    waiting = np.zeros(0, np.int16)
    for wav in cycle(wavs):
        waiting = np.concatenate((waiting, edge_worker.read(wav), np.zeros(edge_worker.RATE, np.int16)))
        whole = len(waiting) // edge_worker.SEGMENT * edge_worker.SEGMENT
        yield from np.split(waiting[:whole], whole // edge_worker.SEGMENT)
        waiting = waiting[whole:]


def work(args: argparse.Namespace) -> None:
    """Translate as one program, and print words, milliseconds and MB of each minute as a line of JSON."""
    from mla_fairseq.streaming.choice import begin_long
    from mla_fairseq.streaming.detectors import named_detector

    model = edge_worker.load_model(args)
    session = begin_long(model, None, args.lagging, detector=named_detector(None, model.has_boundary))
    audio = segments(sorted(args.corpus.glob("data/tst-COMMON/wav/*.wav")))
    for _ in range(args.minutes):
        begin = time.thread_time()
        emissions = [emission for _ in range(MINUTE) for emission in session.push(next(audio))]
        spent = 1000 * (time.thread_time() - begin) / MINUTE
        words = [(emission.text, emission.milliseconds) for emission in emissions]
        print(json.dumps({"words": words, "segment": spent, "memory": edge_worker.memory("VmRSS")}), flush=True)


def start(args: argparse.Namespace, program: str, model: Path) -> subprocess.Popen[str]:
    """Start the process of a program."""
    flags = ["--program", program, "--lagging", str(args.lagging), "--minutes", str(args.minutes)]
    command = [sys.executable, __file__, str(model), str(args.data), str(args.corpus), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def minutes(args: argparse.Namespace, folder: Path) -> Iterator[list[dict]]:
    """Yield what each minute took in each program.

    Raises:
        SystemExit: a program failed; its message is printed before.
    """
    from mla_fairseq.cli.export import main as export

    export([str(args.model), "--data", str(args.data), "--output", str(folder / "model")])
    models = dict(zip(PROGRAMS, (args.model, folder / "model"), strict=True))
    workers = [start(args, program, model) for program, model in models.items()]
    try:
        for _ in range(args.minutes):
            lines = [worker.stdout.readline() for worker in workers]
            if not all(lines):
                raise SystemExit("error: a program ended early: see its message above")
            yield [json.loads(line) for line in lines]
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()


def compare(args: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the cells of each tenth minute, and of the first and last; words are counted from the start.

    Words are equal where the programs emit them in the same order with the same times.
    """
    words, equal = [0, 0], 0
    with tempfile.TemporaryDirectory() as folder:
        for minute, (torch, graphs) in enumerate(minutes(args, Path(folder)), 1):
            found = [list(map(tuple, x["words"])) for x in (torch, graphs)]
            words = [count + len(more) for count, more in zip(words, found, strict=True)]
            equal += sum(block.size for block in SequenceMatcher(None, *found, autojunk=False).get_matching_blocks())
            if minute in (1, args.minutes) or minute % 10 == 0:
                times, sizes = (
                    [f"{x[key]:.{d}f}" for x in (torch, graphs)] for key, d in (("segment", 2), ("memory", 1))
                )
                yield [str(minute), *times, *sizes, *map(str, words), str(equal)]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="checkpoint of a model trained with wait-k")
    parser.add_argument("data", type=Path, help="its prepared data folder")
    parser.add_argument("corpus", type=Path, help="its corpus in MuST-C's layout")
    parser.add_argument("--minutes", type=int, default=60, help="minutes of audio (default: %(default)s)")
    parser.add_argument("--lagging", type=int, default=5, help="k of wait-k (default: %(default)s)")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    if args.program:
        return work(args)
    import benchmark

    rows = compare(args)
    print(benchmark.table(HEAD, [next(rows)]), flush=True)
    for cells in rows:
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n{benchmark.signature()}")
    return None


if __name__ == "__main__":
    main()
