"""Find the ends of sentences by the boundary output of an encoder, while its states arrive."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FIRST = 10  # states of a sentence before the first one at which it can end
ENDED = 0.5  # probability above which a sentence has ended
WITNESSED = 0.25  # the same once the decoder has ended the sentence
PATIENCE = 15  # judged states after which the end of the decoder is believed without the boundary output
COMPARED = 3  # states whose probabilities are compared: the output is trained to be high at three


class BoundaryStream:
    """The boundary output of an encoder, for states that arrive one chunk after another.

    A state is judged once ``boundary.ahead`` states after it are known, so its probabilities never change. Attributes
    are replaced, never changed in place.

    Args:
        boundary: maps encoder states (S, B, C) to logits (S, B, 2), "a sentence ended here" and "speech is here", from
            a window of ``boundary.back`` states before each state and ``boundary.ahead`` after it.

    Attributes:
        window: (n, 1, C), the states that are not judged, and those before them that they need.
        ended: (states,), the probability that a sentence ended at each judged state.
        speech: (states,), the probability that a judged state is speech.
    """

    def __init__(self, boundary: Any) -> None:
        self.boundary = boundary
        self.window: Tensor | None = None
        self.waiting = 0
        self.ended: NDArray = np.zeros(0, np.float32)
        self.speech: NDArray = np.zeros(0, np.float32)

    @property
    def nbytes(self) -> int:
        """Return the bytes kept from one call to the next."""
        return self.ended.nbytes + self.speech.nbytes + (0 if self.window is None else self.window.nbytes)

    @torch.no_grad()
    def push(self, states: Tensor, final: bool = False) -> None:
        """Judge what the next encoder states (n, 1, C) complete; all of them if they are the last (``final``)."""
        known = states if self.window is None else torch.cat((self.window, states))
        first = len(known) - len(states) - self.waiting
        last = len(known) if final else max(first, len(known) - self.boundary.ahead)
        if last > first:
            judged = self.boundary(known)[first:last, 0].float().sigmoid().cpu().numpy()
            self.ended = np.append(self.ended, judged[:, 0])
            self.speech = np.append(self.speech, judged[:, 1])
        # a view would keep all states in memory
        self.window = known[max(0, last - self.boundary.back) :].clone()
        self.waiting = len(known) - last

    def fork(self) -> BoundaryStream:
        """Return an independent copy. Copies no tensor."""
        return copy.copy(self)


def sentence_end(ended: NDArray, decoded: int | None) -> int | None:
    """Return the state at which a sentence ended; ``None``: not yet known.

    It is the likeliest of the first state that is likely enough and the two after it. A decoder that has ended its
    sentence is a witness: less is likely enough then, and some states later the likeliest one is taken.

    Args:
        ended: (states,), probabilities of the judged states.
        decoded: encoder states available when the decoder ended the sentence; ``None``: it has not.
    """
    likely = np.flatnonzero(ended[FIRST:] > (ENDED if decoded is None else WITNESSED)) + FIRST
    if len(likely):
        first = int(likely[0])
        known = first + COMPARED <= len(ended)
        return first + int(ended[first : first + COMPARED].argmax()) if known else None
    if decoded is not None and len(ended) >= max(decoded + PATIENCE, FIRST + 1):
        return FIRST + int(ended[FIRST:].argmax())
    return None
