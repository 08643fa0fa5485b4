#!/usr/bin/env python3
"""Build the models of bench_training.py from the tree on PYTHONPATH; train and decode with them on request.

Only fairseq's interface is used, so the tree may be of any revision. ``--attn-type free`` is attention that costs
nothing; it needs the current tree.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import statistics
import sys
import warnings
from functools import partial
from pathlib import Path

import benchmark
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import build_optimizer
from torch.utils.flop_counter import FlopCounterMode

import mla_fairseq

with contextlib.suppress(ImportError):  # a baseline older than 0.2 registers when the package is imported
    from mla_fairseq import plugin  # noqa: F401 -- registers the architectures

TRAINING = shlex.split(
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --optimizer adam --lr 1e-5 --clip-norm 10 --cpu "
    "--max-source-positions 12000"
)  # a small learning rate, because the batches are noise


class Model:
    """One model and what fairseq trains it with."""

    def __init__(self, folder: Path, arch: str, flags: list[str], seed: int) -> None:
        command = [str(folder), "--task", "speech_to_text", "--arch", arch, *TRAINING, *flags]
        config = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), command))
        torch.manual_seed(seed)
        self.task = tasks.setup_task(config.task)
        self.model = self.task.build_model(config.model).train()
        self.criterion = self.task.build_criterion(config.criterion)
        self.optimizer = build_optimizer(config.optimizer, list(self.model.parameters()))
        self.ours = "_mla" in arch

    def step(self, batch: dict) -> None:
        """Train on a batch, as fairseq's trainer does."""
        self.optimizer.zero_grad()
        self.task.train_step(batch, self.model, self.criterion, self.optimizer, update_num=1)
        self.optimizer.clip_grad_norm(10.0)
        self.optimizer.step()

    def train(self, batch: dict) -> float:
        """Return the seconds of a training step."""
        return benchmark.seconds_per_call(partial(self.step, batch))

    def memory(self, batch: dict) -> float:
        """Return the MB that a training step allocates at its peak, without weights and optimizer state."""
        self.step(batch)
        self.optimizer.zero_grad()
        return benchmark.peak_memory(partial(self.step, batch))

    def flops(self, batch: dict) -> int:
        """Return the floating-point operations of a step's matrix products and convolutions."""
        with FlopCounterMode(display=False) as counter:
            self.step(batch)
        return counter.get_total_flops()

    @torch.no_grad()
    def decode(self, batch: dict, tokens: int, repeats: int) -> float:
        """Return the median seconds of the decoding step after a number of tokens."""
        self.model.eval()
        inputs = batch["net_input"]
        source = self.model.encoder(inputs["src_tokens"], inputs["src_lengths"])
        known = {"target_lengths": torch.full_like(inputs["src_lengths"], 2 * tokens)} if self.ours else {}
        words = torch.full((len(inputs["src_lengths"]), tokens + 1), 5)
        state: dict = {}
        for length in range(1, tokens + 1):
            self.model.decoder(words[:, :length], source, incremental_state=state, **known)

        def step() -> None:
            copy = {key: dict(value) for key, value in state.items()}  # every repeat starts from the same state
            self.model.decoder(words, source, incremental_state=copy, **known)

        step()
        seconds = statistics.median(benchmark.seconds_per_call(step) for _ in range(repeats))
        self.model.train()
        return seconds


def main() -> None:
    folder, seed = sys.argv[1:]
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    if Path(os.environ["PYTHONPATH"]) not in Path(mla_fairseq.__file__).parents:
        raise SystemExit(f"error: mla_fairseq comes from {mla_fairseq.__file__}: set PYTHONPATH to its tree")
    benchmark.settle_allocator()
    models: dict[str, Model] = {}

    def handle(request: dict) -> dict:
        name, action = request.pop("name"), request.pop("do")
        if action == "build":
            if "free" in request["flags"]:
                import bench_bound  # noqa: F401 -- registers the mechanism
            models[name] = Model(Path(folder), request["arch"], request["flags"], int(seed))
            return {"value": 0.0}
        torch.set_num_threads(request.pop("threads"))
        return {"value": getattr(models[name], action)(torch.load(request.pop("batch")), **request)}

    benchmark.serve(handle)


if __name__ == "__main__":
    main()
