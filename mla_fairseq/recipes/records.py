"""What has been done, with which options, and when: one small JSON file per stage; and who is at it now."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mla_fairseq.files import write_json

logger = logging.getLogger(__name__)


@dataclass
class Record:
    """``finished`` is None while the stage runs, and after it was killed."""

    options: dict[str, Any]
    command: str = ""
    finished: str | None = None
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None


def read_record(path: Path) -> Record | None:
    """None where the stage never started.

    Raises:
        ValueError: the file is not a record.
    """
    if not path.is_file():
        return None
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is not a stage record ({error}); delete it, and the stage is done again.") from error


def write_record(path: Path, record: Record) -> None:
    write_json(path, asdict(record))


@contextlib.contextmanager
def lock(path: Path, wait: bool) -> Iterator[int]:
    """Holds ``path`` for this process and those that inherit the yielded descriptor.

    Raises:
        ValueError: somebody else holds it and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise ValueError(
                    f"{path.parent} is in use by another run of this recipe (or a program that it started); "
                    "wait for it, or give this one another --name."
                ) from None
            logger.info("waiting for another recipe that works on %s", path.parent)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()


def machine(threads: int | None, cpu: bool) -> dict[str, Any]:
    """The kind of machine, never its name."""
    import torch

    return {
        "device": "cpu" if cpu else torch.cuda.get_device_name(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads or int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def commit() -> str | None:
    """The checkout's commit, ``-dirty`` where tracked files were changed; None outside a checkout."""
    here = Path(__file__).resolve().parent
    answers = []
    for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            answer = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        answers.append(answer.stdout.strip())
    return answers[0] + ("-dirty" if answers[1] else "")
