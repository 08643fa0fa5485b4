"""The decoder state of a sentence, and decodings from scratch, by the graphs of reader and decoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from mla_fairseq.edge.runtime.graph import Arrays, State, nbytes
from mla_fairseq.edge.runtime.source import GraphSource
from mla_fairseq.streaming.interface import Hypotheses, Redecoding

if TYPE_CHECKING:
    from mla_fairseq.edge.runtime.model import EdgeTranslator


class Memories:
    """The state of reader and decoder. Arrays are replaced, never changed in place.

    Attributes:
        cross: memories of the encoder states read, common to all hypotheses.
        own: memories of the tokens decoded; dim 0 is the hypothesis, but for their number.
        size: number of hypotheses; the graph computes more if it was exported for more.
    """

    def __init__(self, model: EdgeTranslator) -> None:
        self.model = model
        self.cross: State = model.reader.fresh(model.decoder)
        self.own: State = model.decoder.fresh()
        self.decoded, self.size = 0, 1

    @property
    def nbytes(self) -> int:
        """Return the bytes kept from one token to the next."""
        return nbytes(self.cross) + nbytes(self.own)

    def read(self, states: NDArray) -> None:
        """Add encoder states (n, C) to the memories."""
        chunk = self.model.config.chunk
        for start in range(0, len(states), chunk):
            part = states[start : start + chunk]
            count = np.array([len(part)])
            if len(part) < chunk:
                part = np.pad(part, ((0, chunk - len(part)), (0, 0)))
            _, self.cross = self.model.reader.run({"states": part, "count": count}, self.cross)

    def decode(self, tokens: NDArray, ended: bool = False) -> Arrays:
        """Return ``scores`` (B, V) of the tokens after ``tokens`` (B,), and what monotonic heads did.

        ``ended``: the states read are all of the speech; only monotonic heads ask for it.

        Raises:
            ValueError: the sentence is longer than what the model was exported for.
        """
        most = self.model.config.most_tokens
        if most is not None and self.decoded >= most:
            raise ValueError(
                f"the sentence is longer than the {most} tokens for which the model was exported: lower max_len_a or "
                "max_len_b, or export the model again"
            )
        decoder = self.model.decoder
        given = self.cross | {"tokens": np.resize(tokens, decoder.shapes["tokens"]), "ended": np.array([int(ended)])}
        data = {name: given[name] for name in decoder.data}
        found, self.own = decoder.run(data, self.own)
        self.decoded += 1
        return {name: rows[: len(tokens)] for name, rows in found.items()}  # without the hypotheses repeated above

    def keep(self, parents: NDArray) -> None:
        """Continue hypothesis ``parents[i]`` (int64) at index i; drop all others."""
        if len(parents) and parents.tolist() != list(range(self.size)):  # greedy search never copies its state
            order = np.resize(parents, self.model.decoder.shapes["tokens"])
            self.own = {name: array[order] if len(array) > 1 else array for name, array in self.own.items()}
        self.size = len(parents)


class GraphHypotheses(Hypotheses):
    """The decoder state of one sentence.

    Attributes:
        memories: the state; a copy is an exact snapshot.
        fed: encoder states given to monotonic heads, counted from the start of the recording.
        fed_all: whether the heads know that no more states will follow.
        waiting: whether the heads need more states than they were given.
    """

    def __init__(self, model: EdgeTranslator) -> None:
        self.memories = Memories(model)
        self.fed = 0
        self.fed_all = self.waiting = self.at_end = False

    @property
    def decoded(self) -> int:  # type: ignore[override]
        """Return the number of tokens decoded."""
        return self.memories.decoded

    @property
    def nbytes(self) -> int:
        """Return the bytes kept from one token to the next."""
        return self.memories.nbytes

    def states_read(self, source: GraphSource) -> int:
        """Return how many encoder states of the sentence the decoder was given."""
        return max(self.fed, source.taken)

    def step(self, tokens: NDArray, source: GraphSource, states: int, at_end: bool) -> NDArray | None:
        """Return log-probabilities (B, V) of the tokens after ``tokens`` (B,), given the first ``states`` states.

        Monotonic heads read as many of them as they need. If they need more, return ``None`` and decode nothing.
        """
        if self.memories.model.monotonic:
            scores = self._attempt(tokens, source, states)
            return None if scores is None else log_softmax(scores)
        self.memories.read(source.take(states))
        return log_softmax(self.memories.decode(tokens)["scores"])

    def _attempt(self, tokens: NDArray, source: GraphSource, upto: int) -> NDArray | None:
        """Return scores (B, V) of a step with monotonic heads; take only the encoder states that they have read."""
        new = source.states[self.fed - source.taken : upto - source.taken]
        if len(new) or source.ended > self.fed_all:
            self.memories.read(new)
            self.fed, self.fed_all, self.waiting = self.fed + len(new), source.ended, False
        if self.waiting:
            return None
        before = copy.copy(self.memories)
        found = self.memories.decode(tokens, self.fed_all)
        self.at_end = bool(found["waiting"].any())
        if self.at_end and not self.fed_all:  # more states may follow: undo the attempt
            self.memories, self.waiting = before, True
            return None
        source.take(int(found["seen"].max()))
        return found["scores"]

    def keep(self, parents: NDArray) -> None:
        """Continue hypothesis ``parents[i]`` (int64) at index i; drop all others."""
        self.memories.keep(parents)

    def fork(self) -> Self:
        """Return an independent copy. Copies no array."""
        other = copy.copy(self)
        other.memories = copy.copy(self.memories)
        return other


class GraphRedecoding(Redecoding):
    """One decoding of a sentence from all encoder states available, after the tokens that are given.

    Args:
        model: the model.
        states: (S, C), encoder states.
        given: ``eos`` and the tokens forced and committed so far; the last one is the input of the next step.
    """

    def __init__(self, model: EdgeTranslator, states: NDArray, given: Sequence[int]) -> None:
        self.memories = Memories(model)
        self.memories.read(states)
        for token in given[:-1]:
            self.memories.decode(np.array([token]))

    def attend(self, token: int) -> tuple[NDArray, list[float]]:
        """Return scores (V,) of the token after ``token``, and no weights."""
        return self.memories.decode(np.array([token]))["scores"][0], []

    def step(self, tokens: NDArray) -> NDArray:
        """Return log-probabilities (B, V) of the tokens after ``tokens`` (B,)."""
        return log_softmax(self.memories.decode(tokens)["scores"])

    def keep(self, parents: NDArray) -> None:
        """Continue hypothesis ``parents[i]`` (int64) at index i; drop all others."""
        self.memories.keep(parents)


def log_softmax(scores: NDArray) -> NDArray:
    """Return log-probabilities (B, V) of scores."""
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
