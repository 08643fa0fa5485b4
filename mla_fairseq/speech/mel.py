"""Log-mel spectrograms for synthesis, and their inversion to samples, by librosa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mla_fairseq.speech.samples import INT16_RANGE, as_array, to_kaldi_scale

FLOOR = 1e-5  # of magnitudes, before the logarithm
LOUDEST = 1e30  # magnitude of which samples in float32 do not overflow


@dataclass(frozen=True)
class MelSpectrogram:
    """Settings under fairseq's names; the defaults are those of LJSpeech systems: 22.05 kHz, a frame every 11.6 ms.

    Lengths are in samples, frequencies in Hz. Frames have magnitudes, not powers; Slaney's filters; natural logarithm.

    Raises:
        ValueError: settings that are out of range or do not fit together.
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    f_min: float = 20.0
    f_max: float = 8000.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, Real) or isinstance(value, bool):
                raise ValueError(f"{name} must be a number, but is {value!r}")
        if min(self.sample_rate, self.hop_length, self.n_mels) < 1 or not self.hop_length <= self.win_length:
            raise ValueError(
                f"sample_rate, n_mels and hop_length must be at least 1 and win_length at least hop_length, but are "
                f"{asdict(self)}"
            )
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length must be at most n_fft = {self.n_fft}, but is {self.win_length}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"f_min and f_max must be from 0 to half of {self.sample_rate} Hz, but are {self.f_min} and "
                f"{self.f_max}: lower f_max, or use a higher sample rate"
            )

    @classmethod
    def from_config(cls, features: Mapping[str, Any]) -> MelSpectrogram:
        """Return the settings in the ``features`` of a data configuration; other keys are ignored."""
        return cls(**{field.name: features[field.name] for field in fields(cls) if field.name in features})

    @cached_property
    def filters(self) -> np.ndarray:
        """Mel filters (n_mels, n_fft / 2 + 1)."""
        import librosa  # where it is used, here and below: settings are read without the extra tts

        # librosa imports its submodules on first use, which type checkers cannot see; an import here would take seconds
        return librosa.filters.mel(  # type: ignore[attr-defined]
            sr=self.sample_rate, n_fft=self.n_fft, n_mels=self.n_mels, fmin=self.f_min, fmax=self.f_max
        )

    def __call__(self, samples: ArrayLike) -> np.ndarray:
        """Return log-mel frames (T, n_mels), float32, of samples (time,); T = 1 + time // hop_length.

        Raises:
            ValueError: samples that ``features.to_kaldi_scale`` refuses.
        """
        import librosa

        samples = to_kaldi_scale(samples) / np.float32(INT16_RANGE)  # exact: a power of two
        magnitudes = np.abs(librosa.stft(samples, **self._framing, pad_mode="constant"))
        return np.log(np.maximum(self.filters @ magnitudes, FLOOR)).T.astype(np.float32)

    def griffin_lim(self, frames: ArrayLike, iterations: int = 60, seed: int = 0) -> np.ndarray:
        """Return samples (time,), float32, of log-mel frames (T, n_mels), by librosa's fast Griffin-Lim algorithm.

        Linear magnitudes come from the pseudo-inverse of the filters. The initial phase is random, from ``seed``.

        Raises:
            ValueError: frames of another shape, or so loud that samples would overflow.
        """
        import librosa

        frames = as_array(frames, "frames")
        if frames.ndim != 2 or frames.shape[1] != self.n_mels:
            raise ValueError(f"frames have shape {frames.shape}, but (T, {self.n_mels}) is needed")
        # the pseudo-inverse may give negative numbers, which are no magnitudes
        magnitudes = np.maximum(np.linalg.pinv(self.filters) @ np.exp(frames.T.astype(np.float64)), 1e-10)
        if not magnitudes.max(initial=0) < LOUDEST:  # also if it is NaN
            raise ValueError(f"the frames are no speech (up to {frames.max():g}, in log): check model and statistics")
        samples = librosa.griffinlim(
            magnitudes.astype(np.float32), n_iter=iterations, random_state=seed, pad_mode="constant", **self._framing
        )
        return samples.astype(np.float32)

    def trim(self, samples: np.ndarray, decibels: float = 40.0) -> np.ndarray:
        """Return samples without the silence at both ends: all that is this far below the loudest frame."""
        import librosa

        framing = {"frame_length": self.win_length, "hop_length": self.hop_length}
        return librosa.effects.trim(samples, top_db=decibels, **framing)[0]  # type: ignore[attr-defined]  # as above

    @property
    def _framing(self) -> dict[str, int]:
        return {"n_fft": self.n_fft, "hop_length": self.hop_length, "win_length": self.win_length}
