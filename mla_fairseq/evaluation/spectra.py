"""How far synthesised speech is from recorded speech: mel-cepstral distortion along the best path, and duration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import librosa
import numpy as np
from scipy.fft import dct
from scipy.spatial.distance import cdist

WINDOW, HOP = 0.05, 0.0125  # seconds
COEFFICIENTS = 13


def cepstra(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples (time,) -> mel-frequency cepstra (T, 13).

    As in Wave-Tacotron (arXiv 2011.03568, section 4) and fairseq: 80 mel bins of power from 20 Hz on, windows of 50 ms
    every 12.5 ms, natural logarithm, orthonormal DCT.
    """
    size = int(WINDOW * rate)
    mel = librosa.feature.melspectrogram(
        y=samples, sr=rate, n_fft=size, hop_length=int(HOP * rate), n_mels=80, fmin=20, htk=True, norm=None
    )
    return dct(np.log(mel + 1e-6), type=2, axis=0, norm="ortho")[:COEFFICIENTS].T


def mel_cepstral_distortion(recorded: np.ndarray, synthesised: np.ndarray, rate: int) -> float:
    """MCD-DTW: root mean square difference of the 13 cepstra, mean along the best path of dynamic time warping.

    Both are samples (time,) at ``rate``.

    Raises:
        ValueError: one of them is empty.
    """
    if not len(recorded) or not len(synthesised):
        raise ValueError("there is no distortion of nothing: one of the two recordings is empty")
    a, b = cepstra(recorded, rate), cepstra(synthesised, rate)
    total, path = librosa.sequence.dtw(C=cdist(a, b) / np.sqrt(COEFFICIENTS))
    return float(total[-1, -1] / len(path))


@dataclass(frozen=True)
class SpectraScores:
    """Means over a test set.

    mcd: mel-cepstral distortion along the best path.
    duration_error: |synthesised - recorded| / recorded, of the durations.
    duration_ratio: synthesised over recorded, of the sums.
    ended: the part of the utterances that the model ended by itself.
    """

    mcd: float
    duration_error: float
    duration_ratio: float
    ended: float
    utterances: int

    @classmethod
    def of(cls, rows: Iterable[tuple[float, float, float, bool]]) -> SpectraScores:
        """From (distortion, recorded seconds, synthesised seconds, ended) of each utterance.

        Raises:
            ValueError: there is none.
        """
        rows = list(rows)
        if not rows:
            raise ValueError("there is no utterance to score")
        distortions, recorded, synthesised, ended = zip(*rows, strict=True)
        errors = [abs(made - true) / true for true, made in zip(recorded, synthesised, strict=True)]
        return cls(fmean(distortions), fmean(errors), sum(synthesised) / sum(recorded), fmean(ended), len(rows))
