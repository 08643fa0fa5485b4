"""Filter banks against two other implementations, and the stream against the whole recording."""

import copy
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.speech import FilterBankStream, GlobalCMVN, filter_banks, num_frames
from mla_fairseq.speech.samples import to_kaldi_scale

# Energies may differ by RELATIVE, and by the rounding of a float32 FFT: 90 dB below the loudest bin of the frame. For a
# pure tone, the faintest bins consist of that rounding.
RELATIVE, FLOOR = 5e-4, 1e-9
TYPICAL = 5e-5  # median difference of the log energies


def load(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kaldi = load("kaldi_oracle", Path(__file__).with_name("kaldi.py"))


def noise(length: int, seed: int = 0, scale: float = 0.1) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(length)).astype(np.float32).clip(-1, 1)


def chirp(length: int) -> np.ndarray:
    time = np.arange(length) / 16_000
    return (0.5 * np.sin(2 * np.pi * (100 + 1500 * time) * time)).astype(np.float32)


SIGNALS = {
    "noise": noise(16_000),
    "faint noise": noise(16_000, scale=1e-4),
    "chirp": chirp(24_000) + noise(24_000, scale=1e-3),
    "offset": noise(8_000) * 0.1 + 0.3,
    "impulses": np.where(np.arange(8_000) % 500 == 0, 0.9, 0).astype(np.float32) + noise(8_000, scale=1e-3),
    "one frame": noise(400),
    "nearly two frames": noise(559),
}


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.median(np.abs(ours - theirs)) < TYPICAL
    ours, theirs = np.exp(ours, dtype=np.float64), np.exp(theirs, dtype=np.float64)
    allowed = RELATIVE * theirs + FLOOR * theirs.max(axis=1, keepdims=True)
    assert (np.abs(ours - theirs) <= allowed).all()


@pytest.fixture(params=SIGNALS.values(), ids=SIGNALS.keys())
def signal(request: pytest.FixtureRequest) -> np.ndarray:
    return request.param


def test_equal_to_an_independent_numpy_implementation(signal: np.ndarray) -> None:
    assert_same(filter_banks(signal), kaldi.filter_banks(signal * 32_768))


