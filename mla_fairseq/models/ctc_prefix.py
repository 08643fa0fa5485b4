"""CTC prefix scores: how probable it is that a translation begins with a hypothesis, given the audio alone.

The algorithm is that of Watanabe et al. 2017 (Hybrid CTC/Attention Architecture, algorithm 2), without its loops: sums
over states are products of matrices, and its recursions over states are cumulative sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mla_fairseq.models.ctc import TARGET, has_output
from mla_fairseq.transcripts import BLANK

FLOOR = -1000.0
"""The least change of a log-probability: a search needs a finite score where CTC can emit no sentence."""
LEAST = 1e-300
"""The least probability of a symbol at a state, so that sums of logarithms stay finite."""


def check_target(model: Any) -> None:
    """Check that a model has a CTC output for the translation.

    Raises:
        ValueError: it has none.
    """
    if not has_output(model, TARGET):
        raise ValueError(
            "--ctc-decoding-weight needs a model with CTC on the translation: train one with --ctc-weight 0.3 and "
            "--ctc-text target or both"
        )


def mixed(attention: Tensor, ctc: Tensor, weight: float) -> Tensor:
    """Return the weighted sum of log-probabilities of attention and of changes of CTC prefix scores."""
    return (1 - weight) * attention + weight * ctc.clamp_min(FLOOR).to(attention)


class PrefixScores:
    """Prefix scores of the hypotheses of a batch, in float64; ``-inf`` is a probability of 0.

    The state of a hypothesis is two rows of log-probabilities: that it is emitted by state s and s is a blank or not.

    While more states may follow, the text that those so far emit may be shorter than the hypothesis, and what comes
    after it is as probable as attention finds it. So attention extends a hypothesis as far as the states so far have
    not: with the probability that they emit it, or a beginning of it, and nothing more.

    Args:
        probs: (B, S, V) float64, probabilities of the CTC output.
        lengths: (B,), numbers of states.
        eos: index of the end of the sentence.

    Attributes:
        rows: (N,), the sentence of each hypothesis; at first there is an empty hypothesis for each.
        total: (N,), log-probability of all texts of the states that begin with the hypothesis.
        ahead: (N,), log-probability that they emit only a beginning of it, which attention extends to the hypothesis.
    """

    def __init__(self, probs: Tensor, lengths: Tensor, eos: int) -> None:
        self.probs, self.eos, self.ends = probs, eos, lengths - 1
        self.past = torch.arange(probs.shape[1], device=probs.device) >= lengths.unsqueeze(1)
        self.rows = torch.arange(len(probs), device=probs.device)
        self.last, self.empty = torch.full_like(self.rows, BLANK), True
        self.total = probs.new_zeros(len(probs))
        self.ahead = torch.full_like(self.total, -torch.inf)
        self.ends_blank = self._emitted(self.last).cumsum(1)
        self.ends_symbol = torch.full_like(self.ends_blank, -torch.inf)

    def scores(self, attention: Tensor | None = None) -> Tensor:
        """Return how much each next token (N, V) changes the log-probability of a hypothesis.

        Args:
            attention: (N, V), log-probabilities of the next tokens by attention, if more states may follow.
        """
        found, last = self._begin(self._before(self._any())), self.last.unsqueeze(1)
        # a repetition of the last symbol needs a blank before it
        again = self._sum(self._before(self.ends_blank) + self._emitted(self.last))
        found = found.scatter(1, last, again.unsqueeze(1))
        found[:, BLANK], found[:, self.eos] = -torch.inf, -torch.inf
        if attention is None:
            found[:, self.eos], total = self._complete(), self.total
        else:
            found = torch.logaddexp(found, self._unheard().unsqueeze(1) + attention)
            total = torch.logaddexp(self.total, self.ahead)
        change = found - total.unsqueeze(1)
        return change.masked_fill(change.isnan(), -torch.inf)  # of a hypothesis that CTC cannot emit

    def advance(self, parents: Tensor, tokens: Tensor, attention: Tensor | None = None) -> None:
        """Make hypothesis i the one at ``parents[i]`` (N',) extended by ``tokens[i]`` (N',).

        ``attention``: (N',), log-probabilities of the tokens by attention, if more states may follow.
        """
        ahead = self.ahead[parents] if attention is None else self._unheard()[parents] + attention
        same = (tokens == self.last[parents]).unsqueeze(1)
        before = torch.where(same, self._before(self.ends_blank)[parents], self._before(self._any())[parents])
        before = before.masked_fill((tokens == BLANK).unsqueeze(1), -torch.inf)  # no text has a blank
        # a copy: the caller may change its tokens in place, as fairseq does
        self.rows, self.last, self.ahead, self.empty = self.rows[parents], tokens.clone(), ahead, False
        emitted = self._emitted(tokens)
        self.total = self._sum(before + emitted)
        self.ends_symbol = _chain(before, emitted)
        waiting = torch.cat((torch.full_like(before[:, :1], -torch.inf), self.ends_symbol[:, :-1]), dim=1)
        self.ends_blank = _chain(waiting, self._emitted(torch.full_like(tokens, BLANK)))

    def keep(self, parents: Tensor) -> None:
        """Continue hypothesis ``parents[i]`` (N',) at index i, without a new token."""
        for name in ("rows", "last", "total", "ahead", "ends_blank", "ends_symbol"):
            setattr(self, name, getattr(self, name)[parents])

    def _any(self) -> Tensor:
        return torch.logaddexp(self.ends_blank, self.ends_symbol)

    def _complete(self) -> Tensor:
        """Return the log-probability (N,) that the states emit the hypothesis and nothing more."""
        return self._any().gather(1, self.ends[self.rows].unsqueeze(1)).squeeze(1)

    def _unheard(self) -> Tensor:
        """Return the log-probability (N,) that the states emit the hypothesis or a beginning, and nothing more."""
        return torch.logaddexp(self._complete(), self.ahead)

    def _emitted(self, tokens: Tensor) -> Tensor:
        """Return the log-probability (N, S) of the token (N,) of each hypothesis at every state."""
        return self.probs[self.rows, :, tokens].clamp_min(LEAST).log()

    def _before(self, ends: Tensor) -> Tensor:
        """Return ``ends`` (N, S) of the state before each one; only an empty hypothesis is complete before all."""
        first = torch.full_like(ends[:, :1], 0.0 if self.empty else -torch.inf)
        return torch.cat((first, ends[:, :-1]), dim=1)

    def _sum(self, terms: Tensor) -> Tensor:
        """Return the log of the sum over states of exp of ``terms`` (N, S)."""
        return terms.masked_fill(self.past[self.rows], -torch.inf).logsumexp(1)

    def _begin(self, before: Tensor) -> Tensor:
        """Return the log-probability (N, V) that each symbol begins at any state after ``before`` (N, S)."""
        before = before.masked_fill(self.past[self.rows], -torch.inf)
        most = before.amax(1, keepdim=True)
        most = most.masked_fill(most.isinf(), 0)
        # float64 keeps what is e^700 times less probable than the most probable place
        weights = (before - most).exp()
        found = weights.new_empty(len(weights), self.probs.shape[2])
        for row in self.rows.unique().tolist():  # a batched product would copy the probabilities for each hypothesis
            of_row = self.rows == row
            found[of_row] = weights[of_row].matmul(self.probs[row])
        return found.log() + most


def _chain(before: Tensor, emitted: Tensor) -> Tensor:
    """Return r (N, S) with r(s) = log(exp(r(s - 1)) + exp(before(s))) + emitted(s)."""
    # unrolled, r(s) is the sum over t <= s of before(t) times the product of emitted from t to s
    so_far = emitted.cumsum(1)
    return so_far + (before - (so_far - emitted)).logcumsumexp(1)
