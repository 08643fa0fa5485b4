"""Delays of emitted words: computed for finished sentences, and equal to what an agent logs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mla_fairseq.speech.samples import SAMPLE_RATE, SHIFT, WINDOW
from mla_fairseq.streaming.words import words


def milliseconds(frames: int) -> float:
    """Return the length in ms of the shortest audio that has this many filter-bank frames."""
    return (WINDOW + SHIFT * (frames - 1)) * 1000 / SAMPLE_RATE if frames else 0.0


@dataclass(frozen=True)
class Clock:
    """The times at which encoder states become available.

    Attributes:
        chunk: encoder states in one chunk of the encoder; they become available together.
        frames_before: maps a number of encoder states to the frames they need (``SpeechEncoder.frames_before``).
        segment: length in ms of the segments in which the audio arrives.
    """

    chunk: int
    frames_before: Callable[[int], int]
    segment: float

    def arrival(self, states: int, frames: int) -> float:
        """Return the ms of audio after which the first ``states`` encoder states are available.

        ``frames`` is the length of the recording. If it has fewer states, return the time of its end.
        """
        length = milliseconds(frames)
        needed = self.frames_before(math.ceil(states / self.chunk) * self.chunk)  # the chunk must be complete
        if needed > frames:
            return length
        return min(length, math.ceil(milliseconds(needed) / self.segment) * self.segment)


Reads = Callable[[int], int]
"""Maps a token, counted from 0, to the encoder states that it reads in a source that is long enough."""


def longest(reads: Reads, frames_before: Callable[[int], int], frames: int, a: float, b: float) -> int:
    """Return the largest number of tokens that a session allows in a recording of ``frames`` frames.

    ``a`` and ``b`` are the session's ``max_len_a`` and ``max_len_b``. As in the session, the limit counts only the
    frames that the token may read, so it does not depend on audio that has not arrived.
    """
    token = 0
    while token < max(1, int(a * min(frames, frames_before(reads(token))) + b)):
        token += 1
    return token


def word_delays(pieces: Sequence[str], frames: int, reads: Reads, clock: Clock) -> tuple[list[str], list[float]]:
    """Return the words of a finished sentence and the delay of each word in ms.

    A word is emitted with the token that completes it: the first token of the next word, or the end of the sentence.

    Args:
        pieces: subword pieces of the sentence.
        frames: length of the recording in filter-bank frames.
        reads: encoder states that each token reads.
        clock: when encoder states become available.
    """
    found = list(words(pieces))
    return [text for text, _ in found], [clock.arrival(reads(token), frames) for _, token in found]
