"""Compute the features of many utterances, on several processes, and store them in one archive."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mla_fairseq.data import archive
from mla_fairseq.data.corpus import Segment
from mla_fairseq.data.ledger import fingerprint
from mla_fairseq.files import check_output, replacing
from mla_fairseq.processes import end_with_parent, locked
from mla_fairseq.speech import SAMPLE_RATE, GlobalCMVN, change_speed, filter_banks, read_segment

log = logging.getLogger(__name__)
BATCH = 32  # utterances per task: enough to make the transfer between processes cheap


def num_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(function: Callable, items: Sequence, workers: int, chunk: int = 1) -> Iterator:
    """Yield ``function(item)`` for each item, in order; each of ``workers`` processes takes ``chunk`` items at a time.

    Raises:
        ValueError: fewer than one worker, or a worker was killed. Errors of ``function`` are raised again.
    """
    if workers < 1:
        raise ValueError(f"too few worker processes ({workers}): set --workers to at least 1")
    if workers == 1:
        yield from map(function, items)
        return
    try:
        with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
            yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {workers} worker processes was killed, probably because memory ran out: run again with fewer "
            "--workers, finished utterances are kept"
        ) from error


def member_name(split: str, segment: Segment) -> str:
    """Return the name of a segment's features in the archive.

    The name contains start and length in samples: a corrected segment list never reuses the old features. The id
    contains the speed.
    """
    return f"{split}/{segment.id}_{segment.start}_{segment.length}.npy"


def segment_features(wav: Path, start: int, length: int, speed: float = 1.0) -> np.ndarray:
    """Return the filter banks (frames, 80) of ``length`` samples from sample ``start``, played ``speed`` times as fast.

    Raises:
        ValueError: audio that cannot be used; the message names the recording and the place in it.
    """
    samples = read_segment(wav, start, length)
    samples = change_speed(samples, speed) if speed != 1 else samples
    try:
        return filter_banks(samples)
    except ValueError as error:
        begin, end = start / SAMPLE_RATE, (start + length) / SAMPLE_RATE
        raise ValueError(f"{wav}, segment from {begin:.2f} to {end:.2f} s: {error}") from error


def extract(path: Path, segments: dict[str, list[Segment]], workers: int) -> None:
    """Store the features of all segments (split -> segments) in the archive at ``path``, as ``fill`` does."""
    jobs = {
        member_name(split, segment): (segment.wav, segment.start, segment.length, segment.speed)
        for split, members in segments.items()
        for segment in members
        if segment.num_frames > 0
    }
    fill(path, jobs, segment_features, workers)


def fill(path: Path, jobs: dict[str, tuple], features: Callable[..., np.ndarray], workers: int) -> None:
    """Store ``features(*arguments)`` of each job (name -> arguments) in the archive at ``path``.

    Existing members are kept. Each array is first written to a separate file in a folder beside the archive; at the
    end all are packed, so disk space is needed for both. A run that was killed at any point resumes with the missing
    arrays.

    Raises:
        ValueError: another run is filling the archive, it is a link or a device, or what ``parallel_map`` raises.
    """
    staging = staging_folder(path)
    if path.exists() and not staging.exists() and jobs.keys() <= _kept(path):
        return
    check_output(path)  # before hours of work
    with locked(staging / "lock", staging):
        kept = _kept(path)
        files = {name: staging / f"{fingerprint(name)}.npy" for name in jobs if name not in kept}
        missing = [(file, jobs[name]) for name, file in files.items() if not _is_whole(file)]
        with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=path.name, unit="utt") as bar:
            for _ in parallel_map(partial(_stage, features), missing, workers, BATCH):
                bar.update()
        with archive.Writer(path) as writer:
            for name, file in files.items():
                writer.add(name, np.load(file))
        shutil.rmtree(staging, ignore_errors=True)


def staging_folder(path: Path) -> Path:
    """Return the folder of the arrays that are not yet packed into the archive at ``path``."""
    return Path(f"{path}.staged")


def _stage(features: Callable[..., np.ndarray], job: tuple[Path, tuple]) -> None:
    """Compute one array and write its file atomically."""
    file, arguments = job
    array = features(*arguments)
    with replacing(file) as part, part.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _is_whole(file: Path) -> bool:
    """Tell whether a staged array is complete; a power failure can truncate a renamed file."""
    try:
        np.load(file, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return True


def _kept(path: Path) -> set[str]:
    """Return the names in the archive; delete an incomplete archive, with a warning."""
    try:
        return set(archive.members(path)) if path.exists() else set()
    except ValueError as error:
        log.warning("%s; extracting its features again", error)
        check_output(path).unlink()
        return set()


def _sums(job: tuple[Path, list[tuple[int, int]]]) -> GlobalCMVN:
    """Return the sums over the arrays at (offset, length) places of an archive."""
    path, places = job
    total = GlobalCMVN()
    for offset, length in places:
        total.add(archive.read(path, offset, length))
    return total


def global_cmvn(path: Path, places: list[tuple[int, int]], workers: int) -> GlobalCMVN:
    """Return mean and standard deviation over the arrays at ``places``, (offset, length) in bytes."""
    total = GlobalCMVN()
    jobs = [(path, places[start : start + BATCH]) for start in range(0, len(places), BATCH)]
    for part in tqdm(parallel_map(_sums, jobs, workers), desc="gcmvn.npz", total=len(jobs)):
        total.merge(part)
    return total
