"""Run one training as several processes on this machine, which exchange gradients over gloo."""

import multiprocessing
import tempfile
import time
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests import programs
from tests.programs import Done

GRACE = 20
"""Seconds that the other processes may take to end after one of them has failed."""


def run_together(program: str, *arguments: object, count: int = 2) -> list[Done]:
    """Run a program of fairseq as ``count`` processes of one training; return how each of them ended.

    Arguments are those of ``programs.run``. fairseq itself starts one process for each GPU, and none on a CPU.
    """
    main = programs._main(program)
    with tempfile.TemporaryDirectory() as folder:
        meeting = ["--distributed-init-method", f"file://{folder}/meeting", "--distributed-backend", "gloo"]
        words = [str(word) for words in arguments for word in (words if isinstance(words, list) else [words])]
        words += ["--distributed-world-size", str(count), "--distributed-no-spawn", *meeting]
        outputs = [(Path(folder, f"out{rank}"), Path(folder, f"err{rank}")) for rank in range(count)]
        children = [
            multiprocessing.get_context("fork").Process(
                target=programs._child, args=(main, [program, *words, "--distributed-rank", str(rank)], None, *files)
            )
            for rank, files in enumerate(outputs)
        ]
        for child in children:
            child.start()
        _wait(children)
        return [
            Done(child.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))
            for child, (out, err) in zip(children, outputs, strict=True)
        ]


def _wait(children: list[BaseProcess]) -> None:
    """Wait for all children; kill those that wait for one that has failed."""
    end = time.monotonic() + programs.TIMEOUT
    while (running := [child for child in children if child.is_alive()]) and time.monotonic() < end:
        connection.wait([child.sentinel for child in running], timeout=1)
        if any(child.exitcode for child in children):
            end = min(end, time.monotonic() + GRACE)
    for child in children:
        child.kill()
        child.join()
