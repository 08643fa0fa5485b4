"""Log-mel spectrograms for synthesis, and the way back to samples, by librosa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import librosa
import numpy as np

FLOOR = 1e-5  # of magnitudes, before the logarithm


@dataclass(frozen=True)
class MelSpectrogram:
    """Settings, under fairseq's names; the defaults are those of LJSpeech systems: 22.05 kHz, a frame every 11.6 ms.

    Lengths are in samples, frequencies in Hz. Magnitudes, not powers; Slaney's filters; natural logarithm.

    Raises:
        ValueError: settings that make no spectrogram.
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    f_min: float = 20.0
    f_max: float = 8000.0

    def __post_init__(self) -> None:
        if min(self.sample_rate, self.hop_length, self.n_mels) < 1 or not self.hop_length <= self.win_length:
            raise ValueError(f"no spectrogram has such settings: {asdict(self)}")
        if self.win_length > self.n_fft:
            raise ValueError(f"the window of {self.win_length} samples does not fit into n_fft = {self.n_fft}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"filters from {self.f_min} to {self.f_max} Hz do not lie below half of {self.sample_rate} Hz: "
                "lower f_max, or take a higher sample rate"
            )

    @classmethod
    def from_config(cls, features: Mapping[str, object]) -> MelSpectrogram:
        """From the ``features`` of a data configuration; other keys there are not looked at."""
        return cls(**{field.name: features[field.name] for field in fields(cls) if field.name in features})

    @cached_property
    def filters(self) -> np.ndarray:
        """(n_mels, n_fft / 2 + 1)"""
        return librosa.filters.mel(
            sr=self.sample_rate, n_fft=self.n_fft, n_mels=self.n_mels, fmin=self.f_min, fmax=self.f_max
        )

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Samples (time,) -> log-mel frames (T, n_mels) float32, T = 1 + time // hop_length."""
        magnitudes = np.abs(librosa.stft(samples, **self._framing, pad_mode="constant"))
        return np.log(np.maximum(self.filters @ magnitudes, FLOOR)).T.astype(np.float32)

    def griffin_lim(self, frames: np.ndarray, iterations: int = 60, seed: int = 0) -> np.ndarray:
        """Log-mel frames (T, n_mels) -> samples (time,) float32, by the fast Griffin-Lim algorithm of librosa.

        Linear magnitudes are the pseudo-inverse's, where they are above 0. The phase starts at random, by the seed.
        """
        magnitudes = np.maximum(np.linalg.pinv(self.filters) @ np.exp(frames.T.astype(np.float64)), 1e-10)
        samples = librosa.griffinlim(
            magnitudes.astype(np.float32), n_iter=iterations, random_state=seed, pad_mode="constant", **self._framing
        )
        return samples.astype(np.float32)

    def trim(self, samples: np.ndarray, decibels: float = 40.0) -> np.ndarray:
        """Samples without what is this far below the loudest at the beginning and at the end."""
        return librosa.effects.trim(samples, top_db=decibels, frame_length=self.win_length, hop_length=self.hop_length)[
            0
        ]

    @property
    def _framing(self) -> dict[str, int]:
        return {"n_fft": self.n_fft, "hop_length": self.hop_length, "win_length": self.win_length}
