#!/usr/bin/env python3
"""Time the decoder of a text-to-spectrogram model: a step, and the size of its state, after a number of steps.

Models that differ only in their attention continue from states of the same frames; their weights are random. The time
of a whole utterance is the sum over its steps, interpolated linearly between the measured ones.
"""

from __future__ import annotations

import argparse
import statistics
from argparse import Namespace

import benchmark
import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY
from tqdm import tqdm

from mla_fairseq.attention import State, fork, nbytes
from mla_fairseq.errors import user_errors
from mla_fairseq.models.options import SITES
from mla_fairseq.models.tts_transformer_mla import TTSTransformerMLAModel
from mla_fairseq.synthesis.speaker import check_device

SOFTMAX = "softmax everywhere"
MIXES = {
    SOFTMAX: {},
    "relu everywhere": dict.fromkeys(SITES, "relu"),
    "cosformer everywhere": dict.fromkeys(SITES, "cosformer"),
    "cosformer in the decoder": {"decoder": "cosformer"},
    "leap in the decoder": {"decoder": "leap"},
}
SYMBOLS = 60
CHUNK = 400  # steps written into a state at once; all of them would need the whole square of softmax's weights


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--arch", default="tts_transformer_mla", help="architecture")
    lengths = [100, 200, 400, 800, 1600, 3200, 8000]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths, help="steps before the timed ones, rising")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="numbers of utterances in a batch")
    parser.add_argument("--symbols", type=int, default=100, help="number of symbols of the text")
    parser.add_argument("--steps", type=int, default=8, help="number of steps timed at each length")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each model")
    parser.add_argument("--threads", type=int, default=2, help="number of torch threads")
    parser.add_argument("--device", default="cpu", help="torch device")
    benchmark.add_common_args(parser)
    return parser


def build(arch: str, sites: dict[str, str], seed: int) -> TTSTransformerMLAModel:
    """Return a model with random weights, equal where two mixes have the same parameter."""
    args = Namespace(n_frames_per_step=1, target_length="fixed", target_length_fixed=8000)
    for site in SITES:
        setattr(args, f"{site}_attn_type", sites.get(site, "softmax"))
    ARCH_CONFIG_REGISTRY[arch](args)
    dictionary = Dictionary()
    for i in range(SYMBOLS):
        dictionary.add_symbol(f"s{i}")
    torch.manual_seed(seed)
    task = Namespace(src_dict=dictionary, get_speaker_embeddings=lambda _: None)
    return TTSTransformerMLAModel.build_model(args, task).eval()


class Bench:
    """One mix in the middle of a batch of utterances."""

    def __init__(self, model: TTSTransformerMLAModel, batch: int, symbols: int, steps: int, device: str) -> None:
        self.model, self.batch, self.steps, self.device = model.to(device), batch, steps, device
        torch.manual_seed(2)
        tokens = torch.randint(4, SYMBOLS, (batch, symbols)).to(device)
        self.encoded = self.model.encoder(tokens)
        self.state: State = {}
        self.steps_done = 0

    def go_to(self, length: int) -> None:
        """Advance the state to a number of steps."""
        while self.steps_done < length:
            steps = min(CHUNK, length - self.steps_done)
            frames = torch.randn(self.batch, steps, self.model.decoder.out_dim)
            self.model.decoder.prime(frames.to(self.device), self.encoded, self.state)
            self.steps_done += steps

    def __call__(self) -> None:
        """Compute the next steps; the state is unchanged afterwards."""
        state, frame = fork(self.state), torch.zeros(self.batch, 1, self.model.decoder.out_dim, device=self.device)
        for _ in range(self.steps):
            extra = self.model.decoder(frame, self.encoded, incremental_state=state, need_attn=False)[2]
            frame = extra["feature_out"]
        if self.device != "cpu":
            torch.cuda.synchronize()


