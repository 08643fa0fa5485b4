"""Find the pauses of speech by its energy, as samples arrive, and cut long recordings there.

The settings were measured on read speech with a noise floor of -60 dB or less. In noise above -50 dB the detector finds
too many or too few pauses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mla_fairseq.speech.samples import INT16_RANGE, SAMPLE_RATE, to_kaldi_scale

FRAME = 320  # samples whose energy is one level: 20 ms
PAUSE = 0.16  # seconds of quiet that end a run of speech
KEPT = 0.06  # seconds kept before speech: less cuts onsets off, more delays a simultaneous policy
MARGIN = 12.0  # dB above the noise floor from which a frame is speech
RISE = 0.02  # dB per frame by which the floor follows noise that becomes louder: 1 dB/s
FLOORS = (-72.0, -40.0)  # dB of full scale: lowest floor, and floor before the first frame


@dataclass(frozen=True)
class Edge:
    """A place where speech starts or has ended.

    Attributes:
        sample: samples from the start of the recording.
        starts: whether speech starts there; otherwise it has ended there.
    """

    sample: int
    starts: bool


class PauseDetector:
    """Report where speech starts and ends in a recording whose samples arrive in chunks of any size.

    A frame is speech if its level is ``MARGIN`` above the noise floor, a running minimum of the levels that may rise
    slowly. A start is reported with the first such frame, an end once ``pause`` seconds without one have passed. The
    edges do not depend on the sizes of the chunks. Memory is constant, and attributes are replaced, never changed in
    place, so ``copy.copy(detector)`` is a snapshot.

    Args:
        pause: shortest pause that ends speech, in seconds.

    Attributes:
        speaking: whether the last frame belongs to speech or to a pause that is still too short.

    Raises:
        ValueError: a pause shorter than a frame (20 ms).
    """

    def __init__(self, pause: float = PAUSE) -> None:
        if not pause * SAMPLE_RATE >= FRAME:
            raise ValueError(f"a pause of {pause} s is shorter than 0.02 s: increase it")
        self.pause = round(pause * SAMPLE_RATE)
        self.tail = np.empty(0, np.float32)
        self.floor = FLOORS[1]
        self.sample = 0
        self.loud_until = 0
        self.speaking = False
        self.finished = False

    def push(self, samples: ArrayLike, final: bool = False) -> list[Edge]:
        """Return the edges that the next samples (N,) at 16 kHz reveal; float in [-1, 1] or int16, N may be 0.

        ``final`` ends the recording, and speech that has not ended.

        Raises:
            ValueError: samples that ``to_kaldi_scale`` refuses.
            RuntimeError: the recording has ended.
        """
        if self.finished:
            raise RuntimeError("push after final=True: the recording has ended, use a new detector")
        waiting = np.concatenate([self.tail, to_kaldi_scale(samples)])
        edges = [edge for level in levels(waiting) if (edge := self._step(level))]
        self.tail = waiting[len(waiting) // FRAME * FRAME :]
        self.finished = bool(final)
        if final and self.speaking:
            self.speaking = False
            edges.append(Edge(self.loud_until, starts=False))
        return edges

    def _step(self, level: float) -> Edge | None:
        self.floor = max(FLOORS[0], min(level, self.floor + RISE))  # falls at once, rises slowly
        self.sample += FRAME
        if level > self.floor + MARGIN:
            started, self.speaking, self.loud_until = not self.speaking, True, self.sample
            return Edge(self.sample - FRAME, starts=True) if started else None
        if self.speaking and self.sample - self.loud_until >= self.pause:
            self.speaking = False
            return Edge(self.loud_until, starts=False)
        return None


def levels(samples: np.ndarray) -> list[float]:
    """Return the level of each complete frame of samples (N,) in Kaldi's scale, in dB of full scale."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64) / INT16_RANGE
    return (10 * np.log10(np.square(frames).mean(axis=1) + 1e-9)).tolist()


def stretches(samples: ArrayLike, longest: float, pause: float | None = None) -> list[tuple[int, int]]:
    """Return the stretches of speech in a recording, each as its samples (start, stop).

    Speech is cut at its longest pause until no stretch is longer than ``longest``; where it has no pause, at a quiet
    moment. Silence is left out, except for ``KEPT`` seconds before and ``PAUSE`` seconds after a stretch.

    Args:
        samples: (N,) at 16 kHz, float in [-1, 1] or int16.
        longest: longest stretch, in seconds.
        pause: cut at every pause of at least so many seconds too.

    Raises:
        ValueError: samples that ``to_kaldi_scale`` refuses, less than a second for ``longest``, or a pause that
            ``PauseDetector`` refuses.
    """
    if not longest >= 1:
        raise ValueError(f"a longest stretch of {longest} s is below 1 s: increase it")
    scaled = to_kaldi_scale(samples)
    detector = PauseDetector(PAUSE if pause is None else min(PAUSE, pause))
    # a stream starts without a noise floor; here it is known from the first second
    detector.floor = min([detector.floor, *levels(scaled[:SAMPLE_RATE])])
    edges = detector.push(samples, final=True)
    runs = [(start.sample, stop.sample) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    most, enough = (longest - KEPT - PAUSE) * SAMPLE_RATE, np.inf if pause is None else pause * SAMPLE_RATE
    found, todo = [], [runs] if runs else []
    while todo:
        part = todo.pop()
        (start, _), (_, stop), place = part[0], part[-1], _widest(part)
        if place and (stop - start > most or _gap(part, place) >= enough):
            todo += [part[place:], part[:place]]
        elif stop - start > most:
            cut = _quietest(scaled, start, stop)
            todo += [[(cut, stop)], [(start, cut)]]
        else:
            found.append((start, stop))
    return _with_margins(found, len(scaled))


def _gap(runs: list[tuple[int, int]], place: int) -> int:
    return runs[place][0] - runs[place - 1][1]


def _widest(runs: list[tuple[int, int]]) -> int:
    """Return the run after the longest pause; 0 without a pause; of equal ones the most central."""
    places = range(1, len(runs))
    return max(places, key=lambda place: (_gap(runs, place), -abs(2 * place - len(runs))), default=0)


def _quietest(samples: np.ndarray, start: int, stop: int) -> int:
    """Return the middle of the quietest frame in the middle third of a stretch, so that no part is short."""
    third = (stop - start) // 3
    frame = int(np.argmin(levels(samples[start + third : stop - third])))
    return start + third + frame * FRAME + FRAME // 2


def _with_margins(found: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Add the margins to stretches, as far as they neither overlap nor leave the recording."""
    before, after = round(KEPT * SAMPLE_RATE), round(PAUSE * SAMPLE_RATE)
    ends = [0, *(stop for _, stop in found)]
    starts = [*(max(start - before, end) for (start, _), end in zip(found, ends[:-1], strict=True)), length]
    return [(starts[place], min(stop + after, starts[place + 1])) for place, (_, stop) in enumerate(found)]
