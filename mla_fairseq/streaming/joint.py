"""Joint scores of attention and CTC for one sentence while its encoder states arrive."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from mla_fairseq.models.ctc import TARGET, CTCHead, CTCOutputs
from mla_fairseq.models.ctc_prefix import PrefixScores, mixed


class JointScores:
    """Scores of the next tokens of the hypotheses of a sentence: the weighted sum of attention and CTC prefix scores.

    Tensors are replaced, never changed in place.

    Args:
        ctc: the CTC outputs of the encoder, one of which is for the translation.
        weight: weight of CTC; that of attention is 1 - ``weight``.
        eos: index of the end of the sentence.
        prefix: number of tags before each translation, which CTC does not emit.

    Attributes:
        probs: (S, V) float64, the CTC output at the states read.
        tokens: (N, T), the hypotheses, after ``eos`` and tags.
        likely: (N, T) float64, log-probabilities of their tokens by attention.
        attention: (N, V), log-probabilities of the next tokens by attention.
        fed: number of tokens that the decoder was given, with ``eos`` and tags.
        prefixes: prefix scores of the hypotheses; ``None`` until they are needed after new states.
    """

    def __init__(self, ctc: CTCOutputs, weight: float, eos: int, prefix: int) -> None:
        self.ctc, self.weight, self.eos, self.prefix = ctc, weight, eos, prefix
        head = ctc.heads[TARGET]
        assert isinstance(head, CTCHead)
        self.probs = head.linear.weight.new_zeros(0, head.linear.out_features, dtype=torch.double)
        self.likely = self.attention = self.probs.new_zeros(1, 0)
        self.tokens = self.likely.long()
        self.fed = 0
        self.prefixes: PrefixScores | None = None

    @property
    def nbytes(self) -> int:
        """Return the bytes kept from one token to the next."""
        rows = (self.prefixes.ends_blank, self.prefixes.ends_symbol) if self.prefixes else ()
        return sum(held.nbytes for held in (self.probs, self.tokens, self.likely, self.attention, *rows))

    def hear(self, states: Tensor) -> None:
        """Add encoder states (n, 1, C)."""
        if len(states):
            log_probs, _ = self.ctc({"encoder_out": [states], "encoder_padding_mask": []}, TARGET)
            self.probs = torch.cat((self.probs, log_probs[:, 0].double().exp()))
            self.prefixes = None  # new states change the scores of every beginning of the hypotheses

    def follow(self, tokens: Tensor, attention: Tensor) -> None:
        """Extend the only hypothesis by ``tokens`` (T,), inputs of the decoder that gave ``attention`` (T, V)."""
        for last, scores in zip(tokens.split(1), attention.split(1), strict=True):
            self._extend(last, scores)

    def step(self, last: Tensor, attention: Tensor, ended: bool) -> Tensor:
        """Extend each hypothesis by a token, and return the joint scores (N, V) of the next one.

        Args:
            last: (N,), the last tokens, which are the input of the decoder.
            attention: (N, V), what it gave: log-probabilities of the next tokens.
            ended: whether no more states will follow.
        """
        self._extend(last, attention)
        if self.fed <= self.prefix:  # a tag is next
            return (1 - self.weight) * attention
        self.prefixes = self.prefixes or self._read_again()
        return mixed(attention, self.prefixes.scores(None if ended else attention), self.weight)

    def keep(self, parents: Tensor) -> None:
        """Continue hypothesis ``parents[i]`` (N',) at index i; drop all others."""
        parents = parents.to(self.tokens.device)
        self.tokens, self.likely, self.attention = self.tokens[parents], self.likely[parents], self.attention[parents]
        if not len(parents):  # the sentence has ended
            self.probs, self.prefixes = self.probs[:0].clone(), None
        if self.prefixes:
            self.prefixes.keep(parents)

    def fork(self) -> Self:
        """Return an independent copy. Copies no tensor."""
        other = copy.copy(self)
        other.prefixes = copy.copy(self.prefixes)
        return other

    def _extend(self, last: Tensor, attention: Tensor) -> None:
        last = last.to(self.tokens.device)
        if self.fed > self.prefix:  # neither eos nor a tag
            likely = self.attention.gather(1, last.unsqueeze(1)).double()
            self.tokens = torch.cat((self.tokens, last.unsqueeze(1)), dim=1)
            self.likely = torch.cat((self.likely, likely), dim=1)
            if self.prefixes:
                self.prefixes.advance(torch.arange(len(last), device=last.device), last, likely[:, 0])
        self.fed, self.attention = self.fed + 1, attention

    def _read_again(self) -> PrefixScores:
        """Return the prefix scores of the hypotheses, given all states so far."""
        every = torch.arange(len(self.tokens), device=self.tokens.device)
        prefixes = PrefixScores(self.probs.unsqueeze(0), every.new_tensor([len(self.probs)]), self.eos)
        prefixes.keep(torch.zeros_like(every))
        for last, likely in zip(self.tokens.unbind(1), self.likely.unbind(1), strict=True):
            prefixes.advance(every, last, likely)
        return prefixes
