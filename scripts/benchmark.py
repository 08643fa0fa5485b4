"""Share between the benchmarks: fair timing, source trees side by side, tables, and signatures for all numbers."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from mla_fairseq.files import write_text

ROOT = Path(__file__).resolve().parent.parent


def add_common_args(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every benchmark has."""
    parser.add_argument("--output", type=Path, help="markdown file for the report")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and data")
    parser.add_argument("--allow-dirty", action="store_true", help="measure uncommitted files; never written to docs/")


def check_tree(args: argparse.Namespace) -> None:
    """Refuse to measure files that no commit contains.

    Raises:
        SystemExit: files differ from the commit, or there is none.
    """
    commit = commit_name()
    if not commit.endswith("+") and commit != "unknown":
        return
    if not args.allow_dirty:
        raise SystemExit(f"error: files differ from the commit ({commit}): commit them, or pass --allow-dirty")
    if args.output is not None and (ROOT / "docs") in args.output.resolve().parents:
        raise SystemExit(f"error: --output {args.output} is in docs/, but files differ from the commit: commit them")


def settle_allocator() -> None:
    """Bring the allocator into the state that it has during training.

    glibc returns large blocks to the system at once until a larger one was freed. The fresh pages would cost the first
    contestant.
    """
    torch.zeros(31 * 2**18)  # 31 MB: glibc adapts up to blocks of 32


def race(contestants: dict[str, Callable[[], object]], repeats: int, seconds: float = 0.0) -> dict[str, float]:
    """Return the median wall-clock seconds of each contestant, after one run that does not count.

    Contestants take turns, so that other load on the machine falls on all of them. A turn is as many calls as fit into
    ``seconds``, at least one.
    """
    calls: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for name, run in contestants.items():
        run()
        calls[name] = max(1, round(seconds / max(seconds_per_call(run, 1), 1e-9)))
    for _ in range(repeats):
        for name, run in contestants.items():
            times[name].append(seconds_per_call(run, calls[name]))
    return {name: statistics.median(turns) for name, turns in times.items()}


def seconds_per_call(run: Callable[[], object], calls: int = 1) -> float:
    """Return the mean seconds of a number of calls."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def peak_memory(run: Callable[[], object]) -> float:
    """Return the MB that a call allocates at its peak, as the allocator reports."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    # torch's summary omits what operations allocate inside, these events do not
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held) / 2**20


class Worker:
    """A process that works on request, so that two source trees can take turns.

    ``script`` calls ``serve``, and imports the package from ``tree``.
    """

    def __init__(self, tree: Path, script: str, *arguments: str) -> None:
        self.command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: object) -> dict:
        """Return the answer to a request.

        Raises:
            SystemExit: the process ended; its message is printed before.
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(
                f"error: a benchmark's process ended ({shlex.join(self.command[1:])}): see its message above"
            )
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def serve(handle: Callable[[dict], dict]) -> None:
    """Answer the requests of a ``Worker``, one JSON object per line, until it closes.

    Other output goes to standard error.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), file=replies, flush=True)


@contextlib.contextmanager
def source_tree(revision: str) -> Iterator[Path]:
    """Check a revision out into a temporary folder.

    Raises:
        SystemExit: the revision is unknown.
    """
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        added = _git("worktree", "add", "--detach", str(tree), revision)
        if added.returncode != 0:
            raise SystemExit(f"error: --baseline {revision} cannot be checked out: {added.stderr.strip()}")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: terminated"))  # runs the finally below
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table, the first column aligned left, the others right."""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, align, *rows))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, minimum and maximum of turns: ``1.05 (1.03-1.06)``."""
    middle, least, greatest = (f"{f(values):.{digits}f}" for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({least}-{greatest})"


def signature() -> str:
    """Return the command, the commit and the machine, which every number needs."""
    command = shlex.join(["python", Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix(), *sys.argv[1:]])
    if data := os.environ.get("DATA"):
        command = command.replace(data.rstrip("/"), "$DATA")
    return (
        f"`{command}`; commit {commit_name()}; torch {torch.__version__}, {_processor()}, {os.cpu_count()} cores "
        f"({torch.backends.cpu.get_cpu_capability()})"
    )


def commit_name(revision: str = "HEAD") -> str:
    """Return the short name of a commit; a ``+`` marks files, other than documents, that differ from ``HEAD``."""
    named = _git("rev-parse", "--short=10", revision)
    if named.returncode != 0:
        return "unknown"
    changed = revision == "HEAD" and _git("status", "--porcelain", "--", ".", ":!*.md").stdout
    return named.stdout.strip() + "+" * bool(changed)


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)


def _processor() -> str:
    """Return the processor's name, if the system reports it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown processor"


@contextlib.contextmanager
def data_folder(vocabulary: int, features: int) -> Iterator[Path]:
    """Write the prepared data of a corpus without utterances, for models with random weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        symbols = "".join(f"\u2581w{i} 1\n" for i in range(vocabulary - 4))  # fairseq adds four symbols
        (folder / "dict.txt").write_text(symbols, encoding="utf-8")
        (folder / "config.yaml").write_text(f"vocab_filename: dict.txt\ninput_feat_per_channel: {features}\n")
        yield folder


def publish(text: str, output: Path | None) -> None:
    """Print a report, and write it to a file."""
    print(text)
    if output is not None:
        write_text(output, text + "\n")
