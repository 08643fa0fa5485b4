"""Block repeated n-grams, for ``--no-repeat-ngram-size``."""

from __future__ import annotations

import math

from torch import Tensor, nn


class RepeatedNGrams(nn.Module):
    """Give tokens that would repeat an n-gram of their hypothesis the score -inf.

    fairseq's own code needs its CUDA extension: without it, it compares with the padding after the tokens, and blocks
    nothing.

    Args:
        size: tokens in an n-gram.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        """Return log-probabilities (N, V) of the token after the first ``step + 1`` of ``tokens`` (N, T)."""
        written = tokens[:, 1 : step + 1]  # the first one only starts the search, and ends a hypothesis
        if step < self.size:
            return lprobs
        grams = written.unfold(1, self.size, 1)  # (N, n-grams, size)
        last = written[:, step + 1 - self.size :]  # (N, size - 1)
        rows, places = (grams[..., :-1] == last.unsqueeze(1)).all(-1).nonzero(as_tuple=True)
        lprobs[rows, grams[rows, places, -1]] = -math.inf
        return lprobs
