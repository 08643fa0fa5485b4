"""Samples from magnitudes, by numpy alone: the fast Griffin-Lim algorithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 60
MOMENTUM = 0.99  # of Perraudin et al. 2013, who call it alpha; librosa's default
TINY = np.finfo(np.float32).tiny


def griffin_lim(
    magnitudes: NDArray, hop_length: int, win_length: int, iterations: int = ITERATIONS, seed: int = 0
) -> NDArray:
    """Return samples (time,), float32, whose spectrum has the given magnitudes, as librosa's function does.

    Args:
        magnitudes: (T, n_fft / 2 + 1), float32.
        hop_length: samples from one frame to the next; the output has ``hop_length`` (T - 1).
        win_length: samples of the window, at most n_fft.
        iterations: number of iterations.
        seed: seed of the initial phase.
    """
    frames = _Frames(2 * (magnitudes.shape[1] - 1), hop_length, win_length)
    turns = np.random.RandomState(seed).random_sample(magnitudes.T.shape).T  # drawn in librosa's order
    spectrum = magnitudes * np.exp(2j * np.pi * turns).astype(np.complex64)
    before = np.zeros_like(spectrum)
    for _ in range(iterations):
        found = frames.spectrum(frames.samples(spectrum))
        ahead = found - MOMENTUM / (1 + MOMENTUM) * before
        spectrum, before = magnitudes * (ahead / (np.abs(ahead) + TINY)), found
    return frames.samples(spectrum)


class _Frames:
    """Frames of ``size`` samples, centred at multiples of the hop, under a Hann window."""

    def __init__(self, size: int, hop: int, window: int) -> None:
        self.size, self.hop = size, hop
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        before = (size - window) // 2
        self.window = np.pad(hann, (before, size - window - before)).astype(np.float32)

    def spectrum(self, samples: NDArray) -> NDArray:
        """Return the spectrum (T, size / 2 + 1) of samples (time,)."""
        padded = np.pad(samples, self.size // 2)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size)[:: self.hop]
        return np.fft.rfft(windows * self.window).astype(np.complex64)

    def samples(self, spectrum: NDArray) -> NDArray:
        """Return the samples (time,) whose spectrum is nearest to a spectrum (T, size / 2 + 1)."""
        windows = np.fft.irfft(spectrum, self.size).astype(np.float32) * self.window
        weights = self._overlap(np.broadcast_to(self.window**2, windows.shape))
        inside = slice(self.size // 2, self.size // 2 + (len(spectrum) - 1) * self.hop)
        return self._overlap(windows)[inside] / np.maximum(weights[inside], TINY)

    def _overlap(self, windows: NDArray) -> NDArray:
        """Return the sum (time,) of windows (T, size), each of which starts a hop after the one before."""
        hops = -(-self.size // self.hop)
        padded = np.pad(windows, ((0, 0), (0, hops * self.hop - self.size)))
        total = np.zeros((len(windows) + hops - 1, self.hop), np.float32)
        for i, part in enumerate(padded.reshape(len(windows), hops, self.hop).swapaxes(0, 1)):
            total[i : i + len(part)] += part
        return total.reshape(-1)
