"""Kaldi's filter banks as two products: all that is done to a frame before the square is linear, so one matrix does it.

A frame of 25 ms has its mean removed, is pre-emphasised, weighted by a Povey window and transformed to 257 frequencies,
of which Kaldi's mel filters do not use the highest; the power is filtered, and its logarithm normalised.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.step import Step
from mla_fairseq.speech.features import NUM_BINS
from mla_fairseq.speech.samples import INT16_RANGE, SAMPLE_RATE, SHIFT, WINDOW

SIZE = 512  # of the Fourier transform
LOWEST = 20.0  # frequency of the first mel filter, in Hz
PRE_EMPHASIS = 0.97
FLOOR = 1.1920929e-07  # smallest power, as in Kaldi


class FrontEnd(Step):
    """Compute normalised filter banks.

    Data: ``samples`` (1, N), float in [-1, 1], that begin with the first frame and end with the last one. Result:
    ``frames`` (1, count, 80).

    Args:
        count: frames of a call.
        mean: of each filter bank, (80,).
        std: standard deviation of each, (80,).
    """

    spectrum: Tensor
    mel: Tensor
    rows: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, count: int, mean: NDArray, std: NDArray) -> None:
        super().__init__()
        self.data = {"samples": torch.zeros(1, (count - 1) * SHIFT + WINDOW)}
        self.fresh, self.results = {}, ("frames",)
        self.register_buffer("spectrum", torch.from_numpy(spectrum()).float())
        self.register_buffer("mel", torch.from_numpy(mel_filters()).float())
        self.register_buffer("rows", torch.arange(count).unsqueeze(1) * SHIFT + torch.arange(WINDOW))
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(1 / std))

    def run(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        count = len(self.rows)
        windows = data["samples"][0].index_select(0, self.rows.flatten()).reshape(count, WINDOW)
        real, imaginary = (windows @ self.spectrum).square().split(SIZE // 2, dim=1)
        power = ((real + imaginary) @ self.mel).clamp_min(FLOOR)
        return {"frames": ((power.log() - self.mean) * self.scale).unsqueeze(0)}, {}


def spectrum() -> NDArray:
    """Return the matrix (400, 512) from the samples of a frame to real and imaginary parts of 256 frequencies."""
    n = np.arange(WINDOW)
    without_mean = np.eye(WINDOW) - 1 / WINDOW
    emphasis = np.eye(WINDOW) - PRE_EMPHASIS * np.eye(WINDOW, k=1)
    emphasis[0, 0] -= PRE_EMPHASIS  # the first sample has none before it: Kaldi takes itself
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * n / (WINDOW - 1))) ** 0.85
    angles = 2 * np.pi * np.outer(n, np.arange(SIZE // 2)) / SIZE
    waves = np.concatenate((np.cos(angles), np.sin(angles)), axis=1)
    return INT16_RANGE * without_mean @ emphasis @ (povey[:, None] * waves)


def mel_filters() -> NDArray:
    """Return Kaldi's triangular filters (256, 80), equally wide in mel, from 20 Hz to half the sample rate."""
    places = mel(np.arange(SIZE // 2) * SAMPLE_RATE / SIZE)[:, None]
    edges = np.linspace(mel(LOWEST), mel(SAMPLE_RATE / 2), NUM_BINS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (places - left) / (centre - left), (right - places) / (right - centre)
    return np.minimum(rising, falling).clip(min=0)


def mel(hertz: NDArray | float) -> NDArray:
    """Return frequencies on the mel scale."""
    return 1127 * np.log(1 + np.asarray(hertz) / 700)
