"""When the words of a translation appear: what the agent would do, computed for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mla_fairseq.speech.features import SAMPLE_RATE, SHIFT, WINDOW
from mla_fairseq.streaming.words import words


def milliseconds(frames: int) -> float:
    """Audio that has to come before so many frames are there, and the length of a recording that gives no more."""
    return (WINDOW + SHIFT * (frames - 1)) * 1000 / SAMPLE_RATE if frames else 0.0


@dataclass(frozen=True)
class Clock:
    """When encoder states are there.

    Attributes:
        chunk: encoder states in a chunk of the encoder.
        frames_before: frames that must have come before so many states are there (``SpeechEncoder.frames_before``).
        segment: milliseconds of audio that come at once.
    """

    chunk: int
    frames_before: Callable[[int], int]
    segment: float

    def arrival(self, states: int, frames: int) -> float:
        """Milliseconds from the start of a recording of ``frames`` frames until its first ``states`` states are there.

        The end of the recording, if they never are.
        """
        length = milliseconds(frames)
        needed = self.frames_before(math.ceil(states / self.chunk) * self.chunk)
        if needed > frames:
            return length
        return min(length, math.ceil(milliseconds(needed) / self.segment) * self.segment)


Reads = Callable[[int], int]
"""Encoder states that a token, from 0, is written upon, if there are as many."""


def longest(reads: Reads, frames_before: Callable[[int], int], frames: int, a: float, b: float) -> int:
    """How many tokens a session lets a sentence of so many frames have, given ``max_len_a`` and ``max_len_b``."""
    token = 0
    while token < max(1, int(a * min(frames, frames_before(reads(token))) + b)):
        token += 1
    return token


def word_delays(pieces: Sequence[str], frames: int, reads: Reads, clock: Clock) -> tuple[list[str], list[float]]:
    """Each word of a finished sentence and its delay in milliseconds.

    A word goes out with the token that shows it to be whole: the first of the next word, or the end of the sentence.
    """
    found = list(words(pieces))
    return [text for text, _ in found], [clock.arrival(reads(token), frames) for _, token in found]
