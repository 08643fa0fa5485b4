"""Compare synthesised with recorded speech: mel-cepstral distortion along the best path, and duration."""

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
    """Return the mel-frequency cepstra (T, 13) of samples (time,).

    As in Wave-Tacotron (arXiv 2011.03568, section 4) and fairseq: 80 mel bins of power from 20 Hz on, windows of 50 ms
    every 12.5 ms, natural logarithm, orthonormal DCT.
    """
    size = int(WINDOW * rate)
    mel = librosa.feature.melspectrogram(
        y=samples, sr=rate, n_fft=size, hop_length=int(HOP * rate), n_mels=80, fmin=20, htk=True, norm=None
    )
    return dct(np.log(mel + 1e-6), type=2, axis=0, norm="ortho")[:COEFFICIENTS].T


def mel_cepstral_distortion(recorded: np.ndarray, synthesised: np.ndarray, rate: int) -> float:
    """Return MCD-DTW: the root mean square difference of the 13 cepstra, averaged along the best path.

    The path is that of dynamic time warping. Both signals are samples (time,) at ``rate`` Hz.

    Raises:
        ValueError: a signal is empty.
    """
    from librosa.sequence import dtw  # here, because it compiles code for seconds when it is imported

    if not len(recorded) or not len(synthesised):
        raise ValueError(
            f"a signal is empty (recorded {len(recorded)}, synthesised {len(synthesised)} samples): leave it out"
        )
    a, b = cepstra(recorded, rate), cepstra(synthesised, rate)
    total, path = dtw(C=cdist(a, b) / np.sqrt(COEFFICIENTS))
    return float(total[-1, -1] / len(path))


@dataclass(frozen=True)
class SpectraScores:
    """Means over a test set.

    Attributes:
        mcd: mel-cepstral distortion along the best path.
        duration_error: |synthesised - recorded| / recorded duration, mean over the utterances.
        duration_ratio: total synthesised duration / total recorded duration.
        ended: fraction of the utterances that the model ended; a limit ended the others.
        utterances: number of utterances.
    """

    mcd: float
    duration_error: float
    duration_ratio: float
    ended: float
    utterances: int

    @classmethod
    def of(cls, rows: Iterable[tuple[float, float, float, bool]]) -> SpectraScores:
        """Average (distortion, recorded seconds, synthesised seconds, ended) over the utterances.

        Raises:
            ValueError: no utterance.
        """
        rows = list(rows)
        if not rows:
            raise ValueError("no utterance to score: give at least one")
        distortions, recorded, synthesised, ended = zip(*rows, strict=True)
        errors = [abs(made - true) / true for true, made in zip(recorded, synthesised, strict=True)]
        return cls(fmean(distortions), fmean(errors), sum(synthesised) / sum(recorded), fmean(ended), len(rows))
