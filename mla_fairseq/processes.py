"""Start processes that end when this one does, and lock folders that only one run may write."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread

from mla_fairseq.files import check_output, make_folder

log = logging.getLogger(__name__)
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only


def end_with_parent() -> None:
    """End this worker process when its parent ends, because a killed parent cannot stop its workers.

    It is the initializer of a ``ProcessPoolExecutor``.
    """
    parent = parent_process()
    assert parent is not None, "only worker processes call this"
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the parent too, which reports it once

    def wait() -> None:
        parent.join()
        os._exit(1)  # sys.exit would end this thread only

    Thread(target=wait, daemon=True).start()


def ending_with(parent: int) -> Callable[[], None]:
    """Return the ``preexec_fn`` of a program that ends when the process ``parent``, which starts it, does.

    Only Linux ends the program of a killed process.
    """

    def bind() -> None:
        if _prctl is not None:
            _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call above
            os._exit(1)

    return bind


@functools.cache
def end_forks_with_this() -> None:
    """Let every process that this one forks from now on end when it does.

    torch's workers of a DataLoader do so by themselves, but not one that starts while its parent is killed: it takes
    the process that adopts it for its parent, and never ends.
    """
    forking = [0]

    def note() -> None:
        forking[0] = os.getpid()

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    os.register_at_fork(
        before=note, after_in_child=lambda: Thread(target=watch, args=(forking[0],), daemon=True).start()
    )


@contextmanager
def locked(path: Path, folder: Path, wait: bool = False) -> Iterator[None]:
    """Lock ``folder`` against other runs while the block runs, by a lock on the file ``path``.

    The lock ends with this process, also if it is killed. The processes that it starts do not inherit it. The file
    names the process that holds the lock.

    Args:
        path: the lock file; it is made if it does not exist.
        folder: what is locked, for the message.
        wait: wait for another run instead of raising an error.

    Raises:
        ValueError: another run holds the lock, or the file is a link or a device.
    """
    make_folder(path.parent)
    with check_output(path).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # POSIX allows both
            file.seek(0)
            other = f"another run (process {file.read() or 'unknown'})"
            if not wait:
                raise ValueError(f"{folder} is used by {other}: wait for it, or stop it") from error
            log.info("%s is used by %s: waiting for it", folder, other)
            fcntl.lockf(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
