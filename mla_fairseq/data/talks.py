"""Cut training sentences out of talks: what is before and after them, lost onsets, and noise, all in filter banks.

A long session starts a sentence in the middle of a talk: a little of the sentence before it may be left, or its onset
may be lost; the next one may follow at once. These are the sentences that a model needs to train on for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mla_fairseq.speech.features import NUM_BINS, filter_banks
from mla_fairseq.speech.samples import FRAMES_PER_STATE, INT16_RANGE, SAMPLE_RATE

QUIET = 4.0 * np.log(10)  # 40 dB in natural logarithms of power
LOST = 6  # most frames of an onset that are cut off
TAIL, GAP = 10, 20  # most frames of the sentence before, and of a pause after it
PAUSE, NEXT = 50, (20, 100)  # most frames of a pause after the sentence; frames of the next one
LONGEST = TAIL + GAP + PAUSE + NEXT[1]
"""Most frames that surround a sentence."""
READ = (-1, 9)  # encoder states from the end of the sentence to the last one that the decoder reads
NOISE = (-80.0, -38.0)  # dB of full scale
SILENCE = (-90.0, -50.0)  # louder noise here hides where one sentence ends and the next begins at once
_LEVEL = 100.0  # of the white noise that all levels are made from: its root mean square, of 16-bit samples


@dataclass(frozen=True)
class Ratios:
    """Fractions of the training sentences that each effect changes.

    Attributes:
        context: what is before and after the sentence in a talk.
        lost_onset: up to 60 ms are cut off its beginning.
        noise: white noise of -80 to -38 dB.
    """

    context: float = 0.0
    lost_onset: float = 0.0
    noise: float = 0.0


class Sentence(NamedTuple):
    """A sentence in its surroundings.

    Attributes:
        frames: (n, 80), log-mel filter banks, not normalised.
        speech: (n,), true for frames of speech, of this sentence or another one.
        end: the frame after the sentence.
        readable: frames that the decoder may read.
    """

    frames: np.ndarray
    speech: np.ndarray
    end: int
    readable: int


Draw = Callable[[], np.ndarray]
"""Return the frames of the sentence before, or of the next one."""


def spoken(frames: np.ndarray) -> tuple[int, int]:
    """Return the first frame of speech in filter banks (n, bins), and the one after the last.

    A frame is speech if it is less than 40 dB below the loudest one.
    """
    level = frames.max(1)  # the loudest bin
    loud = np.flatnonzero(level > level.max() - QUIET)
    return int(loud[0]), int(loud[-1]) + 1


def edges(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return as much of the end and of the beginning of the speech in filter banks (n, bins) as others are given."""
    start, stop = spoken(frames)
    return frames[max(start, stop - TAIL) : stop].copy(), frames[start : min(stop, start + NEXT[1])].copy()


class TalkCutter:
    """Cut sentences out of talks.

    Args:
        ratios: how many of them.
    """

    def __init__(self, ratios: Ratios) -> None:
        self.ratios = ratios
        samples = np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE)
        self.white = filter_banks(np.round(_LEVEL * samples).astype(np.int16))
        self.floor = filter_banks(np.zeros(SAMPLE_RATE, np.int16))[0]  # the logarithm of 0, as the front end has it

    def __call__(self, frames: np.ndarray, before: Draw, after: Draw, rng: np.random.Generator) -> Sentence:
        """Return a sentence of filter banks (n, 80), with all that is drawn from ``rng``."""
        context, lost, noisy = rng.random(3) < (self.ratios.context, self.ratios.lost_onset, self.ratios.noise)
        start, stop = spoken(frames)
        sentence, quiet = frames[start:stop], np.concatenate((frames[:start], frames[stop:]))
        lead, trail = [(frames[:start], False)], [(frames[stop:], False)]
        if context:
            lead, trail = self._lead(before, quiet, rng), self._trail(after, quiet, rng)
        if lost:
            lead, sentence = [], sentence[min(int(rng.integers(LOST + 1)), len(sentence) // 4) :]
        parts = [*lead, (sentence, True), *trail]
        whole = np.concatenate([part for part, _ in parts])
        end = sum(len(part) for part, _ in lead) + len(sentence)
        readable = end + FRAMES_PER_STATE * int(rng.integers(READ[0], READ[1] + 1)) if context else len(whole)
        speech = np.repeat([voiced for _, voiced in parts], [len(part) for part, _ in parts])
        return Sentence(self._noisy(whole, rng) if noisy else whole, speech, end, min(readable, len(whole)))

    def _lead(self, before: Draw, quiet: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, bool]]:
        """Return what is left of the sentence before, and perhaps a pause. A session keeps no more of it."""
        tail = before()[-int(rng.integers(1, TAIL + 1)) :] if rng.random() < 0.75 else self.white[:0]
        return [
            (tail, True),
            (self._silence(int(rng.integers(GAP + 1)) if rng.random() < 0.5 else 0, quiet, rng), False),
        ]

    def _trail(self, after: Draw, quiet: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, bool]]:
        """Return the beginning of the next sentence, at once or after a pause, or a pause alone."""
        kind = rng.random()
        if kind < 0.1:
            return [(self._silence(int(rng.integers(10, PAUSE + 1)), quiet, rng), False)]
        pause = self._silence(int(rng.integers(PAUSE + 1)) if kind < 0.5 else 0, quiet, rng)
        return [(pause, False), (after()[: int(rng.integers(NEXT[0], NEXT[1] + 1))], True)]

    def _silence(self, length: int, quiet: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return frames of a pause, (length, 80): those around the sentence, digital silence, or low noise."""
        kind = rng.random()
        if kind < 0.4 and len(quiet) > 4:
            return np.resize(quiet, (length, NUM_BINS))
        if kind > 0.95:
            return np.tile(self.floor, (length, 1))
        return self._noise(length, rng.uniform(*SILENCE), rng)

    def _noise(self, length: int, level: float, rng: np.random.Generator) -> np.ndarray:
        """Return filter banks (length, 80) of white noise of a level in dB of full scale."""
        place = int(rng.integers(max(1, len(self.white) - length)))
        white = np.resize(self.white[place : place + length], (length, NUM_BINS))
        root = INT16_RANGE * 10 ** (level / 20)
        return np.maximum(white + np.float32(2 * np.log(root / _LEVEL)), self.floor)

    def _noisy(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return filter banks (n, 80) with white noise: powers add, because the noise does not know the speech."""
        noise = self._noise(len(frames), rng.uniform(*NOISE), rng)
        # np.logaddexp takes eight times as long
        return np.maximum(frames, noise) + np.log(1 + np.exp(-np.abs(frames - noise)))
