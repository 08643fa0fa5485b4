"""Time an exported text-to-speech model beside PyTorch's, in one process and in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import benchmark
import torch

from mla_fairseq.data import manifest
from mla_fairseq.edge.runtime.speaker import EdgeSpeaker
from mla_fairseq.synthesis.generator import decode, refine
from mla_fairseq.synthesis.speaker import Speaker

HEAD = ("", "ms of a decoder step", "times as fast as {}")
SENTENCES = 6
Say = Callable[[Sequence[str]], int]
"""Synthesise the log-mel frames of a sentence of symbols, and return the number of decoder steps."""


def say_torch(speaker: Speaker, symbols: Sequence[str]) -> int:
    """Return the number of decoder steps of a sentence that PyTorch synthesises."""
    line = " ".join(symbols)
    tokens = speaker.task.source_dictionary.encode_line(line, add_if_not_exist=False).long()[None]
    given = {"src_tokens": tokens, "src_lengths": torch.tensor([tokens.shape[1]]), "speaker": None}
    utterances = decode(speaker.model, given, speaker.generator.limits)
    refine(speaker.model, utterances)
    return len(utterances[0].frames)


def say_graphs(speaker: EdgeSpeaker, symbols: Sequence[str]) -> int:
    """Return the number of decoder steps of a sentence that an exported model synthesises."""
    utterance = speaker.say(symbols)
    for _ in utterance:
        pass
    return utterance.steps


def report(models: dict[str, Path], data: Path, turns: int) -> str:
    """Return the table of a checkpoint and its exported folders, which have the names of their precisions."""
    first, *precisions = models
    torch.set_num_threads(1)
    says: dict[str, Say] = {first: partial(say_torch, Speaker(models[first], data))}
    says |= {name: partial(say_graphs, EdgeSpeaker.load(models[name], name)) for name in precisions}
    sentences = [row["tgt_text"].split() for _, row in manifest.rows(data / "dev.tsv")][:SENTENCES]
    times: dict[str, list[float]] = {name: [] for name in says}
    for _ in range(turns + 1):  # the first does not count
        for name, say in says.items():
            times[name].append(step_time(say, sentences))
    rows = [row(name, times[name][1:], times[first][1:]) for name in times]
    about = f"{len(sentences)} sentences, from symbols to log-mel frames. A step has its share of encoder and post-net."
    table = benchmark.table([name.format(first) for name in HEAD], rows)
    return "\n\n".join([f"## {models[first]}, text to speech", about, table])


def step_time(say: Say, sentences: Sequence[Sequence[str]]) -> float:
    """Return the CPU milliseconds of a decoder step."""
    begin = time.thread_time()
    steps = sum(map(say, sentences))
    return 1000 * (time.thread_time() - begin) / steps


def row(name: str, own: Sequence[float], reference: Sequence[float]) -> list[str]:
    """Return the cells of a program; ``reference`` has the turns of the first one."""
    faster = [other / time for other, time in zip(reference, own, strict=True)]
    return [name, benchmark.spread(own), benchmark.spread(faster)]