def test_equal_to_torchaudios_kaldi(signal: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """fairseq uses it. Only its Python file is loaded: the package needs a library that may not match torch."""
    spec = importlib.util.find_spec("torchaudio")
    if spec is None:
        pytest.skip("torchaudio is not installed")
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    theirs = load("torchaudio_kaldi", Path(spec.origin).parent / "compliance" / "kaldi.py")
    expected = theirs.fbank(torch.from_numpy(signal * 32_768)[None], num_mel_bins=80, sample_frequency=16_000.0)
    assert_same(filter_banks(signal), expected.numpy())


def test_silence_is_the_floor_and_finite() -> None:
    assert np.allclose(filter_banks(np.zeros(1_000, np.float32)), np.log(np.finfo(np.float32).eps))


def test_int16_float_and_list_are_the_same_sound() -> None:
    samples = (noise(2_000) * 32_768).astype(np.int16)
    floats = samples / 32_768.0
    for same in (floats, floats.astype(np.float32), floats.tolist()):
        assert np.array_equal(filter_banks(samples), filter_banks(same))


@pytest.mark.parametrize("length", [0, 1, 159, 160, 399, 400, 559, 560, 561, 16_000])
def test_num_frames(length: int) -> None:
    assert num_frames(length) == len(FilterBankStream().push(noise(length), final=True))


@given(length=st.integers(400, 4_000), cuts=st.lists(st.integers(0, 4_000), max_size=12), as_int16=st.booleans())
def test_any_chunks_give_the_same_frames(length: int, cuts: list[int], as_int16: bool) -> None:
    samples = noise(length, seed=length)
    samples = (samples * 32_767).astype(np.int16) if as_int16 else samples
    stream, chunks = FilterBankStream(), np.split(samples, sorted(min(cut, length) for cut in cuts))
    frames = [stream.push(chunk, final=number == len(chunks) - 1) for number, chunk in enumerate(chunks)]
    assert np.array_equal(np.concatenate(frames), filter_banks(samples))


def test_a_frame_is_returned_as_soon_as_its_window_is_complete() -> None:
    stream, samples = FilterBankStream(), noise(1_000)
    assert [len(stream.push(samples[start : start + 80])) for start in range(0, 960, 80)] == [0] * 4 + [1, 0] * 4


def test_state_does_not_grow() -> None:
    stream = FilterBankStream()
    for second in range(20):
        stream.push(noise(16_000, seed=second))
        assert len(stream.tail) < 400


def test_a_copy_is_a_snapshot() -> None:
    stream, later = FilterBankStream(), noise(1_000, seed=1)
    stream.push(noise(777))
    snapshot = copy.copy(stream)
    first = stream.push(later, final=True)
    assert np.array_equal(snapshot.push(later, final=True), first)


def test_samples_of_the_caller_are_neither_kept_nor_changed() -> None:
    stream, samples = FilterBankStream(), noise(500)
    before = samples.copy()
    stream.push(samples)
    assert np.array_equal(samples, before)
    tail = stream.tail.copy()
    samples[:] = 0
    assert np.array_equal(stream.tail, tail)


def test_samples_after_the_end_are_refused() -> None:
    stream = FilterBankStream()
    stream.push(noise(400), final=True)
    with pytest.raises(RuntimeError, match="has ended"):
        stream.push(noise(400))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        pytest.param(np.zeros((2, 1_000), np.float32), r"shape \(2, 1000\).*one channel", id="two channels"),
        pytest.param(np.zeros((1_000, 1), np.float32), r"shape \(1000, 1\)", id="a channel axis"),
        pytest.param(np.zeros(1_000, np.int32), "int32.*int16", id="int32"),
        pytest.param(np.array([0, 1, 2] * 200), "int64", id="whole numbers"),
        pytest.param(
            np.full(1_000, 12_000.0),
            r"12000.0.*\[-1, 1\] \(at most 2 if resampled\): divide by 32768",
            id="floats in the 16-bit range",
        ),
        pytest.param(np.full(1_000, np.nan), "nan.*repair", id="nan"),
        pytest.param(np.full(1_000, -np.inf), "inf.*repair", id="infinity"),
        pytest.param(np.zeros(0, np.float32), "0 samples is empty", id="empty"),
        pytest.param([], "0 samples is empty", id="empty list"),
        pytest.param(np.zeros(399, np.float32), "399 samples is too short.*400", id="shorter than a frame"),
    ],
)
def test_bad_samples_are_reported(samples: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_banks(samples)


@pytest.mark.parametrize("begin", [lambda: filter_banks(noise(800), 8_000), lambda: FilterBankStream(8_000)])
def test_a_wrong_rate_is_reported(begin) -> None:
    with pytest.raises(ValueError, match=r"8000 samples per second.*16000.*sox"):
        begin()


def test_a_bad_chunk_does_not_change_the_stream() -> None:
    stream, samples = FilterBankStream(), noise(800)
    stream.push(samples[:300])
    with pytest.raises(ValueError, match="nan"):
        stream.push(np.full(10, np.nan))
    assert np.array_equal(stream.push(samples[300:], final=True), filter_banks(samples))


def test_the_overshoot_of_a_resampler_is_allowed() -> None:
    assert to_kaldi_scale(np.array([1.5, 2.0])) == pytest.approx([49_152, 65_536])
    with pytest.raises(ValueError, match="at most 2 if resampled"):
        to_kaldi_scale(np.array([2.01]))


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6), workers=st.integers(1, 3))
def test_merged_sums_give_the_statistics_of_the_whole_corpus(sizes: list[int], workers: int) -> None:
    parts = [np.random.default_rng(size).normal(9, 3, (size, 80)).astype(np.float32) for size in sizes]
    sums = [GlobalCMVN() for _ in range(workers)]
    for number, part in enumerate(parts):
        sums[number % workers].add(part)
    total = GlobalCMVN()
    for other in sums:
        total.merge(other)
    everything = np.concatenate(parts).astype(np.float64)
    mean, std = total.statistics()
    assert np.allclose(mean, everything.mean(axis=0), rtol=1e-6)
    assert np.allclose(std, np.maximum(everything.std(axis=0), 1e-4), atol=1e-5)


def test_a_constant_bin_does_not_divide_by_zero() -> None:
    _, std = GlobalCMVN().add(np.full((100, 80), -15.9, np.float32)).statistics()
    assert (std > 0).all()


def test_no_frames_no_statistics() -> None:
    with pytest.raises(ValueError, match="no frame"):
        GlobalCMVN().statistics()


def test_fairseq_reads_the_statistics(tmp_path: Path) -> None:
    transforms = pytest.importorskip("fairseq.data.audio.feature_transforms.global_cmvn")
    frames = np.random.default_rng(0).normal(9, 3, (500, 80)).astype(np.float32)
    GlobalCMVN().add(frames).save(tmp_path / "gcmvn.npz")
    normal = transforms.GlobalCMVN(str(tmp_path / "gcmvn.npz"))(frames)
    assert normal.dtype == np.float32
    assert np.allclose(normal.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(normal.std(axis=0), 1, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gcmvn.npz"]
