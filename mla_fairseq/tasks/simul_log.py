"""The log of a simultaneous decoding by ``fairseq-generate``, in the format of SimulEval's ``instances.log``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fairseq.data import Dictionary

from mla_fairseq.streaming.delays import Clock, Reads, milliseconds, word_delays


class SimulLog:
    """One line for each sentence, in the order in which they are translated.

    It says nothing of computing time: ``elapsed`` is empty. The length of a recording is taken from its frames, which
    is up to 10 ms less than what the file has.

    Args:
        path: the file; what is in it is lost.
        dictionary: the target dictionary.
        clock: when encoder states are there.
    """

    def __init__(self, path: Path, dictionary: Dictionary, clock: Clock) -> None:
        self.path, self.dictionary, self.clock = path, dictionary, clock
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")

    def add(self, index: int, tokens: Sequence[int], reads: Reads, frames: int, reference: str, source: str) -> None:
        """A sentence: its place in the set, its tokens without the end's sign, the encoder states that each is written
        upon, its frames, and what belongs to it."""
        pieces = [self.dictionary[token] for token in tokens]
        words, delays = word_delays(pieces, frames, reads, self.clock)
        line = {
            "index": index,
            "prediction": " ".join(words),
            "delays": delays,
            "elapsed": [],
            "prediction_length": len(words),
            "reference": reference,
            "source": [source],
            "source_length": milliseconds(frames),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
