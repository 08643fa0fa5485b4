#!/usr/bin/env python3
"""Time training updates of models with Conformer and with Transformer encoders, in turns on the same batches.

All are built, trained and updated by fairseq: its parser, criterion (label smoothing 0.1), clipping and Adam.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import tempfile
import time
from pathlib import Path

import bench_worker
import benchmark
import torch
from bench_batches import FEATURES, SAMPLING, Batches
from tqdm import tqdm


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", default="tiny", help="model size: the letters after s2t_transformer_mla_")
    parser.add_argument("--attn-types", nargs="+", default=["softmax", "cosformer"], metavar="NAME", help="mechanisms")
    parser.add_argument("--max-tokens", type=int, default=4000, help="frames in a batch, padding included")
    parser.add_argument("--batches", type=int, default=4, help="batches of utterances like MuST-C's")
    parser.add_argument("--vocabulary", type=int, default=1000, help="number of target symbols")
    parser.add_argument("--turns", type=int, default=9, help="times that every model trains on every batch")
    benchmark.add_common_args(parser)
    return parser


def measure(models: dict[str, bench_worker.Model], paths: list[str], turns: int) -> dict[str, list[float]]:
    """Return the milliseconds of each model's updates, the mean of all batches, for each turn but the first."""
    loaded = [torch.load(path) for path in paths]
    times: dict[str, list[float]] = {name: [0.0] * turns for name in models}
    for turn in tqdm(range(-1, turns), unit="turn"):
        for batch in loaded:
            for name in list(models)[:: -1 if turn % 2 else 1]:  # alternate: no model is always first
                start = time.process_time()  # of the processor: other programs hardly change it
                models[name].step(batch)
                if turn >= 0:
                    times[name][turn] += 1000 * (time.process_time() - start) / len(loaded)
    return times


def rows(models: dict[str, bench_worker.Model], times: dict[str, list[float]]) -> list[list[str]]:
    """Return the table's rows; a ratio is that of a turn, because a busy machine slows down all models of it."""
    first = next(iter(times.values()))
    return [
        [
            name,
            f"{sum(parameter.numel() for parameter in models[name].model.parameters()) / 1e6:.2f}",
            f"{statistics.median(turns):.0f}",
            benchmark.spread([own / other for own, other in zip(turns, first, strict=True)]),
        ]
        for name, turns in times.items()
    ]


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    logging.disable(logging.INFO)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    benchmark.settle_allocator()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = stack.enter_context(benchmark.data_folder(args.vocabulary, FEATURES))
        batches = Batches(folder, 0.0, args.batches, args.max_tokens, args.vocabulary)
        models = {
            f"{encoder}, {mechanism}": bench_worker.Model(
                data, f"s2t_{encoder.lower()}_mla_{args.size}", ["--attn-type", mechanism], args.seed
            )
            for mechanism in args.attn_types
            for encoder in ("Transformer", "Conformer")
        }
        table = rows(models, measure(models, batches.paths, args.turns))
    title = (
        f"# Training with Conformer and Transformer encoders, size {args.size}\n\nProcessor time of one "
        f"thread, batches of {args.max_tokens} frames. {SAMPLING} A ratio is the median of {args.turns} turns, with "
        "minimum and maximum."
    )
    head = ["encoder, attention", "million parameters", "ms per update", "ratio to the first"]
    benchmark.publish(f"{title}\n\n{benchmark.table(head, table)}\n\n{benchmark.signature()}", args.output)


if __name__ == "__main__":
    main()
