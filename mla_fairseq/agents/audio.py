"""SimulEval's samples, at any sample rate, to samples at 16 kHz as they arrive."""

from __future__ import annotations

import logging

import numpy as np
import soxr

from mla_fairseq.speech.features import SAMPLE_RATE, to_kaldi_scale

logger = logging.getLogger(__name__)


class Samples:
    """The samples of one recording that are not taken yet, (N,) float32 at 16 kHz."""

    def __init__(self) -> None:
        self.waiting: list[np.ndarray] = []
        self.rate: int | None = None
        self.resampler: soxr.ResampleStream | None = None

    def add(self, samples, rate: int) -> None:
        """Add samples (N,) in [-1, 1] at ``rate`` Hz.

        Raises:
            ValueError: two channels, samples that are not numbers in [-1, 1], or a rate of 0 or less, or other than
                before.
        """
        samples = np.asarray(samples, dtype=np.float32)
        if samples.ndim != 1 and samples.size:
            raise ValueError(
                f"the source has {min(samples.shape)} channels, but one is needed: convert it first, for example with "
                "`sox IN.wav -c 1 OUT.wav`"
            )
        to_kaldi_scale(samples)
        if rate <= 0:
            raise ValueError(f"the sample rate must be above 0 Hz, but is {rate}")
        if rate != (self.rate or rate):
            raise ValueError(f"the sample rate must not change within a recording, but is {rate} after {self.rate}")
        if self.rate is None and rate < SAMPLE_RATE:
            logger.warning(
                "the sample rate of the source is %d Hz, so it holds nothing above %d Hz: expect poor translations "
                "from a model trained at %d Hz",
                rate,
                rate // 2,
                SAMPLE_RATE,
            )
        if self.rate is None and rate != SAMPLE_RATE:
            self.resampler = soxr.ResampleStream(rate, SAMPLE_RATE, num_channels=1, dtype="float32")
        self.rate = rate
        self.waiting.append(samples.reshape(-1))

    def take(self, final: bool) -> np.ndarray:
        """Remove and return all of them; a resampler holds back some milliseconds until the end."""
        samples = np.concatenate([np.zeros(0, np.float32), *self.waiting])
        self.waiting = []
        return samples if self.resampler is None else self.resampler.resample_chunk(samples, last=final)
