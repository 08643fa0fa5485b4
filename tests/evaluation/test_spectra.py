"""Mel-cepstral distortion along the best path, and duration."""

import numpy as np
import pytest

from mla_fairseq.evaluation.spectra import SpectraScores, cepstra, mel_cepstral_distortion

RATE = 16000
TIME = np.arange(RATE) / RATE


def sweep(seconds: float, low: float = 200, high: float = 2000) -> np.ndarray:
    """Return a tone that rises from low to high, in Hz."""
    time = np.arange(int(seconds * RATE)) / RATE
    return np.sin(2 * np.pi * (low + (high - low) * time / seconds / 2) * time).astype(np.float32)


def test_distortion_from_itself_is_0_and_speed_matters_little() -> None:
    assert mel_cepstral_distortion(sweep(1), sweep(1), RATE) < 1e-3
    slow, other = (
        mel_cepstral_distortion(sweep(1), sweep(1.5), RATE),
        mel_cepstral_distortion(sweep(1), sweep(1, 2000, 200), RATE),
    )
    assert slow < other / 3


def test_a_louder_recording_differs_in_one_cepstrum_by_a_known_number() -> None:
    """Twice the amplitude adds log 4 to each of 80 bins: sqrt(80) log 4 to the first cepstrum, none to the others."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=RATE).astype(np.float32)
    difference = cepstra(2 * noise, RATE) - cepstra(noise, RATE)
    np.testing.assert_allclose(difference[:, 0], np.sqrt(80) * np.log(4), rtol=1e-4)
    np.testing.assert_allclose(difference[:, 1:], 0, atol=1e-3)


def test_the_path_is_optimal() -> None:
    """Compared with dynamic programming by hand."""
    a, b = sweep(0.2), sweep(0.15, 500, 900)
    x, y = cepstra(a, RATE), cepstra(b, RATE)
    distance = np.sqrt(((x[:, None] - y[None]) ** 2).mean(-1))
    best = np.full(distance.shape, np.inf)
    steps = np.zeros(distance.shape, dtype=int)
    for i in range(len(x)):
        for j in range(len(y)):
            before = [
                (best[m, n], steps[m, n]) for m, n in ((i - 1, j - 1), (i, j - 1), (i - 1, j)) if m >= 0 and n >= 0
            ]
            cost, number = min(before, key=lambda pair: pair[0], default=(0.0, 0))
            best[i, j], steps[i, j] = cost + distance[i, j], number + 1
    assert mel_cepstral_distortion(a, b, RATE) == pytest.approx(best[-1, -1] / steps[-1, -1], rel=1e-4)


def test_an_empty_signal_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a signal is empty \(recorded 16000, synthesised 0 samples\)"):
        mel_cepstral_distortion(sweep(1), np.zeros(0, dtype=np.float32), RATE)


def test_means_over_a_set() -> None:
    scores = SpectraScores.of([(2.0, 1.0, 1.5, True), (4.0, 3.0, 2.5, False)])
    assert scores == SpectraScores(3.0, pytest.approx((0.5 + 1 / 6) / 2), 1.0, 0.5, 2)
    with pytest.raises(ValueError, match="no utterance to score"):
        SpectraScores.of([])
