"""Log-mel spectrograms and their inversion."""

import numpy as np
import pytest

from mla_fairseq.speech.mel import FLOOR, MelSpectrogram

MEL = MelSpectrogram()
TIME = np.arange(MEL.sample_rate, dtype=np.float32) / MEL.sample_rate


def tone(frequency: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * TIME).astype(np.float32) / 2


def test_a_frame_for_every_hop_and_silence_at_the_floor() -> None:
    frames = MEL(np.zeros(1000, dtype=np.float32))
    assert frames.shape == (1 + 1000 // MEL.hop_length, MEL.n_mels) and frames.dtype == np.float32
    np.testing.assert_allclose(frames, np.log(FLOOR), rtol=1e-6)


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 3000.0])
def test_a_tone_is_loudest_in_its_bin(frequency: float) -> None:
    loudest = MEL(tone(frequency)).mean(0).argmax()
    centre = MEL.filters[loudest].argmax() * MEL.sample_rate / MEL.n_fft
    assert centre == pytest.approx(frequency, rel=0.1)


def test_magnitudes_are_linear_in_the_signal() -> None:
    once, twice = MEL(tone(440)), MEL(tone(440) * 2)
    loud = once > np.log(FLOOR) + 1
    np.testing.assert_allclose(twice[loud], once[loud] + np.log(2), atol=1e-3)


def test_inverted_frames_have_the_same_spectrogram() -> None:
    sweep = np.sin(2 * np.pi * (200 + 800 * TIME) * TIME).astype(np.float32) / 2
    frames = MEL(sweep)
    again = MEL(MEL.griffin_lim(frames))
    loud = frames > frames.max() - 3
    assert len(again) == len(frames)
    assert np.abs(again - frames)[loud].mean() < 0.25
    assert np.array_equal(MEL.griffin_lim(frames), MEL.griffin_lim(frames))


def test_silence_at_both_ends_is_trimmed() -> None:
    silence = np.zeros(8000, dtype=np.float32)
    kept = MEL.trim(np.concatenate((silence, tone(440), silence)))
    assert len(TIME) <= len(kept) < len(TIME) + 4000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop_length": 0}, "hop_length must be at least 1 .* 'hop_length': 0"),
        ({"win_length": 2048}, "win_length must be at most n_fft = 1024, but is 2048"),
        ({"sample_rate": 8000}, "lower f_max, or use a higher sample rate"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MelSpectrogram(**settings)


def test_settings_come_from_a_data_configuration() -> None:
    assert MelSpectrogram.from_config({"type": "x", "sample_rate": 16000, "hop_length": 200}) == MelSpectrogram(
        sample_rate=16000, hop_length=200
    )


def test_frames_that_would_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the frames are no speech \(up to 400, in log\)"):
        MEL.griffin_lim(np.full((20, MEL.n_mels), 400.0, np.float32))
