"""Log simultaneous decoding by ``fairseq-generate`` in the format of SimulEval's ``instances.log``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fairseq.data import Dictionary

from mla_fairseq.errors import user_errors
from mla_fairseq.files import naming, write_text
from mla_fairseq.streaming.delays import Clock, Reads, milliseconds, word_delays


class SimulLog:
    """Write one line for each sentence, in the order of translation.

    Computing time is not measured, so a line has no ``elapsed``: other tools refuse an empty list. The length of a
    recording is computed from its frames, which is up to 10 ms less than the length of the file.

    Args:
        path: the file; an existing one is overwritten.
        dictionary: the target dictionary.
        clock: when encoder states become available.

    Raises:
        ValueError: the path is a folder, a link or a device.
    """

    def __init__(self, path: Path, dictionary: Dictionary, clock: Clock) -> None:
        self.path, self.dictionary, self.clock = path, dictionary, clock
        write_text(path, "")

    def add(self, index: int, tokens: Sequence[int], reads: Reads, frames: int, reference: str, source: str) -> None:
        """Append a sentence.

        Args:
            index: its row in the set.
            tokens: its tokens, without the end of sentence.
            reads: encoder states that were read before each token.
            frames: length of the source in frames of 10 ms.
            reference: the reference translation.
            source: path of the audio.

        Raises:
            UserError: the file cannot be written.
        """
        pieces = [self.dictionary[token] for token in tokens]
        words, delays = word_delays(pieces, frames, reads, self.clock)
        line = {
            "index": index,
            "prediction": " ".join(words),
            "delays": delays,
            "prediction_length": len(words),
            "reference": reference,
            "source": [source],
            "source_length": milliseconds(frames),
        }
        with user_errors(types=(OSError,)), naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
