"""The demo of ``mla-edge``: an int8 model and three spoken sentences, which ``examples/on_device/ship.py`` made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray

from mla_fairseq.files import read_json
from mla_fairseq.speech.samples import SAMPLE_RATE

FOLDER = Path(__file__).resolve().parents[1] / "demo"
"""An exported model, which has the files of the sentences too: all are checked when it is loaded."""

SENTENCES = "demo.json"
NUMBER = 5  # k of wait-k: the default, the middle of those of the training, waits for half of so short a sentence


@dataclass(frozen=True)
class Sentence:
    """A spoken sentence.

    Attributes:
        path: the wav file.
        source: what is said.
        words: what the model emits, each with the seconds of audio after which it is final.
    """

    path: Path
    source: str
    words: list[tuple[float, str]]


def sentences(folder: Path = FOLDER) -> list[Sentence]:
    """Return the sentences of the demo."""
    rows = read_json(folder / SENTENCES)["sentences"]
    return [Sentence(folder / row["wav"], row["source"], [(at, text) for at, text in row["words"]]) for row in rows]


def as_spoken(blocks: Iterator[NDArray]) -> Iterator[NDArray]:
    """Yield each block of samples at the time at which a microphone would have recorded it."""
    started, samples = time.monotonic(), 0
    for block in blocks:
        samples += len(block)
        time.sleep(max(0.0, started + samples / SAMPLE_RATE - time.monotonic()))
        yield block
