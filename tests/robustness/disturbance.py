"""Kill a command again and again at random moments, until it finishes, and compare what it made."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mla_fairseq.recipes import process
from tests import programs
from tests.killing import descendants, runs

FORK = multiprocessing.get_context("fork")
LONGEST = 600  # seconds for one run to its end, on a busy machine


@dataclass(frozen=True)
class Command:
    """A program and what it makes.

    Attributes:
        words: the program and its arguments; FOLDER stands for the folder that it writes.
        read: returns everything in the folder that must be equal, by name.
        stopped: last words of a run that catches SIGTERM and ends with exit status 1.
    """

    words: Sequence[object]
    read: Callable[[Path], dict[str, Any]]
    stopped: str = ""

    def start(self, folder: Path, log: Path) -> BaseProcess:
        """Start the command in a process forked from this one; its output is added to a file."""
        words = [str(word).replace("FOLDER", str(folder)) for word in self.words]
        programs._main(words[0])  # imported here, so that no child has to
        process = FORK.Process(target=run_forked, args=(words, log))
        process.start()
        return process

    def was_stopped(self, status: int | None, signal_: int, log: Path) -> bool:
        """Tell whether a run ended as one that this signal has stopped does."""
        return status == -signal_ or (status == 1 and bool(self.stopped) and self.stopped in log.read_text()[-300:])


def run_forked(words: list[str], log: Path) -> None:
    """Run a program in this forked process; the programs of a recipe are forked, too."""
    process.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": Forked})  # type: ignore[assignment]
    with log.open("ab") as stream:
        run_main(words, stream.fileno())


def run_main(words: list[str], output: int) -> None:
    """Run a program of ``programs.ENTRY_POINTS`` in this process, with its output in an open file."""
    for number in (1, 2):
        os.dup2(output, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
    sys.argv = words
    programs._main(words[0])()


class Forked:
    """As much of ``subprocess.Popen`` as a recipe needs, without the seconds in which a program imports torch."""

    def __init__(self, command: list[str], env: dict[str, str], preexec_fn: Callable[[], None], **pipes: object):
        source, target = os.pipe()

        def child() -> None:
            os.close(source)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # exec does so
            preexec_fn()
            os.environ |= env
            run_main(command, target)

        self.process = FORK.Process(target=child)
        self.process.start()
        os.close(target)
        self.stdout, self.terminate = os.fdopen(source, "rb"), self.process.terminate

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        self.stdout.close()
        self.process.join()

    @property
    def returncode(self) -> int:
        return self.process.exitcode


@dataclass
class Outcome:
    """Kills, runs that finished, and how many of those differ from the undisturbed run or ended otherwise."""

    kills: int = 0
    finished: int = 0
    different: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: list[int] = field(default_factory=list)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names under which two results differ."""
    return sorted({*one, *other} - {name for name in one if name in other and one[name] == other[name]})


def disturb(command: Command, folder: Path, kills: int, signal_: int, seed: int) -> Outcome:
    """Run a command until it was killed ``kills`` times at random moments, and then to its end.

    Every finished run is compared with an undisturbed one, and the next begins from scratch.
    """
    draw, outcome, log, others = random.Random(seed), Outcome(), folder.with_suffix(".log"), descendants(os.getpid())
    expected, seconds = undisturbed(command, folder.with_name("undisturbed"), log)
    while outcome.kills < kills or folder.exists():
        run = command.start(folder, log)
        run.join(draw.uniform(0, 1.2 * seconds) if outcome.kills < kills else LONGEST)
        if run.is_alive():
            os.kill(run.pid, signal_)
            run.join(LONGEST)
        if run.exitcode == 0:
            outcome.finished += 1
            outcome.different += differences(expected, command.read(folder))
            shutil.rmtree(folder)
        elif command.was_stopped(run.exitcode, signal_, log):
            outcome.kills += 1
        else:
            outcome.failed.append(f"exit status {run.exitcode}: {log.read_text()[-3000:]}")
            break
    outcome.left = left_behind(others)
    return outcome


def undisturbed(command: Command, folder: Path, log: Path) -> tuple[dict[str, Any], float]:
    """Return what a command makes, and the seconds that it takes."""
    begin = time.monotonic()
    run = command.start(folder, log)
    run.join(LONGEST)
    assert run.exitcode == 0, log.read_text()[-3000:]
    return command.read(folder), time.monotonic() - begin


def left_behind(others: list[int]) -> list[int]:
    """Return the descendants of this process that still run after half a minute, except ``others``."""
    for _ in range(300):
        if not (left := [one for one in descendants(os.getpid()) if runs(one) and one not in others]):
            return []
        time.sleep(0.1)
    return left
