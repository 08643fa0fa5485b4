"""Griffin-Lim by numpy equals librosa's."""

import numpy as np
import pytest

from mla_fairseq.edge.runtime.vocoder import griffin_lim
from mla_fairseq.speech.mel import MelSpectrogram
from tests.data.voice import whistle


@pytest.mark.parametrize("settings", [{}, {"win_length": 800, "hop_length": 200}, {"hop_length": 300}])
def test_samples_are_those_of_librosa(settings: dict[str, int]) -> None:
    mel = MelSpectrogram(**settings)
    frames = mel(whistle("abc", mel.sample_rate))
    magnitudes = np.maximum(np.linalg.pinv(mel.filters) @ np.exp(frames.T.astype(np.float64)), 1e-10)
    expected = mel.griffin_lim(frames, iterations=5)
    found = griffin_lim(magnitudes.T.astype(np.float32), mel.hop_length, mel.win_length, iterations=5)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_frame_gives_no_sample() -> None:
    assert griffin_lim(np.ones((1, 33), np.float32), 16, 64, 2).shape == (0,)
