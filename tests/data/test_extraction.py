"""Extraction on several processes: results in order, errors raised in the caller, resuming after a kill."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mla_fairseq.data import archive
from mla_fairseq.data.extraction import (
    BATCH,
    extract,
    fill,
    global_cmvn,
    member_name,
    parallel_map,
    segment_features,
    staging_folder,
)
from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.speech import GlobalCMVN, filter_banks, read_audio
from tests.killing import descendants, killed, needs_proc, wait_for


def double(number: int) -> int:
    return 2 * number


def fail_at_five(number: int) -> int:
    if number == 5:
        raise ValueError("five is out")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_their_order(workers: int) -> None:
    assert list(parallel_map(double, range(40), workers, chunk=3)) == [2 * number for number in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_in_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="five is out"):
        list(parallel_map(fail_at_five, range(100), workers))


def test_a_killed_worker_is_an_error_not_a_hang() -> None:
    with pytest.raises(ValueError, match=r"worker processes was killed.*--workers"):
        list(parallel_map(die, range(4), workers=2))


def test_no_workers_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"too few worker processes \(0\)"):
        list(parallel_map(double, [1], workers=0))


@pytest.fixture
def zip_path(tmp_path: Path) -> Path:
    return tmp_path / "fbank80.zip"


def test_features_are_those_of_each_segment(corpus: MuSTC, zip_path: Path) -> None:
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


def test_the_number_of_workers_changes_nothing(corpus: MuSTC, tmp_path: Path) -> None:
    segments = {"train": corpus.read("train")}
    for workers in (1, 2):
        extract(tmp_path / f"{workers}.zip", segments, workers)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_a_truncated_archive_is_made_again(corpus: MuSTC, zip_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segments = {"dev": corpus.read("dev")}
    extract(zip_path, segments, workers=1)
    whole = zip_path.read_bytes()
    os.truncate(zip_path, len(whole) // 2)
    extract(zip_path, segments, workers=1)
    assert zip_path.read_bytes() == whole
    assert "is not a complete zip" in caplog.text


JOBS = {f"{split}/{number}.npy": (number,) for split in ("train", "dev") for number in range(3)}


def ramp(number: int) -> np.ndarray:
    return np.arange(80 * (number + 1), dtype=np.float32).reshape(-1, 80)


def in_another_process(function: Callable[..., None], *arguments: object) -> int:
    """Call the function in a forked process; return its exit code: 0, or minus the number of a signal."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("half", [False, True], ids=["between-writes", "in-a-write"])
def test_a_run_killed_at_any_moment_resumes_to_the_same_bytes(tmp_path: Path, half: bool) -> None:
    """Each run finishes one more array and is killed before its next rename; no array is computed twice."""
    fill(tmp_path / "whole.zip", JOBS, ramp, workers=1)
    path, rename = tmp_path / "killed" / "features.zip", os.replace

    def killed_after(renames: int) -> None:
        left = iter(range(renames))

        def rename_or_die(source: Path, target: Path) -> None:
            if next(left, None) is None:
                if half:
                    os.truncate(source, 100)
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.replace = rename_or_die
        fill(path, JOBS, ramp, workers=1)

    for finished in range(len(JOBS) + 1):
        assert in_another_process(killed_after, min(finished, 1)) == -signal.SIGKILL
        assert not path.exists()
        assert len(list(staging_folder(path).glob("*.npy"))) == finished
    fill(path, JOBS, ramp, workers=1)
    assert path.read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert os.listdir(path.parent) == ["features.zip"]


def test_a_run_killed_after_the_archive_was_written_leaves_nothing(zip_path: Path) -> None:
    fill(zip_path, JOBS, ramp, workers=1)
    whole = zip_path.read_bytes()
    staging_folder(zip_path).mkdir()
    (staging_folder(zip_path) / "left.npy").touch()
    fill(zip_path, JOBS, ramp, workers=1)
    assert (os.listdir(zip_path.parent), zip_path.read_bytes()) == ([zip_path.name], whole)


def slow_ramp(number: int) -> np.ndarray:
    time.sleep(0.05)
    return ramp(number)


@needs_proc
def test_workers_end_with_a_killed_run_and_the_next_run_starts(zip_path: Path) -> None:
    jobs = {f"{number}.npy": (number,) for number in range(4 * BATCH)}
    with killed(fill, zip_path, jobs, slow_ramp, 2) as run:
        wait_for(lambda: list(staging_folder(zip_path).glob("*.npy")))
        assert len(descendants(run)) == 2
    fill(zip_path, jobs, ramp, workers=2)
    assert list(archive.members(zip_path)) == list(jobs)


