"""Beam search with a committed prefix: hypotheses that disagree with what was emitted are dropped. Beam 1 is greedy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mla_fairseq.streaming.checks import check_integer, is_finite


@dataclass(frozen=True)
class SearchOptions:
    """How hypotheses are searched.

    Attributes:
        beam: hypotheses kept; 1 is greedy.
        lenpen: length penalty; above 1 favours longer translations.
        max_len_a, max_len_b: a sentence has at most ``a * frames + b`` tokens.

    Raises:
        ValueError: a beam that is not an integer of at least 1, a length penalty or limit that is not a finite number,
            or limits that allow no token.
    """

    beam: int = 1
    lenpen: float = 1.0
    max_len_a: float = 0.1
    max_len_b: int = 20

    def __post_init__(self) -> None:
        check_integer("the beam", self.beam, 1)
        if not is_finite(self.lenpen):
            raise ValueError(f"--lenpen must be a finite number, but is {self.lenpen!r}")
        a, b = self.max_len_a, self.max_len_b
        if not is_finite(a, b) or a < 0 or b < 0 or a == b == 0:
            raise ValueError(
                "--max-len-a and --max-len-b must be finite and at least 0, and one of them above 0, "
                f"but are {a!r} and {b!r}"
            )

    def longest(self, frames: int) -> int:
        """Return how many tokens a sentence of so many filter-bank frames may have."""
        return max(1, int(self.max_len_a * frames + self.max_len_b))


GREEDY = SearchOptions()


class BeamSearch:
    """The hypotheses of one sentence.

    Before the source has ended, the best hypothesis leads. Afterwards (``tail``), hypotheses that end are set aside,
    and the best of them by log-probability / length ** lenpen wins, as in fairseq.

    Args:
        options: beam and length penalty.
        eos, pad: special symbols of the dictionary.
        prefix: tokens that every hypothesis starts with.

    Attributes:
        tokens: (B, T), hypotheses by falling score, after fairseq's first symbol, which is ``eos``.
        finished: score and tokens of each finished hypothesis.
        tail: whether the last token was decoded only because the source has ended.
        ended: whether the sentence has ended.
    """

    def __init__(self, options: SearchOptions, eos: int, pad: int, prefix: Sequence[int] = ()) -> None:
        self.options, self.eos, self.pad = options, eos, pad
        self.tokens = torch.tensor([[eos, *prefix]])
        self.scores = torch.zeros(1)
        self.finished: list[tuple[float, list[int]]] = []
        self.tail = self.ended = False

    @property
    def best(self) -> list[int]:
        """Return the tokens of the leading hypothesis or, once ``ended``, of the winning one."""
        if self.ended:
            return max(self.finished, key=lambda scored: scored[0])[1]
        return self.tokens[0, 1:].tolist()

    def fork(self) -> BeamSearch:
        """Return an independent copy; no method changes a tensor in place."""
        other = copy.copy(self)
        other.finished = list(self.finished)
        return other

    def extend(self, log_probs: Tensor, longest: int, tail: bool) -> Tensor:
        """Make every hypothesis one token longer.

        Args:
            log_probs: (B, V), of the next token of each hypothesis.
            longest: the most tokens that the sentence may have.
            tail: whether this token is decoded only because the source has ended.

        Returns the parent of each hypothesis (B',), int64; B' is 0 once the sentence has ended.
        """
        self.tail = tail
        scores = self.scores.unsqueeze(1) + self._allowed(log_probs.cpu(), longest)
        values, places = scores.flatten().topk(min(2 * self.options.beam, scores.numel()))
        parents, tokens = places // scores.shape[1], places % scores.shape[1]
        kept = self._set_finished_aside(values, parents, tokens)
        kept = kept[: 0 if self.ended else self.options.beam]
        self.tokens = torch.cat((self.tokens[parents[kept]], tokens[kept].unsqueeze(1)), dim=1)
        self.scores = values[kept]
        return parents[kept]

    def prune(self, length: int) -> Tensor:
        """Drop the hypotheses whose first ``length`` tokens are not those of the best; return the others' places."""
        kept = (self.tokens[:, : length + 1] == self.tokens[:1, : length + 1]).all(1).nonzero().squeeze(1)
        self.tokens, self.scores = self.tokens[kept], self.scores[kept]
        return kept

    def _allowed(self, scores: Tensor, longest: int) -> Tensor:
        """Forbid padding, empty sentences, and sentences that are too long."""
        scores = scores.clone()
        scores[:, self.pad] = -torch.inf
        length = self.tokens.shape[1] - 1
        if length == 0:
            scores[:, self.eos] = -torch.inf
        if length >= longest:
            scores[:, : self.eos] = scores[:, self.eos + 1 :] = -torch.inf
        return scores

    def _set_finished_aside(self, values: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
        """Move candidates that end the sentence to ``finished``; return the places of the others."""
        for i in (tokens[: self.options.beam] == self.eos).nonzero().squeeze(1).tolist():
            if values[i] == -torch.inf or not (self.tail or i == 0):
                continue  # before the source has ended, only the best hypothesis may end the sentence
            score = float(values[i]) / self.tokens.shape[1] ** self.options.lenpen
            self.finished.append((score, self.tokens[parents[i], 1:].tolist()))
            self.ended |= not self.tail or len(self.finished) >= self.options.beam
        others = ((tokens != self.eos) & (values > -torch.inf)).nonzero().squeeze(1)
        self.ended |= len(others) == 0
        return others
