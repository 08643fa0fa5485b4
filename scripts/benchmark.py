"""What the benchmarks share: fair timing, tables in markdown, and the words that belong to a number."""

from __future__ import annotations

import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from mla_fairseq.files import write_text

ROOT = Path(__file__).resolve().parent.parent


def settle_allocator() -> None:
    """Bring the allocator to where a training brings it: glibc returns large blocks to the system at once until it has
    seen larger ones go, and fresh pages would cost whoever comes first."""
    torch.zeros(31 * 2**18)  # 31 MB: glibc adapts up to blocks of 32


def race(contestants: dict[str, Callable[[], object]], repeats: int, seconds: float = 0.0) -> dict[str, float]:
    """Median seconds of each contestant, by the wall clock, after one run that does not count.

    They take turns, so that what else the machine does falls on all of them. A turn is as many calls as fit into
    ``seconds``, at least one.
    """
    calls, times = {}, {name: [] for name in contestants}
    for name, run in contestants.items():
        run()
        calls[name] = max(1, round(seconds / max(_seconds(run, 1), 1e-9)))
    for _ in range(repeats):
        for name, run in contestants.items():
            times[name].append(_seconds(run, calls[name]))
    return {name: statistics.median(turns) for name, turns in times.items()}


def _seconds(run: Callable[[], object], calls: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown, its first column to the left, the others to the right."""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, align, *rows))


def signature() -> str:
    """The command, and what it ran on: a number without them means nothing."""
    command = shlex.join(["python", Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix(), *sys.argv[1:]])
    if data := os.environ.get("DATA"):
        command = command.replace(data.rstrip("/"), "$DATA")
    return (
        f"`{command}`; torch {torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} cores "
        f"({torch.backends.cpu.get_cpu_capability()}), commit {_commit()}"
    )


def _commit() -> str:
    """The commit of this checkout, with a ``+`` if files other than documents differ from it."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)

    head = git("rev-parse", "--short=10", "HEAD")
    if head.returncode != 0:
        return "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!*.md").returncode != 0
    return head.stdout.strip() + "+" * changed


@contextlib.contextmanager
def data_folder(vocabulary: int, features: int) -> Iterator[Path]:
    """The prepared data of a corpus without utterances, for models whose weights stay random."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        symbols = "".join(f"\u2581w{i} 1\n" for i in range(vocabulary - 4))  # fairseq adds four of its own
        (folder / "dict.txt").write_text(symbols, encoding="utf-8")
        (folder / "config.yaml").write_text(f"vocab_filename: dict.txt\ninput_feat_per_channel: {features}\n")
        yield folder


def publish(text: str, output: Path | None) -> None:
    """Print a report, and write it to a file that is never half-written."""
    print(text)
    if output is not None:
        write_text(output, text + "\n")