@torch.no_grad()
def measure(args: argparse.Namespace, batch: int) -> dict[str, list[tuple[float, int]]]:
    """Return seconds of a step and bytes of the state, of each mix at each length."""
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in MIXES}
    benches = {
        name: Bench(build(args.arch, sites, args.seed), batch, args.symbols, args.steps, args.device)
        for name, sites in MIXES.items()
    }
    for length in tqdm(args.lengths, desc=f"batch {batch}", unit="length"):
        for bench in benches.values():
            bench.go_to(length)
        times = benchmark.race(benches, args.repeats)
        for name, bench in benches.items():
            found[name].append((times[name] / args.steps, nbytes(bench.state)))
    return found


def whole(lengths: list[int], steps: list[float], until: int) -> float:
    """Return the seconds of an utterance of ``until`` steps."""
    places = np.arange(1, until + 1)
    return float(np.interp(places, lengths, steps).sum())


def crossing(lengths: list[int], softmax: list[float], other: list[float]) -> int | None:
    """Return the shortest whole utterance, in steps, that ``other`` decodes faster; ``None`` if none was measured."""
    places = np.arange(1, lengths[-1] + 1)
    ahead = np.cumsum(np.interp(places, lengths, softmax)) > np.cumsum(np.interp(places, lengths, other))
    slower = np.flatnonzero(~ahead)
    first = 1 if not len(slower) else int(slower[-1]) + 2
    return first if first <= lengths[-1] else None


def report(args: argparse.Namespace) -> str:
    """Return the report."""
    parts = [
        "# Decoding of spectrograms",
        f"`{args.arch}`, {args.symbols} symbols, one frame per step. {__doc__.splitlines()[0]} A ratio is the "
        "time of softmax with a key-value cache divided by that of the mix.",
    ]
    for batch in args.batches:
        found = measure(args, batch)
        times = {name: [time for time, _ in values] for name, values in found.items()}
        sizes = {name: [size for _, size in values] for name, values in found.items()}
        rows = [
            [f"{length:,}", *(f"{times[name][i] * 1e3:.2f}" for name in MIXES)] for i, length in enumerate(args.lengths)
        ]
        parts += [f"## Batch {batch}: milliseconds of a step", benchmark.table(["steps before", *MIXES], rows)]
        others = [name for name in MIXES if name != SOFTMAX]
        rows = [
            [f"{length:,}"]
            + [
                f"{whole(args.lengths, times[SOFTMAX], length) / whole(args.lengths, times[name], length):.2f}"
                for name in others
            ]
            for length in args.lengths
        ]
        parts += [
            f"## Batch {batch}: a whole utterance, times as fast as softmax",
            benchmark.table(["steps", *others], rows),
        ]
        rows = [
            [f"{length:,}", *(f"{sizes[name][i] / batch / 1e6:.3f}" for name in MIXES)]
            for i, length in enumerate(args.lengths)
        ]
        parts += [
            f"## Batch {batch}: megabytes carried for an utterance",
            benchmark.table(["steps before", *MIXES], rows),
        ]
        lines = []
        for name in others:
            first = crossing(args.lengths, times[SOFTMAX], times[name])
            worst = max(mine / soft for mine, soft in zip(times[name], times[SOFTMAX], strict=True))
            flat = times[name][-1] / statistics.median(times[name][:2])
            where = f"from {first:,} steps on" if first else "at no measured length"
            lines.append(
                f"* {name}: whole utterances are faster {where}; a step takes at most {worst:.2f} times softmax's; the "
                f"last step takes {flat:.2f} times as long as the first ones"
            )
        parts += ["\n".join(lines)]
    return "\n\n".join([*parts, benchmark.signature()])


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    if args.lengths != sorted(set(args.lengths)) or args.lengths[0] < 1:
        raise SystemExit(f"error: --lengths is {args.lengths}: give rising numbers of at least 1")
    with user_errors():
        check_device(args.device)
    torch.set_num_threads(args.threads)
    benchmark.settle_allocator()
    benchmark.publish(report(args), args.output)


if __name__ == "__main__":
    main()
