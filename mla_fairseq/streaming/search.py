"""Beam search with a committed prefix: hypotheses that disagree with emitted words are dropped. Beam 1 is greedy.

Imports no torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mla_fairseq.streaming.checks import check_integer, check_scores, check_weight, is_finite


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search for hypotheses.

    Attributes:
        beam: number of hypotheses kept; 1 is greedy.
        lenpen: length penalty; above 1 favours longer translations.
        max_len_a, max_len_b: a sentence has at most ``max_len_a * frames + max_len_b`` tokens; a frame is 10 ms.
        tgt_lang: target language of a multilingual model, such as ``de``; its tag does not count as a token.
        ctc_weight: weight of CTC prefix scores, below 1; that of attention is 1 - ``ctc_weight``.

    Raises:
        ValueError: ``beam`` is not an integer of at least 1, the length penalty or a limit is not a finite number, the
            limits allow no token, or the weight is not from 0 to below 1.
    """

    beam: int = 1
    lenpen: float = 1.0
    max_len_a: float = 0.1
    max_len_b: int = 20
    tgt_lang: str | None = None
    ctc_weight: float = 0.0

    def __post_init__(self) -> None:
        check_integer("the beam", self.beam, 1)
        check_weight(self.ctc_weight)
        if not is_finite(self.lenpen):
            raise ValueError(f"lenpen (--lenpen) must be a finite number, but is {self.lenpen!r}")
        a, b = self.max_len_a, self.max_len_b
        if not is_finite(a, b) or a < 0 or b < 0 or a == b == 0:
            raise ValueError(
                "max_len_a and max_len_b (--max-len-a, --max-len-b) must be finite and at least 0, and one of them "
                f"above 0, but are {a!r} and {b!r}"
            )

    def longest(self, frames: int) -> int:
        """Return the largest number of tokens of a sentence of ``frames`` filter-bank frames, at least 1."""
        return max(1, int(self.max_len_a * frames + self.max_len_b))


GREEDY = SearchOptions()


class BeamSearch:
    """The hypotheses of one sentence.

    While more audio may arrive, only the best hypothesis may end the sentence, and it ends the search. After the end of
    the source (``at_end``), finished hypotheses are collected as in fairseq, and the best of them by
    log-probability / length ** lenpen wins.

    Args:
        options: beam and length penalty.
        eos, pad: special symbols of the dictionary.
        places: as ``StreamingModel.places``.
        prefix: committed tokens that every hypothesis starts with.
        forced: tokens before these, such as the tag of a target language. They are searched, and count in scores, as
            with ``fairseq-generate --prefix-size``.

    Attributes:
        tokens: (B, T), hypotheses sorted by score, best first; the first token is ``eos``, as in fairseq.
        scores: (B,), sums of log-probabilities.
        finished: score and tokens of each finished hypothesis.
        at_end: whether the last token was decoded only because the source has ended.
        ended: whether the sentence has ended.
    """

    def __init__(
        self,
        options: SearchOptions,
        eos: int,
        pad: int,
        places: Callable[[NDArray, int], NDArray],
        prefix: Sequence[int] = (),
        forced: Sequence[int] = (),
    ) -> None:
        self.options, self.eos, self.pad, self.places, self.forced = options, eos, pad, places, forced
        self.tokens = np.array([[eos, *forced, *prefix] if prefix else [eos]])
        self.scores = np.zeros(1, np.float32)
        self.finished: list[tuple[float, list[int]]] = []
        self.at_end = self.ended = False

    @property
    def best(self) -> list[int]:
        """Return the tokens of the best hypothesis, without ``eos`` and forced ones."""
        if self.ended:
            return max(self.finished, key=lambda scored: scored[0])[1]
        return self.tokens[0, self._begin :].tolist()

    @property
    def _begin(self) -> int:
        """Return the place of the first token that is not forced."""
        return 1 + len(self.forced)

    def fork(self) -> BeamSearch:
        """Return an independent copy. Copies no array: none is changed in place."""
        other = copy.copy(self)
        other.finished = list(self.finished)
        return other

    def extend(self, scores: NDArray, longest: int, at_end: bool) -> NDArray:
        """Extend every hypothesis by one token.

        Args:
            scores: (B, V), log-probabilities of the next token of each hypothesis, or joint scores.
            longest: largest number of tokens of the sentence.
            at_end: whether this token is decoded only because the source has ended.

        Returns:
            The parent of each new hypothesis (B',), int64; B' is 0 if the sentence has ended.

        Raises:
            ValueError: a score is NaN.
        """
        self.at_end = at_end
        scores = self.scores[:, None] + self._allowed(check_scores(scores), longest)
        # each hypothesis has one eos, so at least half of the candidates continue
        places = self.places(scores.reshape(-1), min(2 * self.options.beam, scores.size))
        values, (parents, tokens) = scores.reshape(-1)[places], np.divmod(places, scores.shape[1])
        kept = self._set_finished_aside(values, parents, tokens)
        kept = kept[: 0 if self.ended else self.options.beam]
        self.tokens = np.concatenate((self.tokens[parents[kept]], tokens[kept, None]), axis=1)
        self.scores = values[kept]
        return parents[kept]

    def prune(self, length: int) -> NDArray:
        """Drop hypotheses that differ from the best one in the first ``length`` tokens; return the others' indices."""
        prefix = self.tokens[:, : self._begin + length]
        kept = np.flatnonzero((prefix == prefix[:1]).all(1))
        self.tokens, self.scores = self.tokens[kept], self.scores[kept]
        return kept

    def _allowed(self, scores: NDArray, longest: int) -> NDArray:
        """Return ``scores`` (B, V) without padding, empty sentences and sentences that are too long."""
        scores = scores.copy()
        scores[:, self.pad] = -np.inf
        length = self.tokens.shape[1] - self._begin
        if length < 0:
            only = self.forced[length]  # from the end: forced tokens are missing
            scores[:, :only] = scores[:, only + 1 :] = -np.inf
        if length == 0:
            scores[:, self.eos] = -np.inf
        if length >= longest:
            scores[:, : self.eos] = scores[:, self.eos + 1 :] = -np.inf  # only the end is left
        return scores

    def _set_finished_aside(self, values: NDArray, parents: NDArray, tokens: NDArray) -> NDArray:
        """Move candidates that end the sentence to ``finished``; return the indices of the others."""
        for i in np.flatnonzero(tokens[: self.options.beam] == self.eos).tolist():
            if values[i] == -np.inf or not (self.at_end or i == 0):
                continue  # while more audio may arrive, only the best hypothesis may end the sentence
            score = float(values[i]) / self.tokens.shape[1] ** self.options.lenpen
            self.finished.append((score, self.tokens[parents[i], self._begin :].tolist()))
            self.ended |= not self.at_end or len(self.finished) >= self.options.beam
        others = np.flatnonzero((tokens != self.eos) & (values > -np.inf))
        self.ended |= len(others) == 0
        return others
