"""Predict a target length from encoder states: one ratio for an utterance, or a duration for each symbol."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Predictor(nn.Module):
    """Convolutions over encoder states, ReLU, layer norm and dropout, and one number; padding is zero before each, as
    it is beyond the end of a sentence that is alone."""

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
        """States (S, B, C) -> (B, hidden, S)."""
        x = states.permute(1, 2, 0)  # (B, C, S)
        real = torch.ones_like(x[:, :1]) if mask is None else mask.unsqueeze(1).to(x)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(convolution(x * real))
            x = self.dropout(norm(x.transpose(1, 2))).transpose(1, 2)
        return x


class LengthPredictor(_Predictor):
    """Encoder states (S, B, C) to the logarithm of target tokens per state, (B,).

    Two convolutions over time (k = 3, ReLU, layer norm, dropout), the mean over what is real, and one number: the shape
    of MLA's duration predictor (arXiv 2304.08453), for one ratio in place of a duration for each phoneme.
    """

    def __init__(self, channels: int, hidden: int = 128, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__(channels, hidden, layers, dropout)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask`` (B, S) is true for real states; ``None``: all are."""
        x = self.features(states, mask)
        real = torch.ones_like(x[:, :1]) if mask is None else mask.unsqueeze(1).to(x)
        mean = (x * real).sum(-1) / real.sum(-1).clamp_min(1)
        return self.output(mean).squeeze(-1).float()


class DurationPredictor(_Predictor):
    """Encoder states (S, B, C) of a text to frames of each symbol, and so to the length of the spectrogram.

    Three convolutions over the text (k = 3, 128 channels, ReLU, layer norm, dropout 0.5) and one number for each
    symbol: the logarithm of 1 + its frames (MLA, arXiv 2304.08453; after FastSpeech 2, arXiv 2006.04558).

    Args:
        channels: C.
        frames_per_step: frames that the decoder writes at once.
    """

    def __init__(
        self, channels: int, frames_per_step: int = 1, hidden: int = 128, layers: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__(channels, hidden, layers, dropout)
        self.frames_per_step = frames_per_step
        nn.init.constant_(self.output.bias, math.log1p(5))  # a start from which the sum alone can be learnt, too

    def durations(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """log(1 + frames) of each symbol, (B, S); ``mask`` (B, S) is true for real symbols, ``None``: all are."""
        return self.output(self.features(states, mask).transpose(1, 2)).squeeze(-1).float()

    def steps(self, durations: Tensor, mask: Tensor | None = None) -> Tensor:
        """What ``durations`` gave -> decoder steps, (B,); below 0 they may be while it learns, so that it can."""
        frames = durations.expm1()
        return (frames if mask is None else frames * mask).sum(1) / self.frames_per_step

    def log_ratio(self, durations: Tensor, mask: Tensor | None = None) -> Tensor:
        """What ``durations`` gave -> logarithm of decoder steps per symbol, (B,), of at least one step."""
        symbols = torch.full_like(durations[:, 0], durations.shape[1]) if mask is None else mask.sum(1)
        return (self.steps(durations, mask).clamp_min(1) / symbols.clamp_min(1)).log()

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logarithm of decoder steps per symbol, (B,)."""
        return self.log_ratio(self.durations(states, mask), mask)
