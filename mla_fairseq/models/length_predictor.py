"""Predict a target length from encoder states: one ratio for an utterance, or a duration for each symbol."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Predictor(nn.Module):
    """A stack of convolution, ReLU, layer norm and dropout over encoder states, and a projection to one number.

    Padding is set to zero before each convolution, so a sentence in a batch gives the same output as alone.
    """

    def __init__(self, channels: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [channels] + [hidden] * layers
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size=3, padding=1) for before, after in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, 1)

    def features(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return hidden features (B, hidden, S) of encoder states (S, B, C).

        ``mask`` (B, S) is true for real states; ``None``: all are real.
        """
        x = states.permute(1, 2, 0)  # (S, B, C) -> (B, C, S)
        real = torch.ones_like(x[:, :1]) if mask is None else mask.unsqueeze(1).to(x)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(convolution(x * real))
            x = self.dropout(norm(x.transpose(1, 2))).transpose(1, 2)  # the norm is over channels
        return x


class LengthPredictor(_Predictor):
    """Predict the logarithm of target tokens per encoder state.

    Two convolutions over time (width 3, ReLU, layer norm, dropout), the mean over real states, and one number. This is
    MLA's duration predictor (arXiv 2304.08453), but for one ratio instead of a duration for each phoneme.
    """

    def __init__(self, channels: int, hidden: int = 128, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__(channels, hidden, layers, dropout)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logarithm of target tokens per state, (B,), from encoder states (S, B, C).

        ``mask`` (B, S) is true for real states; ``None``: all are real.
        """
        x = self.features(states, mask)
        real = torch.ones_like(x[:, :1]) if mask is None else mask.unsqueeze(1).to(x)
        mean = (x * real).sum(-1) / real.sum(-1).clamp_min(1)
        return self.output(mean).squeeze(-1).float()


class DurationPredictor(_Predictor):
    """Predict the frames of each symbol of a text, and from their sum the length of the spectrogram.

    Three convolutions over the text (width 3, 128 channels, ReLU, layer norm, dropout 0.5) and one number for each
    symbol: the logarithm of 1 + its frames (MLA, arXiv 2304.08453; after FastSpeech 2, arXiv 2006.04558).

    Args:
        channels: channels of the encoder states (C).
        frames_per_step: frames that the decoder emits in one step.
        hidden: channels of the convolutions.
        layers: number of convolutions.
        dropout: probability after each convolution.
    """

    def __init__(
        self, channels: int, frames_per_step: int = 1, hidden: int = 128, layers: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__(channels, hidden, layers, dropout)
        self.frames_per_step = frames_per_step
        # start at 5 frames a symbol, so that the sum alone is enough to learn from where the data have no durations
        nn.init.constant_(self.output.bias, math.log1p(5))

    def durations(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log(1 + frames) of each symbol, (B, S), from encoder states (S, B, C).

        ``mask`` (B, S) is true for real symbols; ``None``: all are real.
        """
        return self.output(self.features(states, mask).transpose(1, 2)).squeeze(-1).float()

    def steps(self, durations: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the decoder steps (B,) that ``durations`` (B, S) sum to.

        The sum is not clamped: an untrained predictor may give less than 0, and needs a gradient there.
        """
        frames = durations.expm1()
        return (frames if mask is None else frames * mask).sum(1) / self.frames_per_step

    def log_ratio(self, durations: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logarithm of decoder steps per symbol, (B,), of at least one step, from ``durations`` (B, S)."""
        symbols = torch.full_like(durations[:, 0], durations.shape[1]) if mask is None else mask.sum(1)
        return (self.steps(durations, mask).clamp_min(1) / symbols.clamp_min(1)).log()

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logarithm of decoder steps per symbol, (B,), from encoder states (S, B, C)."""
        return self.log_ratio(self.durations(states, mask), mask)
