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


def check_weight(weight: float) -> None:
    """Check a weight of CTC prefix scores.

    Raises:
        ValueError: it is not from 0 to below 1.
    """
    if not 0 <= weight < 1:  # false for NaN
        raise ValueError(f"--ctc-decoding-weight must be at least 0 and below 1, but is {weight}")


def mixed(attention: Tensor, ctc: Tensor, weight: float) -> Tensor:
    """Return the weighted sum of log-probabilities of attention and of changes of CTC prefix scores."""
    return (1 - weight) * attention + weight * ctc.clamp_min(FLOOR).to(attention)


class PrefixScores:
    """Prefix scores of the hypotheses of a batch, in float64; ``-inf`` is a probability of 0.

    The state of a hypothesis is two rows of log-probabilities: that it is emitted by state s and s is a blank or not.

    Args:
        log_probs: (B, S, V), log-probabilities of the CTC output.
        lengths: (B,), numbers of states.
        eos: index of the end of the sentence.

    Attributes:
        rows: (N,), the sentence of each hypothesis; at first there is an empty hypothesis for each.
        total: (N,), log-probability of all sentences that begin with the hypothesis.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, eos: int) -> None:
        self.log_probs, self.lengths, self.eos = log_probs.double(), lengths, eos
        count, states, _ = log_probs.shape
        past = torch.arange(states, device=log_probs.device) >= lengths.unsqueeze(1)
        self.real = ~past
        self.probs = self.log_probs.exp().masked_fill(past.unsqueeze(2), 0)
        self.rows = torch.arange(count, device=log_probs.device)
        self.last = torch.full_like(self.rows, BLANK)
        self.total = self.log_probs.new_zeros(count)
        self.ends_blank = self.log_probs[..., BLANK].cumsum(1)
        self.ends_symbol = torch.full_like(self.ends_blank, -torch.inf)

    def scores(self) -> Tensor:
        """Return how much each next token (N, V) changes the log-probability of a hypothesis."""
        # a repetition of the last symbol needs a blank before it
        again, last = self._begin(self._before(self.ends_blank)), self.last.unsqueeze(1)
        found = self._begin(self._before(self._any())).scatter(1, last, again.gather(1, last))
        found[:, BLANK] = -torch.inf
        place = (self.lengths[self.rows] - 1).unsqueeze(1)
        found[:, self.eos] = self._any().gather(1, place).squeeze(1)
        change = found - self.total.unsqueeze(1)
        return change.masked_fill(change.isnan(), -torch.inf)  # of a hypothesis that CTC cannot emit

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """Make hypothesis i the one at ``parents[i]`` (N',) extended by ``tokens[i]`` (N',)."""
        total = (self.scores() + self.total.unsqueeze(1))[parents, tokens]
        same = (tokens == self.last[parents]).unsqueeze(1)
        before = torch.where(same, self._before(self.ends_blank)[parents], self._before(self._any())[parents])
        # a copy: the caller may change its tokens in place, as fairseq does
        self.rows, self.last, self.total = self.rows[parents], tokens.clone(), total
        emitted = self.log_probs[self.rows].gather(2, tokens.view(-1, 1, 1).expand(-1, before.shape[1], 1)).squeeze(2)
        self.ends_symbol = _chain(before, emitted)
        waiting = torch.cat((torch.full_like(before[:, :1], -torch.inf), self.ends_symbol[:, :-1]), dim=1)
        self.ends_blank = _chain(waiting, self.log_probs[self.rows][..., BLANK])

    def keep(self, parents: Tensor) -> None:
        """Continue hypothesis ``parents[i]`` (N',) at index i, without a new token."""
        for name in ("rows", "last", "total", "ends_blank", "ends_symbol"):
            setattr(self, name, getattr(self, name)[parents])

    def _any(self) -> Tensor:
        return torch.logaddexp(self.ends_blank, self.ends_symbol)

    def _before(self, ends: Tensor) -> Tensor:
        """Return ``ends`` (N, S) of the state before each one; only an empty hypothesis is complete before all."""
        first = torch.where(self.last == BLANK, 0.0, -torch.inf).to(ends).unsqueeze(1)
        return torch.cat((first, ends[:, :-1]), dim=1)

    def _begin(self, before: Tensor) -> Tensor:
        """Return the log-probability (N, V) that each symbol begins at any state after ``before`` (N, S)."""
        before = before.masked_fill(~self.real[self.rows], -torch.inf)
        most = before.amax(1, keepdim=True)
        most = most.masked_fill(most.isinf(), 0)
        # float64 keeps what is e^700 times less probable than the most probable place
        return (before - most).exp().unsqueeze(1).matmul(self.probs[self.rows]).squeeze(1).log() + most


def _chain(before: Tensor, emitted: Tensor) -> Tensor:
    """Return r (N, S) with r(s) = log(exp(r(s - 1)) + exp(before(s))) + emitted(s)."""
    # unrolled, r(s) is the sum over t <= s of before(t) times the product of emitted from t to s
    so_far = emitted.cumsum(1)
    return so_far + (before - (so_far - emitted)).logcumsumexp(1)
