"""Kill a process at a chosen moment, and look for what it leaves behind."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads process states from /proc")


def runs(pid: int) -> bool:
    """Tell whether a process is alive; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, theirs too, whichever of its threads started them."""
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in listing.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [one for child in children for one in (child, *descendants(child))]
    return found


def wait_for(found: Callable[[], object], seconds: float = 60) -> None:
    """Wait until ``found()`` is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def killed(function: Callable[..., object], *arguments: object, signal_: int = signal.SIGKILL) -> Iterator[int]:
    """Call a function in another process while the block runs, which gets its number, and then kill the process.

    Afterwards all processes that it started must end too.
    """
    process = multiprocessing.get_context("fork").Process(target=_quiet, args=(function, *arguments))
    process.start()
    try:
        yield process.pid
        left = descendants(process.pid)
    finally:
        os.kill(process.pid, signal_)
        process.join()
    assert process.exitcode == -signal_, "it ended before it was killed"
    assert left, "it started no process"
    wait_for(lambda: not any(map(runs, left)), seconds=30)


def _quiet(function: Callable[..., object], *arguments: object) -> None:
    """Call a function as a program of its own does: pytest's handlers would end it later than a signal does."""
    for one in (signal.SIGTERM, signal.SIGHUP):  # under nohup, SIGHUP is ignored
        signal.signal(one, signal.SIG_DFL)
    function(*arguments)


@pytest.fixture
def adopts_orphans() -> Iterator[None]:
    """Let ``descendants`` of this process find the orphans of killed ones (Linux)."""
    set_subreaper = partial(ctypes.CDLL(None).prctl, 36)  # PR_SET_CHILD_SUBREAPER
    set_subreaper(1)
    yield
    set_subreaper(0)
