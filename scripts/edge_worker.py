#!/usr/bin/env python3
"""Translate recordings as one program of bench_edge.py, and print what that cost as JSON.

A program of its own, without torch unless the model is a checkpoint: memory and start are those of a user's process.
Every recording is one sentence for a plain session, greedy, under wait-k.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEGMENT = 4480  # samples: 280 ms
RATE = 16_000
PARTS = ("frontend", "encoder", "reader", "decoder")
FORMER = {
    "target_length": "cosformer_length",
    "target_length_fixed": "cosformer_length_fixed",
    "source_length": "cosformer_source_length",
}
CALLS: collections.Counter[str] = collections.Counter()
"""How often each graph was called."""


def load(args: argparse.Namespace) -> Callable[[], Any]:
    """Return what begins a session of a program: ``PyTorch``, ``float32`` or ``int8``, or of a commit."""
    if args.program not in ("PyTorch", "float32", "int8"):
        return load_baseline(args)
    from mla_fairseq.streaming.incremental import IncrementalSession
    from mla_fairseq.streaming.policies import WaitKPolicy

    model = load_model(args)
    return lambda: IncrementalSession(model, WaitKPolicy(args.lagging))


def load_model(args: argparse.Namespace) -> Any:
    """Return the model of a checkpoint or of an exported folder."""
    if args.program != "PyTorch":
        return load_graphs(args)
    import torch

    from mla_fairseq.streaming.translator import Translator

    torch.set_num_threads(1)
    return Translator.load(args.model, args.data)


def load_graphs(args: argparse.Namespace) -> Any:
    """Return an exported model that counts the calls of its graphs."""
    from mla_fairseq.edge.runtime.model import EdgeTranslator

    model = EdgeTranslator.load(args.model, args.program)
    for part in PARTS:
        graph = getattr(model, part)
        graph.run = counted(part, graph.run)
    return model


def counted(part: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``run``, counting its calls."""

    def call(*arguments: Any) -> Any:
        CALLS[part] += 1
        return run(*arguments)

    return call


def load_baseline(args: argparse.Namespace) -> Callable[[], Any]:
    """Return what begins a session of version 0.1, whose package is the one on ``PYTHONPATH``."""
    import torch
    from mla_fairseq.engine.policies import WaitKPolicy
    from mla_fairseq.engine.session import Session
    from mla_fairseq.engine.translator import Translator

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Translator.load(write_former(args.model, Path(folder) / "former.pt"), args.data)
    return lambda: Session(model, WaitKPolicy(args.lagging, model.wait_k.ratio))


def write_former(checkpoint: Path, path: Path) -> Path:
    """Write a checkpoint as version 0.1 knows it: lengths have other names, and there is no boundary output."""
    import torch

    state = torch.load(checkpoint, weights_only=True)
    for section in ("model", "task"):
        options = state["cfg"][section]
        options = options if isinstance(options, dict) else vars(options)
        options |= {former: options[name] for name, former in FORMER.items() if name in options}
        options["finetune_from_model"] = None  # version 0.1 would ask for that file
    state["model"] = {name: x for name, x in state["model"].items() if not name.startswith("encoder.boundary.")}
    torch.save(state, path)
    return path


def translate(session: Any, samples: np.ndarray, endless: bool) -> tuple[list[str], list[float]]:
    """Return the words that each segment emits, and its CPU seconds; the last one includes the end."""
    words, seconds = [], []
    for place in range(0, len(samples), SEGMENT):
        begin = time.thread_time()
        emissions = session.push(samples[place : place + SEGMENT])
        if not endless and place + SEGMENT >= len(samples):
            emissions += session.finish()
        seconds.append(time.thread_time() - begin)
        words.append(" ".join(emission.text for emission in emissions if emission.text))
    return words, seconds


def read(path: Path) -> np.ndarray:
    """Return the samples (N,) int16 of a wav file."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Return words, and milliseconds, seconds and MB."""
    begin, words, seconds, start = load(args), [], [], 0.0
    recordings = [read(path) for path in args.wavs]
    if args.endless:
        recordings = [np.concatenate(recordings)]
    for samples in recordings:
        emitted, spent = translate(begin(), samples, args.endless)
        if not seconds:
            start = time.process_time() - sum(spent[1:])  # until the first segment is translated
        words.append(emitted)
        seconds += spent
    return {
        "words": words,
        "segment": 1000 * statistics.mean(seconds),
        "factor": sum(seconds) * RATE / sum(map(len, recordings)),
        "calls": {part: number / len(seconds) for part, number in CALLS.items()},
        "start": start,
        "memory": memory("VmHWM"),
    }


def memory(kind: str) -> float:
    """Return the MB that this process has resident, ``VmRSS``, or had at most, ``VmHWM`` (Linux).

    ``ru_maxrss`` would begin with those of its parent.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024 / 1e6


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="PyTorch, float32, int8, or the commit whose package is imported")
    parser.add_argument("model", type=Path, help="checkpoint, or folder of mla-export")
    parser.add_argument("wavs", nargs="+", type=Path, help="recordings")
    parser.add_argument("--data", type=Path, help="prepared data folder of a checkpoint")
    parser.add_argument("--lagging", type=int, required=True, help="k of wait-k")
    parser.add_argument("--endless", action="store_true", help="join the recordings, and do not end the last one")
    return parser


if __name__ == "__main__":
    print(json.dumps(measure(build_parser().parse_args())))
