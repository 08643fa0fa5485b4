"""Features of many utterances, on all cores, into one archive."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread

import numpy as np
from tqdm import tqdm

from mla_fairseq.data import archive
from mla_fairseq.data.ledger import fingerprint
from mla_fairseq.data.mustc import Segment
from mla_fairseq.speech import GlobalCMVN, filter_banks, read_audio

log = logging.getLogger(__name__)
BATCH = 32  # utterances per task: enough to make the hand-over between processes cheap


def num_workers() -> int:
    """Return the number of cores that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(function: Callable, items: Sequence, workers: int, chunk: int = 1) -> Iterator:
    """Yield ``function(item)`` for each item, in order, computed on ``workers`` processes by ``chunk`` items at a time.

    Raises:
        ValueError: less than one worker, or a worker was killed. Errors of ``function`` are passed on.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}, but at least 1 is needed")
    if workers == 1:
        yield from map(function, items)
        return
    try:
        with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
            yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process was killed, probably because memory ran out: run again with fewer --workers, "
            "finished utterances are kept"
        ) from error


def _end_with_parent() -> None:
    """End this process when its parent ends; a killed parent cannot tell its workers to stop."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def member_name(split: str, segment: Segment) -> str:
    """Return the name of a segment's features in the archive.

    The name contains the place of the samples, so that a corrected segment list never gets the old features.
    """
    return f"{split}/{segment.id}_{segment.start}_{segment.length}.npy"


def segment_features(wav: Path, start: int, length: int) -> np.ndarray:
    """Return the filter banks (frames, 80) of ``length`` samples from ``start`` on."""
    return filter_banks(read_audio(wav, start, length))


def extract(path: Path, segments: dict[str, list[Segment]], workers: int) -> None:
    """Bring the features of all segments (split -> segments) into the archive at ``path``, as `fill` does."""
    jobs = {
        member_name(split, segment): (segment.wav, segment.start, segment.length)
        for split, members in segments.items()
        for segment in members
        if segment.num_frames > 0
    }
    fill(path, jobs, segment_features, workers)


def fill(path: Path, jobs: dict[str, tuple], features: Callable[..., np.ndarray], workers: int) -> None:
    """Bring ``features(*arguments)`` of each job (name -> arguments) into the archive at ``path``; members are kept.

    Each array is first written to a file of its own in a folder beside the archive, and all are packed at the end. A
    run that was killed at any moment resumes with the arrays that are missing. Needs disk space for both.

    Raises:
        ValueError: another run fills the archive, or as `parallel_map`.
    """
    staging = staging_folder(path)
    if path.exists() and not staging.exists() and jobs.keys() <= _kept(path):
        return
    with _claimed(staging):
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
    """Return the folder of arrays that wait to be packed into the archive at ``path``."""
    return Path(f"{path}.staged")


@contextmanager
def _claimed(staging: Path) -> Iterator[None]:
    """Keep the folder from other runs; a lock of `lockf` ends with this process and is not inherited by workers."""
    staging.mkdir(parents=True, exist_ok=True)
    with (staging / "lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{staging} is used by another run: wait for it, or stop it") from error
        yield


def _stage(features: Callable[..., np.ndarray], job: tuple[Path, tuple]) -> None:
    """Compute one array and write its file, whole or not at all."""
    file, arguments = job
    part = file.with_suffix(f".{os.getpid()}")
    with part.open("wb") as stream:
        np.save(stream, features(*arguments), allow_pickle=False)
    os.replace(part, file)


def _is_whole(file: Path) -> bool:
    """Tell whether a staged array is complete; after a power failure a file may have lost its end."""
    try:
        np.load(file, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return True


def _kept(path: Path) -> set[str]:
    """Return the names in the archive; an archive that is not whole is deleted, with a warning."""
    try:
        return set(archive.members(path)) if path.exists() else set()
    except ValueError as error:
        log.warning("%s; extracting its features again", error)
        path.unlink()
        return set()


def _sums(job: tuple[Path, list[tuple[int, int]]]) -> GlobalCMVN:
    path, places = job
    total = GlobalCMVN()
    for offset, length in places:
        total.add(archive.read(path, offset, length))
    return total


def global_cmvn(path: Path, places: list[tuple[int, int]], workers: int) -> GlobalCMVN:
    """Return mean and deviation over the arrays at ``places``, (offset, length) in bytes."""
    total = GlobalCMVN()
    jobs = [(path, places[start : start + BATCH]) for start in range(0, len(places), BATCH)]
    for part in tqdm(parallel_map(_sums, jobs, workers), desc="gcmvn.npz", total=len(jobs)):
        total.merge(part)
    return total
