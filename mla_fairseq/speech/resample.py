"""Resample samples at any sample rate to 16 kHz as they arrive."""

from __future__ import annotations

import logging

import numpy as np
import soxr
from numpy.typing import ArrayLike

from mla_fairseq.speech.samples import SAMPLE_RATE, as_array, to_kaldi_scale

logger = logging.getLogger(__name__)


class Samples:
    """The samples of one recording that were not yet taken.

    Args:
        name: what a warning about a low sample rate calls the recording; empty: there is none.

    Attributes:
        waiting: samples at the sample rate of the source, one array (N,) float32 per segment.
        rate: sample rate of the source in Hz; ``None`` before the first segment.
        resampler: converts to 16 kHz; ``None`` if the source has that rate.
    """

    def __init__(self, name: str = "the source") -> None:
        self.name = name
        self.waiting: list[np.ndarray] = []
        self.rate: int | None = None
        self.resampler: soxr.ResampleStream | None = None

    def add(self, samples: ArrayLike, rate: int) -> None:
        """Add samples (N,) in [-1, 1] at ``rate`` Hz.

        Raises:
            ValueError: the samples have two channels or are not in [-1, 1], or the rate is 0 or less or has changed.
        """
        samples = as_array(samples, "samples").astype(np.float32, copy=False)
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
        if self.name and self.rate is None and rate < SAMPLE_RATE:
            logger.warning(
                "the sample rate of %s is %d Hz, so it has no frequencies above %d Hz: expect poor "
                "translations from a model trained at %d Hz",
                self.name,
                rate,
                rate // 2,
                SAMPLE_RATE,
            )
        if self.rate is None and rate != SAMPLE_RATE:
            self.resampler = soxr.ResampleStream(rate, SAMPLE_RATE, num_channels=1, dtype="float32")
        self.rate = rate
        self.waiting.append(samples.reshape(-1))

    def take(self, final: bool) -> np.ndarray:
        """Remove and return all samples, (N,) float32 at 16 kHz; a resampler delays some ms until ``final``."""
        samples = np.concatenate([np.zeros(0, np.float32), *self.waiting])
        self.waiting = []
        return samples if self.resampler is None else self.resampler.resample_chunk(samples, last=bool(final))
