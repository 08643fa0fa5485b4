#!/usr/bin/env python3
"""Translate recordings as one program of bench_edge.py, and print what that cost as JSON.

A program of its own, without torch unless the model is a checkpoint: memory and start are those of a user's process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from mla_fairseq.edge.runtime.audio import read_blocks
from mla_fairseq.speech.samples import SAMPLE_RATE
from mla_fairseq.streaming.choice import begin_long
from mla_fairseq.streaming.detectors import named_detector
from mla_fairseq.streaming.interface import StreamingModel
from mla_fairseq.streaming.long import LongSession
from mla_fairseq.streaming.search import SearchOptions

SEGMENT = 4480  # samples: 280 ms


def load(program: str, model: Path, data: Path | None) -> StreamingModel:
    """Return the model of a program: ``PyTorch``, ``float32`` or ``int8``."""
    if program != "PyTorch":
        from mla_fairseq.edge.runtime.model import EdgeTranslator

        return EdgeTranslator.load(model, program)
    import torch

    from mla_fairseq.streaming.translator import Translator

    torch.set_num_threads(1)
    return Translator.load(model, data)


def translate(session: LongSession, samples: np.ndarray) -> tuple[list[tuple[str, float]], list[float]]:
    """Return the words with their times, and the CPU seconds of each segment; the last ones include the end."""
    emissions, seconds = [], []
    for place in range(0, len(samples), SEGMENT):
        begin = time.thread_time()
        emissions += session.push(samples[place : place + SEGMENT])
        if place + SEGMENT >= len(samples):
            emissions += session.finish()
        seconds.append(time.thread_time() - begin)
    return [(emission.text, emission.milliseconds) for emission in emissions], seconds


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Return words, and milliseconds, seconds and MB."""
    model, words, seconds, audio, start = load(args.program, args.model, args.data), [], [], 0, 0.0
    for path in args.wavs:
        samples = np.concatenate(list(read_blocks(path)))
        session = begin_long(model, None, args.lagging, SearchOptions(), named_detector(None, model.has_boundary))
        emitted, spent = translate(session, samples)
        if not seconds:
            start = time.process_time() - sum(spent[1:])  # until the first segment is translated
        words.append(emitted)
        seconds += spent
        audio += len(samples)
    return {
        "words": words,
        "segment": 1000 * statistics.mean(seconds),
        "factor": sum(seconds) * SAMPLE_RATE / audio,
        "start": start,
        "memory": peak(),
    }


def peak() -> float:
    """Return the most MB that this process had resident (Linux); ``ru_maxrss`` would begin with those of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=("PyTorch", "float32", "int8"))
    parser.add_argument("model", type=Path, help="checkpoint, or folder of mla-export")
    parser.add_argument("wavs", nargs="+", type=Path, help="recordings")
    parser.add_argument("--data", type=Path, help="prepared data folder of a checkpoint")
    parser.add_argument("--lagging", type=int, required=True, help="k of wait-k")
    return parser


if __name__ == "__main__":
    print(json.dumps(measure(build_parser().parse_args())))
