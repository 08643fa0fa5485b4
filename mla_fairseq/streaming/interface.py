"""What sessions need of a model, so that those in PyTorch and exported ones share them. Imports no torch."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.streaming.boundary import Judge
from mla_fairseq.streaming.words import join

log = logging.getLogger(__name__)


class Source(ABC):
    """The source side of a session: samples in, encoder states out.

    Attributes:
        samples: number of samples so far.
        frames: number of filter-bank frames so far (10 ms each).
        states: encoder states that are available and not taken.
        taken: number of encoder states taken.
        ended: whether the recording has ended.
        discarding: whether new audio is checked and dropped, because no token will be decoded from it.
        judge: the boundary output of every new state, also while ``discarding``; ``None`` unless ``listen`` was called.
    """

    samples: int
    frames: int
    states: Any
    taken: int
    ended: bool
    discarding: bool
    judge: Judge | None

    @property
    def available(self) -> int:
        """Return the number of encoder states so far, including those taken."""
        return self.taken + len(self.states)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Return the bytes of tensors and samples kept from one push to the next."""

    @abstractmethod
    def push(self, samples: ArrayLike, final: bool = False) -> None:
        """Process the next samples (N,) at 16 kHz; ``final`` ends the recording.

        Raises:
            ValueError: the samples are not one channel of speech; the source is unchanged.
            RuntimeError: the recording has ended.
        """

    @abstractmethod
    def listen(self) -> None:
        """Let the boundary output judge the states from now on; call it before the first push."""

    @abstractmethod
    def discard(self) -> None:
        """Free the encoder states and encode nothing more, unless a judge still listens."""

    @abstractmethod
    def fork(self) -> Self:
        """Return an independent copy. Copies no tensor."""


class Hypotheses(ABC):
    """The decoder state of one sentence, for the hypotheses of a beam.

    Attributes:
        decoded: number of tokens decoded.
        at_end: whether the last token was decoded only because no more states will follow.
    """

    decoded: int
    at_end: bool

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Return the bytes kept from one token to the next."""

    @abstractmethod
    def states_read(self, source: Any) -> int:
        """Return how many encoder states of the sentence the decoder was given."""

    @abstractmethod
    def step(self, tokens: NDArray, source: Any, states: int, at_end: bool) -> NDArray | None:
        """Return scores (B, V) of the tokens after ``tokens`` (B,), given the first ``states`` states.

        ``at_end``: the tokens may read them only because no more states will follow.

        Returns:
            Log-probabilities, or joint scores with CTC; ``None``: the model needs more states, and nothing is decoded.
        """

    @abstractmethod
    def keep(self, parents: NDArray) -> None:
        """Continue hypothesis ``parents[i]`` (int64) at index i; drop all others."""

    @abstractmethod
    def fork(self) -> Self:
        """Return an independent copy. Copies no tensor."""


class Redecoding(ABC):
    """One decoding of a sentence from all encoder states available, after the tokens that are given."""

    @abstractmethod
    def attend(self, token: int) -> tuple[NDArray, list[float]]:
        """Return scores (V,) of the token after ``token``, and the mean weights of the heads over the states."""

    @abstractmethod
    def step(self, tokens: NDArray) -> NDArray:
        """Return scores (B, V) of the tokens after ``tokens`` (B,): log-probabilities, or joint ones with CTC."""

    @abstractmethod
    def keep(self, parents: NDArray) -> None:
        """Continue hypothesis ``parents[i]`` (int64) at index i; drop all others."""


class StreamingModel(ABC):
    """A model that sessions translate with. They share it and do not change it.

    Attributes:
        eos, pad: special symbols of the dictionary.
        streams: whether the encoder is chunked.
        monotonic: whether the model has monotonic attention.
        has_boundary: whether the encoder has a boundary output.
        attention: decoder layers, and heads of each, whose weights ``redecode`` can return; (0, 0): none.
        wait_k: the wait-k rule that the model was trained with; ``None`` for an offline or monotonic model.
        languages: target languages of a multilingual model; none for a model of one language.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    @property
    @abstractmethod
    def eos(self) -> int: ...

    @property
    @abstractmethod
    def pad(self) -> int: ...

    @property
    @abstractmethod
    def streams(self) -> bool: ...

    @property
    @abstractmethod
    def monotonic(self) -> bool: ...

    @property
    @abstractmethod
    def has_boundary(self) -> bool: ...

    @property
    @abstractmethod
    def attention(self) -> tuple[int, int]: ...

    @property
    @abstractmethod
    def wait_k(self) -> WaitK | None: ...

    @property
    @abstractmethod
    def languages(self) -> list[str]: ...

    @abstractmethod
    def forced(self, language: str | None) -> list[int]:
        """Return the tokens that every translation into ``language`` begins with.

        Raises:
            ValueError: an unknown language, none for a multilingual model, or one for a model of one language.
        """

    @abstractmethod
    def check_ctc(self) -> None:
        """Check that the model has a CTC output for the translation.

        Raises:
            ValueError: it has none.
        """

    @abstractmethod
    def frames_before(self, states: int) -> int:
        """Return the frames that must have arrived for the first ``states`` states, unless the recording ends."""

    @abstractmethod
    def begin_source(self) -> Source:
        """Return the source of a new recording."""

    @abstractmethod
    def begin_sentence(self, ctc_weight: float = 0.0) -> Hypotheses:
        """Return the decoder state of a new sentence; ``ctc_weight``: that of CTC prefix scores."""

    @abstractmethod
    def redecode(
        self,
        states: Any,
        given: Sequence[int],
        layer: int | None,
        heads: Sequence[int],
        ctc_weight: float = 0.0,
        ended: bool = False,
    ) -> Redecoding:
        """Return a new decoding from all ``states`` after the tokens ``given``.

        Args:
            states: encoder states of a ``Source``.
            given: tokens forced and committed so far.
            layer: decoder layer whose cross-attention weights ``attend`` returns; ``None``: no weights.
            heads: heads to average.
            ctc_weight: weight of CTC prefix scores.
            ended: whether no more states will follow.
        """

    @abstractmethod
    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return the subword pieces of ``tokens``."""

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of ``tokens``, as fairseq prints it."""
        return join(self.pieces(tokens))

    @staticmethod
    def places(scores: NDArray, count: int) -> NDArray:
        """Return the indices of the ``count`` largest ``scores`` (N,), largest first; of equal ones the first."""
        least = np.partition(scores, -count)[-count]
        enough = np.flatnonzero(scores >= least)
        return enough[np.argsort(-scores[enough], kind="stable")][:count]

    def log_once(self, message: str) -> None:
        """Log a message about the model, only the first time."""
        if message not in self._logged:
            self._logged.add(message)
            log.info(message)
