"""The source side of a session: samples in, encoder states out, by the graphs of frontend and encoder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mla_fairseq.edge.runtime.graph import Arrays, State, nbytes
from mla_fairseq.edge.runtime.names import UNKNOWN
from mla_fairseq.speech.samples import INT16_RANGE, SHIFT, WINDOW, as_bool, num_frames, to_kaldi_scale
from mla_fairseq.streaming.boundary import Judge
from mla_fairseq.streaming.interface import Source

if TYPE_CHECKING:
    from mla_fairseq.edge.runtime.model import EdgeTranslator


class GraphSource(Source):
    """The encoder states of one recording while it arrives. Attributes are replaced, never changed in place.

    Attributes:
        model: the model.
        waiting: (N,), samples of the next window.
        states: (n, C), encoder states that are available and not taken.
        encoder_state: state of the encoder.
        encoded: states encoded; below 0 while the encoder is primed.
    """

    states: NDArray

    def __init__(self, model: EdgeTranslator) -> None:
        config = model.config
        self.model = model
        self.samples = self.frames = self.taken = 0
        self.ended = self.discarding = False
        self.judge: Judge | None = None
        # the graph ignores these frames; with them, a window has the frames ahead that its last state needs
        self.waiting = np.zeros(config.padding * SHIFT, np.float32)
        self.encoded = -config.lead
        self.encoder_state: State = model.encoder.fresh()
        self.states = np.zeros((0, model.encoder.shapes["states"][1]), np.float32)

    @property
    def nbytes(self) -> int:
        """Return the bytes of arrays kept from one push to the next."""
        judged = self.judge.nbytes if self.judge else 0
        return nbytes(self.encoder_state) + judged + self.states.nbytes + self.waiting.nbytes

    @property
    def total(self) -> int:
        """Return the number of states of the whole recording; ``UNKNOWN`` until it has ended."""
        return -(-self.frames // self.model.config.per_state) if self.ended else UNKNOWN

    def push(self, samples: ArrayLike, final: bool = False) -> None:
        """Process the next samples (N,) at 16 kHz; ``final`` ends the recording.

        Raises:
            ValueError: the samples are not one channel of speech (the source is unchanged), or the recording is longer
                than what the model was exported for.
            RuntimeError: the recording has ended.
        """
        final, new = as_bool(final, "final"), to_kaldi_scale(samples) / np.float32(INT16_RANGE)
        if self.ended:
            raise RuntimeError("push after final=True: the recording has ended, start a new stream or session")
        self.samples += len(new)
        self.frames, self.ended = num_frames(self.samples), final
        if self.judge or not self.discarding:
            self.waiting = np.concatenate((self.waiting, new))
            self._encode()

    def _encode(self) -> None:
        """Encode the windows that are complete; all of them once the recording has ended."""
        window = self.model.config.window
        needed = (window - 1) * SHIFT + WINDOW
        length = np.array([self.frames if self.ended else UNKNOWN])
        while self._unfinished() if self.ended else len(self.waiting) >= needed:
            part = self.waiting[:needed]
            if len(part) < needed:
                part = np.pad(part, (0, needed - len(part)))
            frames = self.model.frontend.run({"samples": part[None]}, {})[0]["frames"]
            found, self.encoder_state = self.model.encoder.run({"frames": frames, "length": length}, self.encoder_state)
            self.waiting = self.waiting[window * SHIFT :]
            self._add(found)
        self.waiting = self.waiting.copy()  # a view would keep all samples in memory

    def _unfinished(self) -> bool:
        """Return whether states of a recording that has ended are not encoded or not judged yet."""
        judged = len(self.judge.ended) if self.judge else self.total
        return min(self.encoded, judged) < self.total

    def _add(self, found: Arrays) -> None:
        """Add the results of a call."""
        first, self.encoded = self.encoded, self.encoded + len(found["states"])
        most = self.model.config.most_states
        if most is not None and min(self.encoded, self.total) > most:
            seconds = most * self.model.config.per_state / 100
            raise ValueError(
                f"the recording is longer than the {seconds:g} s for which the model was exported: use a LongSession "
                "with a smaller longest, or export the model again"
            )
        if not self.discarding:
            self.states = np.concatenate((self.states, self._real(found["states"], first)))
        if self.judge and (ahead := self.model.config.boundary_ahead) is not None:
            self.judge.add(1 / (1 + np.exp(-self._real(found["boundary"], first - ahead))))

    def _real(self, rows: NDArray, first: int) -> NDArray:
        """Return those of ``rows``, which begin with state ``first``, that are of states of the recording."""
        return rows[max(0, -first) : max(0, self.total - first)]

    def take(self, upto: int) -> NDArray:
        """Remove and return the encoder states (n, C) before ``upto``, counted from the start of the recording."""
        count = max(0, upto - self.taken)
        taken, self.states = self.states[:count], self.states[count:].copy()
        self.taken += len(taken)
        return taken

    def listen(self) -> None:
        """Let the boundary output judge the states from now on."""
        self.judge = Judge()

    def discard(self) -> None:
        """Free the encoder states and encode nothing more, unless a judge still listens."""
        self.discarding, self.states = True, self.states[:0].copy()
        if not self.judge:
            self.encoder_state, self.waiting = {}, self.waiting[:0].copy()

    def fork(self) -> Self:
        """Return an independent copy. Copies no array."""
        other = copy.copy(self)
        other.judge = self.judge.fork() if self.judge else None
        return other
