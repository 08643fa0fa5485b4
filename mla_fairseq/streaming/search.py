"""Beam search that goes out in pieces: hypotheses that disagree with what was said are dropped. Beam 1 is greedy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from mla_fairseq.streaming.translator import Stream


class BeamSearch:
    """The hypotheses of one sentence.

    While the source goes on, the best hypothesis leads; when it has ended (``tail``), hypotheses that end are set
    aside, and the best of them by log-probability / length ** lenpen wins, as in fairseq.

    Attributes:
        best: tokens of the leading hypothesis, or, once ``ended``, of the one that has won.
        committed: how many of them went out.
        tail: whether tokens are written because the source has ended.
        ended: whether the sentence has.
    """

    def __init__(self, beam: int, lenpen: float, eos: int, pad: int, unk: int) -> None:
        self.beam, self.lenpen = beam, lenpen
        self.eos, self.pad, self.unk = eos, pad, unk
        self.tokens = torch.full((1, 1), eos)  # fairseq begins a sentence with the sign that ends one
        self.scores = torch.zeros(1)
        self.finished: list[tuple[float, list[int]]] = []
        self.committed = 0
        self.tail = self.ended = False

    @property
    def best(self) -> list[int]:
        if self.ended:
            return max(self.finished, key=lambda scored: scored[0])[1]
        return self.tokens[0, 1:].tolist()

    def fork(self) -> BeamSearch:
        """A snapshot; no method changes a tensor in place."""
        other = copy.copy(self)
        other.finished = list(self.finished)
        return other

    def step(self, stream: Stream, upto: int, longest: Callable[[], int], tail: bool) -> bool:
        """Make every hypothesis one token longer upon the first ``upto`` encoder states, or fewer if heads decide.

        ``longest`` says, after that, how many tokens the sentence may have; ``tail``: this token is written because the
        source has ended. False: the heads want to read on, and nothing has happened.
        """
        scores = stream.step(self.tokens[:, -1].to(stream.translator.parameter.device), upto)
        if scores is None:
            return False
        self.tail = tail or stream.forced
        scores = self.scores.unsqueeze(1) + self._allowed(scores.cpu(), longest())
        values, places = scores.flatten().topk(min(2 * self.beam, scores.numel()))
        hypotheses, tokens = places // scores.shape[1], places % scores.shape[1]
        going = self._set_aside(values, hypotheses, tokens)
        if self.ended:
            return True
        going = going[: self.beam]
        self.tokens = torch.cat((self.tokens[hypotheses[going]], tokens[going].unsqueeze(1)), dim=1)
        self.scores = values[going]
        stream.keep(hypotheses[going])
        return True

    def commit(self, stream: Stream, upto: int) -> None:
        """The first ``upto`` tokens of the best hypothesis are out: those that say otherwise end."""
        self.committed = upto
        if self.ended or len(self.tokens) == 1:
            return
        agree = (self.tokens[:, : upto + 1] == self.tokens[0, : upto + 1]).all(1).nonzero().squeeze(1)
        self.tokens, self.scores = self.tokens[agree], self.scores[agree]
        stream.keep(agree)

    def _allowed(self, scores: Tensor, longest: int) -> Tensor:
        """No padding, no empty sentence, no sentence that is too long."""
        scores = scores.clone()
        scores[:, self.pad] = -torch.inf
        length = self.tokens.shape[1] - 1
        if length == 0:
            scores[:, self.eos] = -torch.inf
        if length >= longest:
            scores[:, : self.eos] = scores[:, self.eos + 1 :] = -torch.inf
        return scores

    def _set_aside(self, values: Tensor, hypotheses: Tensor, tokens: Tensor) -> Tensor:
        """Take out the candidates that end the sentence; the places of those that go on."""
        for i in (tokens[: self.beam] == self.eos).nonzero().squeeze(1).tolist():
            if values[i] == -torch.inf or not (self.tail or i == 0):
                continue  # before the source has ended, only the best hypothesis may end the sentence
            length = self.tokens.shape[1]
            score = float(values[i]) / length**self.lenpen
            self.finished.append((score, self.tokens[hypotheses[i], 1:].tolist()))
            self.ended |= not self.tail or len(self.finished) >= self.beam
        going = ((tokens != self.eos) & (values > -torch.inf)).nonzero().squeeze(1)
        self.ended |= len(going) == 0
        return going
