"""SimulEval's samples, at any rate, to samples at 16 kHz, as they come."""

from __future__ import annotations

import numpy as np
import soxr

from mla_fairseq.speech.features import SAMPLE_RATE


class Samples:
    """The samples of one recording that nobody has taken yet, (N,) float32 at 16 kHz."""

    def __init__(self) -> None:
        self.waiting: list[np.ndarray] = []
        self.rate: int | None = None
        self.resampler: soxr.ResampleStream | None = None

    def add(self, samples, rate: int) -> None:
        """Samples (N,) in [-1, 1] at ``rate`` per second.

        Raises:
            ValueError: two channels, or a rate that is none or another than before.
        """
        samples = np.asarray(samples, dtype=np.float32)
        if samples.ndim != 1 and samples.size:
            raise ValueError(
                f"the source has {samples.shape[-1]} channels, but one is needed: convert it first, for example with "
                "`sox IN.wav -c 1 OUT.wav`"
            )
        if rate <= 0 or rate != (self.rate or rate):
            raise ValueError(f"a sample rate must be above 0 and stay what it is, but is {rate} after {self.rate}")
        if self.rate is None and rate != SAMPLE_RATE:
            self.resampler = soxr.ResampleStream(rate, SAMPLE_RATE, num_channels=1, dtype="float32")
        self.rate = rate
        self.waiting.append(samples.reshape(-1))

    def take(self, final: bool) -> np.ndarray:
        """All that is there; a resampler holds some milliseconds back until the end."""
        samples = np.concatenate([np.zeros(0, np.float32), *self.waiting])
        self.waiting = []
        return samples if self.resampler is None else self.resampler.resample_chunk(samples, last=final)
