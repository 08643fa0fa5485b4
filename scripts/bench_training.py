#!/usr/bin/env python3
"""Times training steps of s2t_transformer_mla against fairseq's own s2t_transformer, on the same random batches.

Both are built, trained and updated by fairseq: its parser, criterion (label smoothing 0.1) and Adam. Utterances have
lengths like MuST-C's (log-normal, 6 s on average, at most 30 s), or all of them the length that --seconds gives.
"""

from __future__ import annotations

import argparse
import logging
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import benchmark
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import build_optimizer
from torch import Tensor
from tqdm import tqdm

import mla_fairseq  # noqa: F401 -- registers the architectures
from mla_fairseq.attention import available_attention

FRAMES_PER_SECOND, FEATURES, WORDS_PER_SECOND = 100, 80, 4.5
TRAINING = shlex.split(
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --optimizer adam --lr 2e-3 --clip-norm 10 --cpu "
    "--max-source-positions 12000"
)
MEAN_SECONDS, SPREAD, SHORTEST, LONGEST = 6.0, 0.7, 0.5, 30.0
"""MuST-C en-de: 4.5 subwords per second of speech; ``SPREAD`` is the deviation of the logarithm."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", default="s", help="model size: the letters after s2t_transformer_")
    parser.add_argument(
        "--attn-types", nargs="+", default=["relu", "cosformer"], choices=available_attention(), metavar="NAME",
        help=f"mechanisms to time, each at all sites; of {', '.join(available_attention())}",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", nargs="+", type=float, default=[0.0, 30.0, 60.0], help="length of the utterances; 0: like MuST-C"
    )
    parser.add_argument("--max-tokens", type=int, default=6000, help="frames in a batch, padding included")
    parser.add_argument("--batches", type=int, default=3, help="batches of each length")
    parser.add_argument("--vocabulary", type=int, default=8000, help="target symbols")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--repeats", type=int, default=1, help="times that each batch is trained on by each model")
    parser.add_argument("--output", type=Path, help="markdown file for the report")
    return parser


class Trainer:
    """One model and what fairseq trains it with."""

    def __init__(self, folder: Path, arch: str, flags: list[str]) -> None:
        command = [str(folder), "--task", "speech_to_text", "--arch", arch, *TRAINING, *flags]
        args = options.parse_args_and_arch(options.get_training_parser(), command)
        config = convert_namespace_to_omegaconf(args)
        torch.manual_seed(1)
        self.task = tasks.setup_task(config.task)
        self.model = self.task.build_model(config.model).train()
        self.criterion = self.task.build_criterion(config.criterion)
        self.optimizer = build_optimizer(config.optimizer, list(self.model.parameters()))

    def step(self, batch: dict) -> None:
        self.optimizer.zero_grad()
        self.task.train_step(batch, self.model, self.criterion, self.optimizer, update_num=1)
        self.optimizer.clip_grad_norm(10.0)
        self.optimizer.step()


def draw_batches(seconds: float, max_tokens: int, batches: int, vocabulary: int) -> Iterator[dict]:
    """Batches as fairseq makes them: utterances of like length, as many as fit."""
    lengths = draw_lengths(seconds)
    every, start = [], 0
    while start < len(lengths):
        size = max(1, max_tokens // int(lengths[start]))
        every.append(lengths[start : start + size])
        start += size
    for i in torch.linspace(0, len(every) - 1, batches).round().long().tolist():
        yield make_batch(every[i], vocabulary)


def draw_lengths(seconds: float, utterances: int = 5000) -> Tensor:
    """Frames of each utterance, longest first."""
    if seconds > 0:
        return (seconds * FRAMES_PER_SECOND * (1 - 0.05 * torch.rand(utterances))).long().sort(descending=True).values
    logarithms = math.log(MEAN_SECONDS) - SPREAD**2 / 2 + SPREAD * torch.randn(utterances)
    drawn = logarithms.exp().clamp(SHORTEST, LONGEST) * FRAMES_PER_SECOND
    return drawn.long().sort(descending=True).values


def make_batch(frames: Tensor, vocabulary: int) -> dict:
    """A batch of random features and words, as fairseq's data set would collate it."""
    words = (frames * WORDS_PER_SECOND / FRAMES_PER_SECOND).long().clamp_min(1) + 1
    real = torch.arange(int(words.max())) < words.unsqueeze(-1)
    target = torch.randint(4, vocabulary, real.shape)
    target = target.scatter(1, words.unsqueeze(-1) - 1, 2).masked_fill(~real, 1)  # fairseq's end of sentence, padding
    shifted = torch.cat((torch.full_like(target[:, :1], 2), target[:, :-1]), dim=1).masked_fill(~real, 1)
    features = torch.randn(len(frames), int(frames.max()), FEATURES)
    features = features * (torch.arange(features.shape[1]) < frames.unsqueeze(-1)).unsqueeze(-1)
    inputs = {"src_tokens": features, "src_lengths": frames, "prev_output_tokens": shifted}
    return {"net_input": inputs, "target": target, "ntokens": int(real.sum()), "nsentences": len(frames)}


def words_per_second(trainers: dict[str, Trainer], batches: list[dict], repeats: int, label: str) -> dict[str, float]:
    """Target words per second of each model over all batches."""
    seconds = dict.fromkeys(trainers, 0.0)
    for batch in tqdm(batches, desc=label, unit="batch"):
        for name, time in benchmark.race({n: step_of(t, batch) for n, t in trainers.items()}, repeats).items():
            seconds[name] += time
    words = sum(batch["ntokens"] for batch in batches)
    return {name: words / time for name, time in seconds.items()}


def step_of(trainer: Trainer, batch: dict) -> Callable[[], None]:
    return lambda: trainer.step(batch)


def report(args: argparse.Namespace) -> str:
    with benchmark.data_folder(args.vocabulary, FEATURES) as folder:
        stock = f"s2t_transformer_{args.size}"
        trainers = {stock: Trainer(folder, stock, [])}
        for attn_type in args.attn_types:
            arch = f"s2t_transformer_mla_{args.size}"
            trainers[attn_type] = Trainer(folder, arch, ["--attn-type", attn_type])
    rows = []
    for seconds in args.seconds:
        label = f"{seconds:g} s" if seconds > 0 else "like MuST-C"
        torch.manual_seed(1)
        batches = list(draw_batches(seconds, args.max_tokens, args.batches, args.vocabulary))
        speed = words_per_second(trainers, batches, args.repeats, label)
        cells = [f"{speed[name]:.1f} ({speed[name] / speed[stock]:.2f})" for name in args.attn_types]
        rows.append([label, f"{speed[stock]:.1f}", *cells])
    return benchmark.table(["utterances", stock, *(f"{name} everywhere" for name in args.attn_types)], rows)


def main() -> None:
    args = build_parser().parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    text = f"Words per second in training (times the stock model's).\n\n{report(args)}\n\n{benchmark.signature()}"
    benchmark.publish(text, args.output)


if __name__ == "__main__":
    main()
