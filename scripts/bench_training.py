#!/usr/bin/env python3
"""Times training and decoding steps of s2t_transformer_mla against fairseq's own s2t_transformer and against a bound.

All are built, trained and updated by fairseq: its parser, criterion (label smoothing 0.1), clipping and Adam, on the
same batches, in turns. The bound is the same model with attention that returns its values and costs nothing: no
mechanism can train faster. With --baseline, models of another revision take turns with them, from a process of their
own.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import statistics
import tempfile
from pathlib import Path

import benchmark
import torch
from bench_batches import FEATURES, SAMPLING, Batches
from tqdm import tqdm

OURS, STOCK, BOUND = "softmax", "fairseq's own", "bound"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", default="s", help="model size: the letters after s2t_transformer_")
    parser.add_argument("--model-flags", default="", help="more flags of every model, in one argument")
    parser.add_argument("--attn-types", nargs="+", default=["relu", "cosformer"], metavar="NAME", help="mechanisms")
    parser.add_argument(
        "--seconds", nargs="+", type=float, default=[0.0, 30.0, 60.0], help="length of the utterances; 0: like MuST-C"
    )
    parser.add_argument("--max-tokens", type=int, default=6000, help="frames in a batch, padding included")
    parser.add_argument("--batches", type=int, default=8, help="batches of utterances like MuST-C's")
    parser.add_argument("--long-batches", type=int, default=2, help="batches of utterances of one length")
    parser.add_argument("--vocabulary", type=int, default=8000, help="number of target symbols")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="numbers of torch threads")
    parser.add_argument("--turns", type=int, default=5, help="times that every model trains on every batch")
    parser.add_argument("--tokens", type=int, default=30, help="tokens before the decoding step")
    parser.add_argument(
        "--tables", nargs="+", default=["speed", "memory", "decoding"], choices=["speed", "memory", "decoding"],
        help="tables to measure",
    )  # fmt: skip
    parser.add_argument("--baseline", metavar="REV", help="revision whose models take turns with the current ones")
    benchmark.add_common_args(parser)
    return parser


class Contestant:
    """A model of one column, in the process of its source tree."""

    def __init__(self, worker: benchmark.Worker, name: str, arch: str, flags: list[str]) -> None:
        self.worker, self.name = worker, name
        self.ask("build", arch=arch, flags=flags)

    def ask(self, action: str, **request: object) -> float:
        """Return the answer of ``bench_worker.py``: seconds, MB or a number of operations."""
        return self.worker.ask(do=action, name=self.name, **request)["value"]


def build_contestants(args: argparse.Namespace, workers: list[benchmark.Worker]) -> dict[str, Contestant]:
    """Return the models by the names of their columns; the second worker, if any, serves the baseline's tree."""
    flags, (current, *baseline) = shlex.split(args.model_flags), workers

    def mla(worker: benchmark.Worker, name: str, attn_type: str) -> Contestant:
        return Contestant(worker, name, f"s2t_transformer_mla_{args.size}", ["--attn-type", attn_type, *flags])

    built = [mla(current, OURS, OURS), Contestant(current, STOCK, f"s2t_transformer_{args.size}", flags)]
    built += [mla(current, name, name) for name in args.attn_types]
    built.append(mla(current, BOUND, "free"))
    built += [mla(w, f"{name} at {args.baseline}", name) for w in baseline for name in (OURS, *args.attn_types)]
    return {contestant.name: contestant for contestant in built}


