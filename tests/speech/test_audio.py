"""Audio files: exact samples, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mla_fairseq.speech import audio_length, read_audio


@pytest.fixture
def samples() -> np.ndarray:
    return (3_000 * np.random.default_rng(0).standard_normal(8_000)).astype(np.int16)


@pytest.fixture
def wav(tmp_path: Path, samples: np.ndarray) -> Path:
    soundfile.write(tmp_path / "talk.wav", samples, 16_000)
    return tmp_path / "talk.wav"


@pytest.mark.parametrize(("offset", "frames"), [(0, -1), (0, 8_000), (1_234, 777), (7_999, 1), (500, -1), (8_000, 0)])
def test_a_segment_is_exact(wav: Path, samples: np.ndarray, offset: int, frames: int) -> None:
    stop = None if frames < 0 else offset + frames
    assert np.array_equal(read_audio(wav, offset, frames) * 32_768, samples[offset:stop])


@pytest.mark.parametrize(("offset", "frames"), [(0, 8_001), (7_000, 1_001), (-1, 10), (9_000, -1)])
def test_a_segment_beyond_the_file_is_reported(wav: Path, offset: int, frames: int) -> None:
    with pytest.raises(ValueError, match=r"talk\.wav: has 8000 samples, but the segment is from"):
        read_audio(wav, offset, frames)


@pytest.mark.parametrize(
    ("shape", "rate", "message"),
    [
        pytest.param((8_000, 2), 16_000, r"talk\.wav: 2 channels.*sox talk\.wav", id="stereo"),
        pytest.param((8_000,), 8_000, r"talk\.wav: 8000 samples per second.*sox talk\.wav", id="8 kHz"),
        pytest.param((0,), 16_000, r"talk\.wav: empty audio", id="empty"),
    ],
)
def test_a_wrong_format_is_reported(tmp_path: Path, shape: tuple[int, ...], rate: int, message: str) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros(shape, np.int16), rate)
    with pytest.raises(ValueError, match=message):
        audio_length(tmp_path / "talk.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no audio at all" * 100], ids=["no bytes", "cut", "text"])
def test_a_file_without_audio_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "talk.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"talk\.wav: cannot be read as audio"):
        read_audio(tmp_path / "talk.wav")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"talk\.wav is missing"):
        read_audio(tmp_path / "talk.wav")


def test_a_file_that_was_cut_short_is_reported(wav: Path) -> None:
    wav.write_bytes(wav.read_bytes()[:10_001])
    with pytest.raises(ValueError, match="has 4978 samples, but the segment is from 0 to 8000: copy the file again"):
        read_audio(wav, 0, 8_000)