def test_a_second_run_is_refused(zip_path: Path) -> None:
    def second() -> None:
        with pytest.raises(
            ValueError, match=rf"fbank80\.zip\.staged is used by another run \(process {os.getppid()}\)"
        ):
            fill(zip_path, JOBS, ramp, workers=1)

    def first(number: int) -> np.ndarray:
        assert number or in_another_process(second) == 0
        return ramp(number)

    fill(zip_path, JOBS, first, workers=1)


def test_a_truncated_staged_array_is_computed_again(zip_path: Path) -> None:
    def fails_at_two(number: int) -> np.ndarray:
        return ramp(fail_at_five(number + 3))

    with pytest.raises(ValueError, match="five is out"):
        fill(zip_path, JOBS, fails_at_two, workers=1)
    for file, size in zip(staging_folder(zip_path).glob("*.npy"), (0, 200), strict=True):
        os.truncate(file, size)
    fill(zip_path, JOBS, ramp, workers=1)
    assert [archive.read(zip_path, *place).shape for place in archive.members(zip_path).values()] == [
        ramp(number).shape for (number,) in JOBS.values()
    ]


def test_statistics_of_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    arrays = [np.random.default_rng(seed).normal(9, 3, (5, 80)).astype(np.float32) for seed in range(2 * BATCH + 3)]
    with archive.Writer(tmp_path / "a.zip") as writer:
        for number, array in enumerate(arrays):
            writer.add(f"{number}.npy", array)
    places = list(archive.members(tmp_path / "a.zip").values())
    expected = GlobalCMVN().add(np.concatenate(arrays)).statistics()
    for workers in (1, 2):
        assert np.allclose(global_cmvn(tmp_path / "a.zip", places, workers).statistics(), expected, rtol=1e-6)


def refuse_work(*_: object) -> np.ndarray:
    raise AssertionError("the output is checked first")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_an_archive_that_is_no_file_is_kept_and_refused_before_the_work(tmp_path: Path, make: Callable) -> None:
    make(path := tmp_path / "a.zip")
    before = os.lstat(path)
    with pytest.raises(ValueError, match=r"the output .*a\.zip is a"):
        fill(path, {"a.npy": ()}, refuse_work, 1)
    assert os.lstat(path) == before


def test_a_lock_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "a.zip.staged").mkdir()
    (tmp_path / "a.zip.staged" / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(ValueError, match=r"lock is a link"):
        fill(tmp_path / "a.zip", {"a.npy": ()}, refuse_work, 1)
    assert (tmp_path / "other").read_text() == "kept"


def test_samples_that_are_not_finite_or_too_loud_are_named(tmp_path: Path) -> None:
    """One recording of thousands: which, and where."""
    samples = np.zeros(32_000, np.float32)
    samples[20_000] = np.nan
    soundfile.write(tmp_path / "talk.wav", samples, 16_000, subtype="FLOAT")
    assert segment_features(tmp_path / "talk.wav", 0, 16_000).shape == (98, 80)
    with pytest.raises(ValueError, match=r"talk\.wav: not finite at 1\.25 s: repair the recording"):
        segment_features(tmp_path / "talk.wav", 16_000, 16_000)
    samples[20_000] = 3
    soundfile.write(tmp_path / "talk.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"talk\.wav: the sample at 1\.25 s is 3 times full scale: "):
        segment_features(tmp_path / "talk.wav", 16_000, 16_000)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_reported_with_the_file(tmp_path: Path, workers: int) -> None:
    """A limit on the size of files stands for the disk."""
    jobs = {"a.npy": (100_000,), "b.npy": (10,)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"(File too large|is the disk full\?).*: '.*f\.zip\.staged.*\.npy'"):
            fill(tmp_path / "f.zip", jobs, np.zeros, workers)
        with (
            pytest.raises(OSError, match=r"File too large: '.*g\.zip'"),
            archive.Writer(tmp_path / "g.zip") as writer,
        ):
            writer.add("a.npy", np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "g.zip").exists()
    fill(tmp_path / "f.zip", jobs, np.zeros, workers)
    assert len(archive.read(tmp_path / "f.zip", *archive.members(tmp_path / "f.zip")["a.npy"])) == 100_000