def train(contestants: dict[str, Contestant], batches: Batches, threads: int, turns: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant over all batches, for each turn; the first turn does not count."""
    totals = {name: [0.0] * turns for name in contestants}
    work = [(turn, path) for turn in range(-1, turns) for path in batches.paths]
    for turn, path in tqdm(work, desc=f"{batches.label}, {threads} threads", unit="batch"):
        for name in list(contestants)[:: -1 if turn % 2 else 1]:  # alternate: no contestant is always first
            seconds = contestants[name].ask("train", batch=path, threads=threads)
            if turn >= 0:
                totals[name][turn] += seconds
    return totals


def matmul_peak(rows: int) -> float:
    """Return the floating-point operations per second of (rows, 256) x (256, 2048), the most frequent product."""
    x, weight = torch.randn(rows, 256), torch.randn(256, 2048)
    fastest = min(benchmark.seconds_per_call(lambda: x @ weight) for _ in range(50))
    return 2 * rows * 256 * 2048 / fastest


def speed_tables(args: argparse.Namespace, contestants: dict[str, Contestant], rows: list[Batches]) -> list[str]:
    """Return for each number of threads the table of speeds and shares, and that of the baseline."""
    sections = []
    for threads in args.threads:
        speeds, shares, before = [], [], []
        for batches in rows:
            torch.set_num_threads(threads)
            peak = matmul_peak(args.max_tokens // 4)
            turns = train(contestants, batches, threads, args.turns)
            products = flops(contestants[BOUND], batches) / max(peak, matmul_peak(args.max_tokens // 4))
            words = f"{batches.words / statistics.median(turns[OURS]):.1f}"
            others = [STOCK, *args.attn_types, BOUND]
            bounds = [ratio(turns, BOUND, name) for name in args.attn_types]
            speeds.append([batches.label, words, *(ratio(turns, OURS, name) for name in others), *bounds])
            shares.append([batches.label, *(f"{products / statistics.median(turns[n]):.2f}" for n in [OURS, *others])])
            if args.baseline:
                names = (OURS, *args.attn_types)
                before.append([batches.label, *(ratio(turns, f"{name} at {args.baseline}", name) for name in names)])
        sections += format_speeds(args, threads, speeds, shares, before)
    return sections


def ratio(turns: dict[str, list[float]], base: str, name: str) -> str:
    """Return how many times as fast as ``base`` a contestant is: median, minimum and maximum of the turns."""
    return benchmark.spread([b / n for b, n in zip(turns[base], turns[name], strict=True)])


def flops(contestant: Contestant, batches: Batches) -> float:
    """Return the floating-point operations of the products outside attention, of a step on every batch."""
    return sum(contestant.ask("flops", batch=path, threads=1) for path in batches.paths)


def format_speeds(
    args: argparse.Namespace, threads: int, speeds: list[list[str]], shares: list[list[str]], before: list[list[str]]
) -> list[str]:
    """Return the sections of one number of threads."""
    title, columns = f"{threads} thread{'s' * (threads > 1)}", [OURS, STOCK, *args.attn_types, BOUND]
    head = ["utterances", f"{OURS}, words/s", *columns[1:], *(f"{name} / {BOUND}" for name in args.attn_types)]
    sections = [
        f"### {title}: speed of training, {OURS} everywhere = 1\n\n{benchmark.table(head, speeds)}",
        f"### {title}: share of the matrix product's peak\n\n{benchmark.table(['utterances', *columns], shares)}",
    ]
    if before:
        head = ["utterances", OURS, *args.attn_types]
        name = f"{title}: speed of training, the same model at {args.baseline} = 1"
        sections.append(f"### {name}\n\n{benchmark.table(head, before)}")
    return sections


def memory_table(contestants: dict[str, Contestant], rows: list[Batches]) -> str:
    """Return the MB of a step on the longest batch of each row."""
    cells = [
        [r.label, *(f"{c.ask('memory', batch=r.paths[0], threads=1):.0f}" for c in contestants.values())]
        for r in tqdm(rows, desc="memory", unit="length")
    ]
    return (
        "### Memory: MB that a step on the longest batch holds at its peak, weights and optimizer state left out\n\n"
        + benchmark.table(["utterances", *contestants], cells)
    )


def decoding_table(args: argparse.Namespace, contestants: dict[str, Contestant], rows: list[Batches]) -> str:
    """Return the milliseconds of a decoding step of the whole decoder, one utterance."""
    names = [name for name in contestants if name != BOUND]
    cells = []
    for batches in tqdm(rows, desc="decoding", unit="length"):
        turns: dict[str, list[float]] = {name: [] for name in names}
        for name in names * args.turns:
            request = {"batch": batches.alone, "threads": 1, "tokens": args.tokens, "repeats": 20}
            turns[name].append(contestants[name].ask("decode", **request) * 1000)
        cells.append([batches.label, *(benchmark.spread(turns[name]) for name in names)])
    title = f"### Decoding, 1 thread: ms of the decoder's step after {args.tokens} tokens, one utterance"
    return f"{title}\n\n{benchmark.table(['source', *names], cells)}"


def report(args: argparse.Namespace, contestants: dict[str, Contestant], rows: list[Batches]) -> str:
    """Return the tables that ``--tables`` names."""
    sections = []
    if "speed" in args.tables:
        sections += speed_tables(args, contestants, rows)
    if "memory" in args.tables:
        sections.append(memory_table(contestants, rows))
    if "decoding" in args.tables:
        sections.append(decoding_table(args, contestants, rows))
    return "\n\n".join(sections)


def explain(args: argparse.Namespace) -> str:
    """Return the explanation of the tables."""
    return (
        f"# Training of s2t_transformer_mla_{args.size}\n\n{SAMPLING}\n\nSpeeds are target words a second; a ratio is "
        f"the median of {args.turns} turns, with minimum and maximum. `{OURS}` is this package's model with "
        f"softmax at every site, `{STOCK}` is s2t_transformer_{args.size}, `{BOUND}` the model whose attention returns "
        "its values and still passes gradients to every projection. The share of the peak is the time that a step's "
        "products outside attention take at the speed of (tokens, 256) x (256, 2048), the fastest of 100, divided by "
        "the step's time."
    )


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    torch.manual_seed(args.seed)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = stack.enter_context(benchmark.data_folder(args.vocabulary, FEATURES))
        tree = stack.enter_context(benchmark.source_tree(args.baseline)) if args.baseline else None
        rows = [
            Batches(folder, s, args.long_batches if s else args.batches, args.max_tokens, args.vocabulary)
            for s in args.seconds
        ]
        workers = [
            stack.enter_context(contextlib.closing(benchmark.Worker(at, "bench_worker.py", str(data), str(args.seed))))
            for at in ([benchmark.ROOT, tree] if tree else [benchmark.ROOT])
        ]
        contestants = build_contestants(args, workers)
        text = report(args, contestants, rows)
    benchmark.publish(f"{explain(args)}\n\n{text}\n\n{benchmark.signature()}", args.output)


if __name__ == "__main__":
    main()
