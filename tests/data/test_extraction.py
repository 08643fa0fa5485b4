"""Work on many processes: in order, bounded, and with errors that reach the caller."""

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from mla_fairseq.data import archive
from mla_fairseq.data.extraction import BATCH, WAITING, batches, extract, global_cmvn, member_name, ordered_map
from mla_fairseq.data.mustc import Corpus
from mla_fairseq.speech import GlobalCMVN, filter_banks, read_audio


def double(number: int) -> int:
    return 2 * number


def fail_at_five(number: int) -> int:
    if number == 5:
        raise ValueError("five is out")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_batches_hold_everything_once() -> None:
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_their_order(workers: int) -> None:
    assert list(ordered_map(double, range(40), workers)) == [2 * number for number in range(40)]


def test_few_results_wait() -> None:
    """What is computed ahead must not pile up when the results are taken slowly."""
    taken = itertools.count()
    items = iter(lambda: next(taken), 1_000)
    results = ordered_map(double, items, workers=2)
    assert next(results) == 0
    assert next(taken) <= 2 * WAITING + 1
    results.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="five is out"):
        list(ordered_map(fail_at_five, range(100), workers))


def test_a_killed_worker_is_an_error_not_a_hang() -> None:
    with pytest.raises(ValueError, match=r"worker process was killed.*--workers"):
        list(ordered_map(die, range(4), workers=2))


def test_no_workers_is_an_error() -> None:
    with pytest.raises(ValueError, match="--workers is 0"):
        list(ordered_map(double, [1], workers=0))


@pytest.fixture
def zip_path(tmp_path: Path) -> Path:
    return tmp_path / "fbank80.zip"


def test_features_are_those_of_each_segment(corpus: Corpus, zip_path: Path) -> None:
    segments = {split: corpus.read(split) for split in corpus.splits}
    extract(zip_path, segments, workers=2)
    places = archive.members(zip_path)
    assert len(places) == 30
    for split, members in segments.items():
        for segment in members:
            features = archive.read(zip_path, *places[member_name(split, segment)])
            assert features.dtype == np.float32
            assert features.shape == (segment.num_frames, 80)
            assert np.array_equal(features, filter_banks(read_audio(segment.wav, segment.start, segment.length)))


def test_the_number_of_workers_changes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    segments = {"train": corpus.read("train")}
    for workers in (1, 2):
        extract(tmp_path / f"{workers}.zip", segments, workers)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_an_archive_that_was_cut_is_healed(corpus: Corpus, zip_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segments = {"dev": corpus.read("dev")}
    extract(zip_path, segments, workers=1)
    whole = zip_path.read_bytes()
    os.truncate(zip_path, len(whole) // 2)
    extract(zip_path, segments, workers=1)
    assert zip_path.read_bytes() == whole
    assert "no whole zip" in caplog.text


def test_statistics_of_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    arrays = [np.random.default_rng(seed).normal(9, 3, (5, 80)).astype(np.float32) for seed in range(2 * BATCH + 3)]
    with archive.Writer(tmp_path / "a.zip") as writer:
        for number, array in enumerate(arrays):
            writer.add(f"{number}.npy", array)
    places = list(archive.members(tmp_path / "a.zip").values())
    expected = GlobalCMVN().add(np.concatenate(arrays)).statistics()
    for workers in (1, 2):
        assert np.allclose(global_cmvn(tmp_path / "a.zip", places, workers).statistics(), expected, rtol=1e-6)
