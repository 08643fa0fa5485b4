"""Run a decoding program, and not again while the stamp of its last run is the same."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from mla_fairseq.files import check_output, replacing, write_text
from mla_fairseq.processes import ending_with

SPACE = 2**16  # bytes; with less, a program that failed could not write


def is_done(folder: Path, stamp: str, outputs: Sequence[Path]) -> bool:
    """Tell whether the last run in a folder had this stamp and left all its outputs."""
    path = folder / "made-by"
    return all(one.is_file() for one in (path, *outputs)) and path.read_text(encoding="utf-8") == stamp


def mark_done(folder: Path, stamp: str) -> None:
    """Store the stamp of a run that has ended well."""
    write_text(folder / "made-by", stamp)


def run_program(command: Sequence[str], log: Path, output: Path | None = None) -> None:
    """Run a console script of this Python's environment.

    Args:
        command: its name and arguments.
        log: file for its messages; its standard output too, unless ``output`` is given.
        output: file for its standard output, written completely or not at all.

    Raises:
        ValueError: the program failed; the message has its last line.
        OSError: it failed, and the disk is full.
    """
    program = Path(sys.executable).with_name(command[0])
    with contextlib.ExitStack() as files:
        messages = files.enter_context(check_output(log).open("w"))
        stdout = files.enter_context(files.enter_context(replacing(output)).open("w")) if output else messages
        end = ending_with(os.getpid())
        done = subprocess.run([str(program), *command[1:]], stdout=stdout, stderr=messages, preexec_fn=end)
        if done.returncode:
            if shutil.disk_usage(log.parent).free < SPACE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log.parent))
            last = shorten(log.read_text(encoding="utf-8").strip().rpartition("\n")[2], 400, placeholder=" ...")
            raise ValueError(f"{last.removeprefix('error: ')} (`{shlex.join(command)}`, see {log})")
