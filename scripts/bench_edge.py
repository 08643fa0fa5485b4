#!/usr/bin/env python3
r"""Measure an exported model beside its PyTorch session: the cost of a segment, start, memory, size and words.

The checkpoint is exported in float32 and int8 into a temporary folder. Three programs translate the same recordings on
one thread, each in a process of its own, in turns.

    python scripts/bench_edge.py runs/demo_talks/checkpoint_average.pt --data runs/data/demo/en-de \
        --wavs runs/data/demo_corpus/en-de/data/tst-COMMON
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import benchmark

from mla_fairseq.cli.export import main as export_model
from mla_fairseq.cli.options import at_least

SESSION = "PyTorch"
PRECISIONS = ("float32", "int8")
HEAD = ("", "ms of a segment", "times as fast", "real-time factor", "start, s of CPU", "peak memory, MB", "files, MB",
        "recordings with equal words")  # fmt: skip
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(benchmark.ROOT)}


def call(*arguments: object) -> str:
    """Return what a Python program prints.

    Raises:
        SystemExit: it failed; its message is printed before.
    """
    done = subprocess.run([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=ONE_THREAD)
    if done.returncode != 0:
        raise SystemExit(f"error: {arguments[0]} ended with status {done.returncode}: see its message above")
    return done.stdout


def export(checkpoint: Path, data: Path, folder: Path) -> dict[str, Path]:
    """Export the checkpoint with each precision, and return the model of each program."""
    models = {SESSION: checkpoint}
    for name in PRECISIONS:
        models[name] = folder / name
        flags = ["--int8"] if name == "int8" else []
        export_model([str(checkpoint), "--data", str(data), "--output", str(models[name]), *flags])
    return models


def size(model: Path) -> float:
    """Return the MB of a checkpoint or folder."""
    files = model.iterdir() if model.is_dir() else [model]
    return sum(path.stat().st_size for path in files) / 1e6


def row(name: str, turns: Sequence[dict], session: Sequence[dict], model: Path) -> list[str]:
    """Return the cells of a program; ``session`` has the turns of the PyTorch session."""
    segment, factor, start, memory = ([turn[key] for turn in turns] for key in ("segment", "factor", "start", "memory"))
    faster = [other["segment"] / own for other, own in zip(session, segment, strict=True)]
    pairs = list(zip(turns[0]["words"], session[0]["words"], strict=True))
    equal = f"{sum(own == other for own, other in pairs)} of {len(pairs)}"
    numbers = [benchmark.spread(segment), benchmark.spread(faster), f"{statistics.median(factor):.4f}"]
    return [name, *numbers, benchmark.spread(start), f"{statistics.median(memory):.0f}", f"{size(model):.2f}", equal]


def measure(args: argparse.Namespace, wavs: Sequence[Path]) -> str:
    """Return the report."""
    turns: dict[str, list[dict]] = {SESSION: [], **{name: [] for name in PRECISIONS}}
    worker = Path(__file__).with_name("edge_worker.py")
    with tempfile.TemporaryDirectory() as folder:
        models = export(args.checkpoint, args.data, Path(folder))
        for _ in range(args.turns):
            for name, model in models.items():
                flags = ["--data", args.data, "--lagging", args.lagging]
                turns[name].append(json.loads(call(worker, name, model, *wavs, *flags)))
        rows = [row(name, turns[name], turns[SESSION], model) for name, model in models.items()]
    return "\n\n".join(
        [f"# Exported models\n\n{about(args, wavs)}", benchmark.table(HEAD, rows), benchmark.signature()]
    )


def about(args: argparse.Namespace, wavs: Sequence[Path]) -> str:
    """Return what was measured."""
    return f"""{len(wavs)} recordings in long sessions, k = {args.lagging}, segments of 280 ms, one thread,
{args.turns} turns: median (least-greatest). The time of a segment is a mean, in CPU time. "Start" is the CPU time from
the start of the process until the first segment is translated. Words are equal where their text and times equal those
of the PyTorch session."""


def recordings(folder: Path, number: int) -> list[Path]:
    """Return the first recordings of a folder.

    Raises:
        SystemExit: the folder has no recordings.
    """
    if not (wavs := sorted(folder.rglob("*.wav"))[:number]):
        raise SystemExit(f"error: no wav under {folder}: give a folder of recordings of the model's language")
    return wavs


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="simultaneous model, trained with wait-k")
    parser.add_argument("--data", type=Path, required=True, help="its prepared data folder")
    parser.add_argument("--wavs", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--number", type=at_least(1), default=10, help="recordings to take (default: %(default)s)")
    parser.add_argument("--lagging", type=at_least(1), default=5, help="k of wait-k (default: %(default)s)")
    parser.add_argument("--turns", type=at_least(1), default=3, help="turns of each program (default: %(default)s)")
    benchmark.add_common_args(parser)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    benchmark.publish(measure(args, recordings(args.wavs, args.number)), args.output)


if __name__ == "__main__":
    main()
