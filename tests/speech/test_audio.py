"""Audio files: exact samples, and clear errors."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from mla_fairseq.speech import audio_length, load_audio, read_audio


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


CONTAINERS = {
    "wav": {},
    "big-endian wav": {"endian": "BIG"},
    "extended wav": {"format": "WAVEX"},
    "aiff": {"format": "AIFF"},
}


@pytest.mark.parametrize("form", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("read", [audio_length, read_audio, load_audio])
def test_a_file_that_was_cut_short_is_reported(wav: Path, samples: np.ndarray, read: Callable, form: dict) -> None:
    soundfile.write(wav, samples, 16_000, **{"format": "WAV", **form})
    read(wav)
    wav.write_bytes(wav.read_bytes()[:-7])  # libsndfile would read the rest
    with pytest.raises(ValueError, match=r"talk\.wav: ends after \d+ of 160\d\d bytes of samples: copy it again"):
        read(wav)


@pytest.mark.parametrize("size", [0x7FFF_F000, 0xFFFF_FFFF])
def test_a_wav_file_that_was_written_to_a_pipe_does_not_know_its_size(
    wav: Path, samples: np.ndarray, size: int
) -> None:
    content = bytearray(wav.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    wav.write_bytes(content)
    assert np.array_equal(load_audio(wav) * 32_768, samples)


def test_other_chunks_and_bytes_after_the_samples_are_no_fault(wav: Path, samples: np.ndarray) -> None:
    content = wav.read_bytes()
    wav.write_bytes(content[:36] + b"LIST\3\0\0\0abc\0" + content[36:] + b"more")
    assert np.array_equal(load_audio(wav) * 32_768, samples)


@pytest.mark.parametrize("name", ["talk.wav", "talk.flac", "talk.aiff", "talk.au", "talk.w64"])
def test_a_mono_file_is_loaded_exactly(tmp_path: Path, samples: np.ndarray, name: str) -> None:
    soundfile.write(tmp_path / name, samples, 16_000, subtype="PCM_16")
    assert np.array_equal(load_audio(tmp_path / name) * 32_768, samples)


def test_channels_are_averaged(tmp_path: Path, samples: np.ndarray) -> None:
    soundfile.write(tmp_path / "talk.wav", np.stack([samples, np.zeros_like(samples), samples], 1), 16_000)
    assert np.allclose(load_audio(tmp_path / "talk.wav") * 32_768, samples * (2 / 3), atol=0.01)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_becomes_16_khz(tmp_path: Path, samples: np.ndarray, rate: int, monkeypatch) -> None:
    soundfile.write(tmp_path / "talk.wav", samples, rate)
    monkeypatch.setattr("mla_fairseq.speech.audio.BLOCK", 1_000)  # blocks must leave no trace
    expected = soxr.resample(samples / np.float32(32_768), rate, 16_000)
    np.testing.assert_allclose(load_audio(tmp_path / "talk.wav"), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["talk.ogg", "talk.mp3"])
def test_lossy_formats_are_read(tmp_path: Path, name: str) -> None:
    tone = 0.3 * np.sin(np.arange(32_000) * 2 * np.pi * 440 / 32_000)
    soundfile.write(tmp_path / name, tone, 32_000)
    found = load_audio(tmp_path / name)
    assert len(found) == 16_000 and np.abs(found[4_000:12_000]).max() == pytest.approx(0.3, abs=0.03)


def _with(value: float) -> np.ndarray:
    return np.where(np.arange(1_600) == 640, value, 0.1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("talk.wav", b"", "cannot be read as audio"),
        ("talk.wav", b"no audio at all" * 100, "cannot be read as audio"),
        ("talk.raw", bytes(8_000), "cannot be read as audio"),
        ("talk.wav", np.zeros(0), "empty audio: record or copy it again"),
        ("talk.wav", _with(np.nan), r"not finite at 0\.04 s: repair the recording"),
        ("talk.wav", _with(-9_000.0), r"the sample at 0\.04 s is 9000 times full scale: export"),
    ],
    ids=["no bytes", "text", "raw", "empty", "nan", "too loud"],
)
def test_a_file_without_usable_samples_is_named(tmp_path: Path, name: str, content, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        soundfile.write(tmp_path / name, content, 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        load_audio(tmp_path / name)


@pytest.mark.parametrize(("rate", "channels"), [(1, 1), (999, 1), (2_000_000, 1)])
def test_a_rate_that_is_no_rate_of_speech_is_refused(tmp_path: Path, rate: int, channels: int) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros((800, channels)), rate)
    with pytest.raises(
        ValueError, match=rf"talk\.wav: {rate} samples per second are no rate of speech: repair the file"
    ):
        load_audio(tmp_path / "talk.wav")


@pytest.mark.parametrize("name", ["talk.flac", "talk.mp3"])
def test_a_compressed_file_that_was_cut_short_is_named(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, 0.1 * np.random.default_rng(0).standard_normal(48_000), 16_000)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3_000])
    with pytest.raises(ValueError, match=rf"{name}: .*copy it again"):
        load_audio(tmp_path / name)


def test_a_file_name_need_not_be_utf8(tmp_path: Path, samples: np.ndarray) -> None:
    soundfile.write(tmp_path / "talk.wav", samples, 16_000)
    path = (tmp_path / "talk.wav").rename(tmp_path / "bad\udcff.wav")
    assert np.array_equal(load_audio(path) * 32_768, samples)
    assert np.array_equal(read_audio(path) * 32_768, samples)


def test_what_is_no_regular_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for load in (load_audio, audio_length):
        for path in (tmp_path / "pipe.wav", Path("/dev/null")):
            with pytest.raises(ValueError, match=f"{path} is not a regular file: "):
                load(path)
        with pytest.raises(ValueError, match=r"x\.wav cannot be opened \(File name too long\): "):
            load(tmp_path / ("x" * 300 + ".wav"))


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder: give the files in it"):
        load_audio(tmp_path)
    with pytest.raises(ValueError, match=r"talk\.wav is missing: correct the name"):
        load_audio(tmp_path / "talk.wav")


def test_a_low_sample_rate_names_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "phone.wav", np.zeros(8_000), 8_000)
    load_audio(tmp_path / "phone.wav")
    assert f"the sample rate of {tmp_path / 'phone.wav'} is 8000 Hz, so it has no frequencies above" in caplog.text
