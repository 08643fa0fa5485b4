"""Kaldi's filter banks as two products: all that is done to a frame before the square is linear, so one matrix does it.

A frame of 25 ms has its mean removed, is pre-emphasised, weighted by a Povey window and transformed to 257 frequencies,
of which Kaldi's mel filters do not use the highest; the power is filtered, and its logarithm normalised.

The matrix (0.8 MB) is not stored: it follows from a table of 512 sines, and onnxruntime computes it when it loads the
graph, because nothing in it depends on the input.
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

    folded = False
    waves: Tensor
    window: Tensor
    times: Tensor
    frequencies: Tensor
    mel: Tensor
    rows: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, count: int, mean: NDArray, std: NDArray) -> None:
        super().__init__()
        self.data = {"samples": torch.zeros(1, (count - 1) * SHIFT + WINDOW)}
        self.fresh, self.results = {}, ("frames",)
        turns = 2 * np.pi * np.arange(SIZE) / SIZE
        self.register_buffer("waves", torch.from_numpy(np.concatenate((np.cos(turns), np.sin(turns)))).float())
        # buffers: the exporter would compute what follows from constants alone
        self.register_buffer("times", torch.arange(WINDOW).unsqueeze(1))
        self.register_buffer("frequencies", torch.arange(SIZE // 2))
        self.register_buffer("window", torch.from_numpy(INT16_RANGE * povey()).float().unsqueeze(1))
        self.register_buffer("mel", torch.from_numpy(mel_filters()).float())
        self.register_buffer("rows", torch.arange(count).unsqueeze(1) * SHIFT + torch.arange(WINDOW))
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(1 / std))

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        count = len(self.rows)
        windows = data["samples"][0].index_select(0, self.rows.flatten()).reshape(count, WINDOW)
        real, imaginary = (windows @ self.spectrum()).square().split(SIZE // 2, dim=1)
        power = ((real + imaginary) @ self.mel).clamp_min(FLOOR)
        return {"frames": ((power.log() - self.mean) * self.scale).unsqueeze(0)}, {}

    def spectrum(self) -> Tensor:
        """Return the matrix (400, 512) from the samples of a frame to real and imaginary parts of 256 frequencies."""
        angles = self.times * self.frequencies % SIZE
        index = torch.cat((angles, angles + SIZE), dim=1)  # the table has cosines, then sines
        rows = self.window * self.waves.index_select(0, index.flatten()).reshape(WINDOW, SIZE)
        # pre-emphasis subtracts a part of each sample from the next one, and of the first one from itself
        later = torch.cat((rows[:1] + rows[1:2], rows[2:], torch.zeros_like(rows[:1])))
        rows = rows - PRE_EMPHASIS * later
        return rows - rows.mean(0)  # the mean is removed before all this


def povey() -> NDArray:
    """Return Kaldi's window (400,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))) ** 0.85


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
