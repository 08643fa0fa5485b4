#!/usr/bin/env python3
r"""Measure exported models beside their PyTorch sessions: a segment's cost and its limit, start, memory, size, words.

Each checkpoint is exported in float32 and int8 into a temporary folder. Programs translate the same sentences on one
thread, each in a process of its own, in turns; one of them can be the PyTorch session of an earlier commit.

    python scripts/bench_edge.py --baseline fe7b653 \
        --random "s2t_transformer_simul_mla_s --attn-type relu --share-decoder-input-output-embed"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import benchmark
import edge_limit
import edge_random
import edge_voice

from mla_fairseq.cli.export import main as export_model
from mla_fairseq.cli.options import at_least
from mla_fairseq.data.layouts import open_corpus
from mla_fairseq.data.segments import cut_segments
from mla_fairseq.errors import user_errors

DEMO = ["runs/demo_talks/checkpoint_average.pt", "runs/data/demo/en-de", "runs/data/demo_corpus/en-de"]
SESSION = "PyTorch"
PRECISIONS = ("float32", "int8")
HEAD = ("", "ms of a segment", "times as fast as {}", "real-time factor", "share of the limit", "start, s of CPU",
        "peak memory, MB", "files, MB", "recordings with equal words")  # fmt: skip
VOCABULARY = 8000  # of models with random weights


@dataclass
class Model:
    """A model, its recordings, and what its programs measured.

    Attributes:
        title: of its table.
        data: prepared data folder.
        wavs: recordings.
        programs: checkpoint or exported folder of each program.
        flags: for each process.
        turns: results of each program.
    """

    title: str
    data: Path
    wavs: Sequence[Path]
    programs: dict[str, Path]
    flags: Sequence[str] = ()
    turns: dict[str, list[dict]] = field(default_factory=dict)

    def limit(self, program: str, peaks: edge_limit.Peaks) -> tuple[edge_limit.Cost, float]:
        """Return the cost of a segment, and its least milliseconds."""
        precision = "int8" if program == "int8" else "float32"
        calls = self.turns[precision][0]["calls"]
        cost = edge_limit.segment_cost(calls, self.programs["float32"], self.programs[precision])
        return cost, 1000 * peaks.limit(cost, precision)

    def row(self, program: str, reference: Sequence[dict], peaks: edge_limit.Peaks) -> list[str]:
        """Return the cells of a program; ``reference`` has the turns of the first one."""
        turns, words = self.turns[program], self.turns[SESSION][0]["words"]
        own = {key: [turn[key] for turn in turns] for key in ("segment", "factor", "start", "memory")}
        faster = [other["segment"] / time for other, time in zip(reference, own["segment"], strict=True)]
        pairs = list(zip(turns[0]["words"], words, strict=True))
        limit = f"{self.limit(program, peaks)[1] / statistics.median(own['segment']):.0%}" if turns[0]["calls"] else ""
        numbers = [benchmark.spread(own["segment"]), benchmark.spread(faster)]
        numbers += [f"{statistics.median(own['factor']):.4f}", limit, benchmark.spread(own["start"])]
        numbers += [f"{statistics.median(own['memory']):.0f}", f"{size(self.programs[program]):.2f}"]
        return [program, *numbers, f"{sum(mine == theirs for mine, theirs in pairs)} of {len(pairs)}"]

    def report(self, peaks: edge_limit.Peaks) -> str:
        """Return the table, and what its limits are made of."""
        first = next(iter(self.turns))
        rows = [self.row(program, self.turns[first], peaks) for program in self.turns]
        head = [name.format(first) for name in HEAD]
        return "\n\n".join([f"## {self.title}", benchmark.table(head, rows), *self.limits(peaks)])

    def limits(self, peaks: edge_limit.Peaks) -> Iterator[str]:
        """Return what a segment takes, for each precision."""
        for precision in PRECISIONS:
            cost, least = self.limit(precision, peaks)
            flop, weights, states = (x / 1e6 for x in (cost.flop + cost.others, cost.weights, cost.states))
            tokens = self.turns[precision][0]["calls"]["decoder"]
            yield (
                f"A segment in {precision}: {tokens:.2f} tokens, {flop:.0f} MFLOP, {weights:.1f} MB of weights and "
                f"{states:.1f} MB of states, at least {least:.2f} ms."
            )


def call(tree: Path, *arguments: object) -> str:
    """Return what a Python program prints that imports the package from a source tree.

    Raises:
        SystemExit: it failed; its message is printed before.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
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


