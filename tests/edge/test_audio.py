"""Speech for exported models: files with and without the packages that read any format, and a microphone."""

import os
import signal
import sys
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mla_fairseq.edge.runtime.audio import read_blocks, record
from mla_fairseq.speech import load_audio


@pytest.fixture(params=["soundfile", "without"])
def packages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let soundfile and soxr seem not to be installed."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "mla_fairseq.speech.audio", None)
    return request.param


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mla_fairseq.speech.audio", None)


def write(path: Path, samples: np.ndarray, rate: int = 16_000, width: int = 2) -> Path:
    """Write samples (N, channels) as a wav file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def noise(count: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(-9_000, 9_000, (count, channels)).astype("<i2")


@pytest.mark.parametrize("count", [1, 1_600, 4_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_are_the_samples_of_the_file(tmp_path: Path, packages: str, count: int, channels: int) -> None:
    path = write(tmp_path / "a.wav", noise(count, channels))
    blocks = list(read_blocks(path))
    assert max(map(len, blocks)) <= 1_600 and {block.dtype for block in blocks} == {np.dtype(np.float32)}
    expected = noise(count, channels).mean(1) / 32_768
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-7)


def test_other_rates_are_converted_where_the_packages_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(24_000), rate=24_000)
    assert np.array_equal(np.concatenate(list(read_blocks(path))), load_audio(path))


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda path: write(path, noise(9), rate=8_000),
            "has 8000 samples per second, 16 bits each: pip install soundfile soxr, or convert it",
            id="rate",
        ),
        pytest.param(
            lambda path: write(path, np.zeros((9, 1), np.uint8), width=1),
            "16000 samples per second, 8 bits each: pip install soundfile soxr",
            id="width",
        ),
        pytest.param(lambda path: path.write_bytes(b"fLaC" + bytes(99)), "is not a wav file of integers", id="flac"),
        pytest.param(
            lambda path: path.write_bytes(b"RIFF"), r"is not a wav file of integers \(it ends in its", id="cut-header"
        ),
        pytest.param(lambda path: write(path, noise(0)), "empty audio", id="empty"),
        pytest.param(
            lambda path: path.write_bytes(write(path, noise(900)).read_bytes()[:-101]), "lacks its last 51", id="cut"
        ),
        pytest.param(lambda path: path.mkdir(), "is a folder: correct the name", id="folder"),
        pytest.param(lambda path: None, "is missing: correct the name", id="missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path, make, message: str) -> None:
    make(path := tmp_path / "a.wav")
    with pytest.raises(ValueError, match=message) as caught:
        list(read_blocks(path))
    assert str(path) in str(caught.value)


class Stream:
    """A microphone that is unplugged after two blocks."""

    def __init__(self, **settings: object) -> None:
        self.settings, self.left = settings, 2

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, count: int) -> tuple[np.ndarray, bool]:
        self.left -= 1
        if self.left < 0:
            raise OSError("Device unavailable")
        return np.full((count, 1), self.left, np.int16), False


def test_a_microphone_gives_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(InputStream=Stream, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    blocks = record()
    assert [(block.shape, block[0]) for block in (next(blocks), next(blocks))] == [((1_600,), 1), ((1_600,), 0)]
    with pytest.raises(ValueError, match=r"the microphone cannot be opened \(Device unavailable\): connect one"):
        next(blocks)


class Interrupted(Stream):
    """A microphone whose user presses Ctrl-C."""

    def read(self, count: int) -> tuple[np.ndarray, bool]:
        os.kill(os.getpid(), signal.SIGINT)
        return super().read(count)


def test_ctrl_c_ends_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(InputStream=Interrupted, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    before = signal.getsignal(signal.SIGINT)
    assert len(list(record())) == 1
    assert signal.getsignal(signal.SIGINT) is before


class Lost:
    """sounddevice is installed, but finds no PortAudio."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")


@pytest.mark.parametrize("installed", [False, True])
def test_a_microphone_needs_a_package(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    if installed:
        monkeypatch.delitem(sys.modules, "sounddevice")
        monkeypatch.setattr(sys, "meta_path", [Lost(), *sys.meta_path])
    with pytest.raises(ValueError, match=r"the microphone needs sounddevice \(.+\): pip install sounddevice"):
        next(record())
