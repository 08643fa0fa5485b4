"""Detectors of speech: one answer for each block of samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import numpy as np

from mla_fairseq.speech.pauses import PauseDetector
from mla_fairseq.streaming.silero import SileroDetector

BLOCK = 640
"""Samples in one block: 40 ms, the length of an encoder state."""


class Detector(Protocol):
    """Answers for one block after another whether it is speech."""

    def push(self, block: np.ndarray) -> bool:
        """Return whether the next block, (640,) float32 in [-1, 1], is speech at its end."""

    def fork(self) -> Self:
        """Return an independent copy."""


class EnergyDetector:
    """A detector by energy: speech is ``MARGIN`` above the noise floor that ``PauseDetector`` follows.

    It needs a quiet recording: noise above -50 dB, or noise that begins within a recording, is taken for speech.
    """

    def __init__(self) -> None:
        self.levels = PauseDetector()

    def push(self, block: np.ndarray) -> bool:
        """Return whether the last 20 ms of the next block (640,) are speech."""
        self.levels.push(block)
        # one frame of two, so that every pause of 8 frames has 4 blocks without speech
        return self.levels.loud_until == self.levels.sample

    def fork(self) -> EnergyDetector:
        """Return an independent copy."""
        other = copy.copy(self)
        other.levels = copy.copy(self.levels)
        return other


DETECTORS: dict[str, Callable[[], Detector]] = {"energy": EnergyDetector, "silero": SileroDetector}
"""Detectors by the names that commands have for them."""
BOUNDARY = "boundary"
"""The name of the boundary output of a model, which ``LongSession`` uses without a detector."""
DETECTOR_NAMES = (*DETECTORS, BOUNDARY)
"""What ``--detector`` may be."""


def named_detector(name: str | None, boundary: bool) -> Detector | None:
    """Return a new detector by its name; ``None``: the choice of ``LongSession``.

    Args:
        name: one of ``DETECTOR_NAMES``, or ``None``.
        boundary: whether the model has a boundary output.

    Raises:
        ValueError: the name is unknown, or the model has no boundary output.
        UserError: the packages of the detector are not installed.
    """
    if name not in (None, *DETECTOR_NAMES):
        raise ValueError(f"the detector is unknown ({name!r}): use one of {', '.join(DETECTOR_NAMES)}")
    if name == BOUNDARY and not boundary:
        raise ValueError("this model has no boundary output: use --detector energy, or train with --boundary-weight")
    return DETECTORS[name]() if name in DETECTORS else None


def check_detector(detector: object) -> None:
    """Check that a detector is ``None``, or an object with the methods of ``Detector``.

    Raises:
        ValueError: it is a class, or lacks a method.
    """
    lacking = [name for name in ("push", "fork") if not callable(getattr(detector, name, None))]
    if detector is not None and (isinstance(detector, type) or lacking):
        raise ValueError(
            f"this is no detector ({detector!r}): give an object with push(block) and fork(), such as EnergyDetector()"
        )


def onset(speech: Sequence[bool], pause: int) -> int:
    """Return the first block of speech after the last pause; ``len(speech)`` if there is none.

    Args:
        speech: whether each block is speech.
        pause: blocks without speech that make a pause.
    """
    first, quiet = len(speech), 0
    for place, loud in enumerate(speech):
        quiet = 0 if loud else quiet + 1
        if quiet >= pause:
            first = len(speech)
        elif loud and first == len(speech):
            first = place
    return first


def first_pause(speech: Sequence[bool], pause: int, after: int) -> int | None:
    """Return the first of ``pause`` blocks without speech, from block ``after`` on; ``None`` without a pause."""
    quiet = 0
    for place in range(after, len(speech)):
        quiet = 0 if speech[place] else quiet + 1
        if quiet == pause:
            return place - pause + 1
    return None