def models(args: argparse.Namespace, folder: Path) -> Iterator[Model]:
    """Export the models, and cut their recordings.

    Raises:
        SystemExit: a corpus or a model cannot be used.
    """
    wavs: list[Path] = []
    for number, (checkpoint, data, corpus) in enumerate(args.model or [DEMO]):
        own = folder / str(number)
        with user_errors():
            listing, _ = cut_segments(open_corpus(Path(corpus)), "tst-COMMON", own, args.number)
        sentences = [Path(line) for line in listing.read_text(encoding="utf-8").splitlines()]
        wavs = wavs or sentences
        yield Model(checkpoint, Path(data), sentences, export(Path(checkpoint), Path(data), own))
    for number, flags in enumerate(args.random):
        own = folder / f"random{number}"
        checkpoint, data = edge_random.write_random(
            f"{flags} --waitk-lagging {args.lagging}", VOCABULARY, args.seed, own
        )
        title = f"{flags}, random weights, {VOCABULARY:,} tokens"
        yield Model(title, data, wavs, export(checkpoint, data, own), ["--endless"])


def measure(args: argparse.Namespace) -> str:
    """Return the report."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        trees = {}
        if args.baseline:
            trees[args.baseline] = stack.enter_context(benchmark.source_tree(args.baseline))
        measured, voice = list(models(args, Path(folder))), export_voice(args, Path(folder))
        peaks = edge_limit.measure_peaks()
        for model in measured:
            model.programs = {name: model.programs[SESSION] for name in trees} | model.programs
            for _ in range(args.turns):
                take_turn(args, model, trees)
                peaks |= edge_limit.measure_peaks()
        reports = [model.report(peaks) for model in measured]
        if voice:
            reports.append(edge_voice.report(voice, Path(args.voice[1]), args.turns))
    return "\n\n".join([f"# Exported models\n\n{about(args, peaks)}", *reports, benchmark.signature()])


def export_voice(args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Export the text-to-speech model, if there is one."""
    return export(*map(Path, args.voice), folder / "voice") if args.voice else {}


def take_turn(args: argparse.Namespace, model: Model, trees: dict[str, Path]) -> None:
    """Let each program translate the recordings once."""
    worker = Path(__file__).with_name("edge_worker.py")
    flags = ["--data", model.data, "--lagging", args.lagging, *model.flags]
    for program, path in model.programs.items():
        printed = call(trees.get(program, benchmark.ROOT), worker, program, path, *model.wavs, *flags)
        model.turns.setdefault(program, []).append(turn := json.loads(printed))
        print(f"{model.title}: {program}: {turn['segment']:.2f} ms of a segment", file=sys.stderr)


def about(args: argparse.Namespace, peaks: edge_limit.Peaks) -> str:
    """Return what was measured."""
    float32, int8, reading = (f"{rate / 1e9:.0f}" for rate in vars(peaks).values())
    sizes = f"{edge_limit.ROWS} x {edge_limit.INNER} x {edge_limit.COLUMNS}"
    return f"""{args.number} sentences, each a plain session: greedy, k = {args.lagging}, segments of 280 ms.
{args.turns} turns of each program on one thread: median (least-greatest). The time of a segment is a mean, in CPU time.
A model with random weights translates the sentences as one recording that does not end. "Start" is the CPU time from
the start of the process until the first segment is translated. Words are equal where each segment emits those that the
PyTorch session emits.

The limit is the longer of two times: that of the products, and that of moving weights, inputs, outputs and states once
a call. Of softmax attention, only the new keys count. In this run, one thread reached {float32} GFLOP/s in float32 and
{int8} GFLOP/s in int8 (onnxruntime, {sizes}), and read {reading} GB/s from memory. The weights of a small model
stay in the cache, which is faster."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", nargs=3, action="append", metavar=("CHECKPOINT", "DATA", "CORPUS"),
        help="model trained with wait-k, its prepared data folder, and its corpus in MuST-C's layout; can be repeated "
        "(default: the demo's)",
    )  # fmt: skip
    parser.add_argument(
        "--random", action="append", default=[], metavar="ARCH_AND_FLAGS",
        help="measure this model with random weights too; can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--voice", nargs=2, metavar=("CHECKPOINT", "DATA"), help="measure this text-to-speech model of one speaker too"
    )
    parser.add_argument("--baseline", metavar="COMMIT", help="commit of version 0.1 whose session to compare with")
    parser.add_argument("--number", type=at_least(1), default=20, help="sentences of tst-COMMON (default: %(default)s)")
    parser.add_argument("--lagging", type=at_least(1), default=5, help="k of wait-k (default: %(default)s)")
    parser.add_argument("--turns", type=at_least(1), default=3, help="turns of each program (default: %(default)s)")
    benchmark.add_common_args(parser)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    benchmark.publish(measure(args), args.output)


if __name__ == "__main__":
    main()
