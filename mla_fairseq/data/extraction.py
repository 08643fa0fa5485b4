"""Filter banks of many segments, on all cores, into one archive."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mla_fairseq.data import archive
from mla_fairseq.data.mustc import Segment
from mla_fairseq.speech import GlobalCMVN, filter_banks, read_audio

log = logging.getLogger(__name__)
BATCH = 32  # utterances per task: enough to make the hand-over between processes cheap
WAITING = 4  # tasks in flight per worker: bounds the memory when the disk is slower than the cores


def num_workers() -> int:
    """One process per core that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Consecutive lists of up to `size` items."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def ordered_map(function: Callable, items: Iterable, workers: int) -> Iterator:
    """`function(item)` for each item on `workers` processes, in the items' order, with few results waiting."""
    if workers < 1:
        raise ValueError(f"--workers is {workers}, but at least 1 is needed")
    if workers == 1:
        yield from map(function, items)
        return
    try:
        with ProcessPoolExecutor(workers) as pool:
            yield from _pooled_map(pool, function, items, workers * WAITING)
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process was killed, most likely for want of memory: run again with fewer --workers, "
            "finished utterances are kept"
        ) from error


def _pooled_map(pool: ProcessPoolExecutor, function: Callable, items: Iterable, most: int) -> Iterator:
    """`function(item)` in order, with at most `most` results computed ahead."""
    running = deque()
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= most:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:  # after an error nothing more needs to be computed
        pool.shutdown(wait=True, cancel_futures=True)


def member_name(split: str, segment: Segment) -> str:
    """Name of a segment's features in the archive. It tells which samples they are of, so a corrected segment list
    gives new names and never the old features."""
    return f"{split}/{segment.id}_{segment.start}_{segment.length}.npy"


def _features(jobs: list[tuple[str, Path, int, int]]) -> list[tuple[str, np.ndarray]]:
    return [(name, filter_banks(read_audio(wav, start, length))) for name, wav, start, length in jobs]


def extract(path: Path, segments: dict[str, list[Segment]], workers: int) -> None:
    """Bring the features of all segments (split -> segments) into the archive at `path`; those there are kept.

    Raises ValueError for audio that cannot be read; what was finished stays for the next run.
    """
    jobs = [
        (member_name(split, segment), segment.wav, segment.start, segment.length)
        for split, members in segments.items()
        for segment in members
        if segment.num_frames > 0
    ]
    fill(path, jobs, _features, workers)


def fill(path: Path, jobs: list[tuple], features: Callable, workers: int) -> None:
    """Bring an array for each job, a tuple whose first is the array's name, into the archive at `path`; those there are
    kept. `features` makes (name, array) pairs of a list of jobs, on another process.

    Raises ValueError as `features` does; what was finished stays for the next run.
    """
    if path.exists() and {name for name, *_ in jobs} <= _names(path):
        return
    with archive.Writer(path) as writer:
        kept = writer.names
        missing = [job for job in jobs if job[0] not in kept]
        with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=path.name, unit="utt") as bar:
            for made in ordered_map(features, batches(missing, BATCH), workers):
                for name, frames in made:
                    writer.add(name, frames)
                bar.update(len(made))


def _names(path: Path) -> set[str]:
    try:
        return set(archive.members(path))
    except ValueError as error:
        log.warning("%s; going on from what is whole in it", error)
        return set()


def _sums(job: tuple[Path, list[tuple[int, int]]]) -> GlobalCMVN:
    path, places = job
    total = GlobalCMVN()
    for offset, length in places:
        total.add(archive.read(path, offset, length))
    return total


def global_cmvn(path: Path, places: list[tuple[int, int]], workers: int) -> GlobalCMVN:
    """Mean and deviation over the arrays at `places`, (offset, length) in bytes, one at a time in memory."""
    total = GlobalCMVN()
    jobs = ((path, batch) for batch in batches(tqdm(places, desc="gcmvn.npz", unit="utt"), BATCH))
    for part in ordered_map(_sums, jobs, workers):
        total.merge(part)
    return total
