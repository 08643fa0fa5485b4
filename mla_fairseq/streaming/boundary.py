"""Find the ends of sentences by the boundary output of an encoder, while its states arrive. Imports no torch."""

from __future__ import annotations

import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

FIRST = 10  # states of a sentence before the first one at which it can end
ENDED = 0.5  # probability above which a sentence has ended
WITNESSED = 0.25  # the same once the decoder has ended the sentence
PATIENCE = 15  # judged states after which the end of the decoder is believed without the boundary output
COMPARED = 3  # states whose probabilities are compared: the output is trained to be high at three


class Judge:
    """What the boundary output of an encoder has found so far. Attributes are replaced, never changed in place.

    Attributes:
        ended: (states,), the probability that a sentence ended at each judged state.
        speech: (states,), the probability that a judged state is speech.
    """

    def __init__(self) -> None:
        self.ended: NDArray = np.zeros(0, np.float32)
        self.speech: NDArray = np.zeros(0, np.float32)

    @property
    def nbytes(self) -> int:
        """Return the bytes kept from one call to the next."""
        return self.ended.nbytes + self.speech.nbytes

    def add(self, judged: NDArray) -> None:
        """Add the probabilities (n, 2) of the next states: a sentence ended here, speech is here."""
        self.ended, self.speech = np.append(self.ended, judged[:, 0]), np.append(self.speech, judged[:, 1])

    def fork(self) -> Self:
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
