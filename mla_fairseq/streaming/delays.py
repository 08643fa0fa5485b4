"""When the words of a translation are emitted: what an agent would do, computed for finished sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mla_fairseq.speech.features import SAMPLE_RATE, SHIFT, WINDOW
from mla_fairseq.streaming.words import words


def milliseconds(frames: int) -> float:
    """Return the shortest audio, in ms, that has so many filter-bank frames."""
    return (WINDOW + SHIFT * (frames - 1)) * 1000 / SAMPLE_RATE if frames else 0.0


@dataclass(frozen=True)
class Clock:
    """When encoder states become available.

    Attributes:
        chunk: encoder states in a chunk of the encoder.
        frames_before: frames needed for so many encoder states (``SpeechEncoder.frames_before``).
        segment: ms of audio that arrive at once.
    """

    chunk: int
    frames_before: Callable[[int], int]
    segment: float

    def arrival(self, states: int, frames: int) -> float:
        """Return the ms of audio after which the first ``states`` encoder states are available.

        ``frames`` is the length of the recording. Where it has fewer states, that is its end.
        """
        length = milliseconds(frames)
        needed = self.frames_before(math.ceil(states / self.chunk) * self.chunk)
        if needed > frames:
            return length
        return min(length, math.ceil(milliseconds(needed) / self.segment) * self.segment)


Reads = Callable[[int], int]
"""The encoder states that a token, from 0, reads in a source that is long enough."""


def longest(reads: Reads, frames_before: Callable[[int], int], frames: int, a: float, b: float) -> int:
    """Return the most tokens that a session allows in ``frames`` frames; a and b are its ``max_len_a`` and ``_b``."""
    token = 0
    while token < max(1, int(a * min(frames, frames_before(reads(token))) + b)):
        token += 1
    return token


def word_delays(pieces: Sequence[str], frames: int, reads: Reads, clock: Clock) -> tuple[list[str], list[float]]:
    """Return the words of a finished sentence and the delay of each in ms.

    A word is emitted with the token that shows it to be whole: the first of the next word, or the end of the sentence.
    """
    found = list(words(pieces))
    return [text for text, _ in found], [clock.arrival(reads(token), frames) for _, token in found]
