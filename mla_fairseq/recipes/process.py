"""Run one program: log its output, show its progress, report its failure in one line; describe the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mla_fairseq.evaluation.training_log import SESSION, parse_line
from mla_fairseq.files import check_output, make_folder, naming
from mla_fairseq.processes import ending_with
from mla_fairseq.recipes.recipe import Recipe
from mla_fairseq.recipes.stages import PACKAGE, STAGES

_BAR = re.compile(rb"\r[^\r\n]*")
_ERROR = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b.*|.*\berror: .+)$")


def execute(recipe: Recipe, name: str) -> None:
    """Run a stage's program to its end; its output is added to ``NAME.log`` in the run's folder.

    Args:
        recipe: the recipe.
        name: the stage.

    Raises:
        ValueError: the program failed; the message has its last error and the log.
    """
    log, command = recipe.run / f"{name}.log", recipe.command(name)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # console scripts of this Python's environment come first, whether it is activated or not
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    make_folder(log.parent)
    with naming(log), check_output(log).open("ab", buffering=0) as stream:
        stream.write(f"{SESSION} {datetime.now(UTC).isoformat(timespec='seconds')} {recipe.show(name)}\n".encode())
        begin = stream.tell()
        with subprocess.Popen(command, env=env, preexec_fn=ending_with(os.getpid()), **pipes) as program:
            try:
                assert program.stdout is not None
                _pump(program.stdout.fileno(), stream.write, _display(recipe, name))
            except BaseException:
                program.terminate()
                raise
    if program.returncode:
        error = _last_error(log.read_bytes()[begin:].decode("utf-8", errors="replace"))
        raise ValueError(f"{STAGES[name].program[-1]} failed: {error} (log: {log})")


def _pump(source: int, log: Callable[[bytes], object], display: Callable[[bytes], None]) -> None:
    """Copy output to the log and the display; of a progress bar that redraws its line, log the last state."""
    rest = b""
    while chunk := os.read(source, 1 << 16):
        display(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            log(line.rsplit(b"\r", 1)[-1] + b"\n")
    log(rest)


def _display(recipe: Recipe, name: str) -> Callable[[bytes], None]:
    """Return what shows a program's output.

    Programs of this package show all of their output, fairseq's only their progress bar. A training shows a bar made
    from its log.
    """
    if name == "train":
        return _training_bar(recipe.name, recipe.tree["train"].get("max_update"))
    chatty = STAGES[name].program[0].startswith("fairseq")

    def show(chunk: bytes) -> None:
        sys.stderr.buffer.write(b"".join(_BAR.findall(chunk)) if chatty else chunk)
        sys.stderr.flush()

    return show


def _training_bar(name: str, updates: int | None) -> Callable[[bytes], None]:
    interval, rest = 0.2 if sys.stderr.isatty() else 30.0, ""
    bar = tqdm(total=updates, unit="update", desc=f"train {name}", mininterval=interval)

    def show(chunk: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + chunk.decode("utf-8", errors="replace")).split("\n")
        for parsed in filter(None, map(parse_line, lines)):
            if parsed[1] == "train_inner" and isinstance(parsed[2], dict):
                bar.set_postfix(loss=parsed[2].get("nll_loss", parsed[2]["loss"]), refresh=False)
                bar.update(int(parsed[2]["num_updates"]) - bar.n)

    return show


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    return ([line for line in lines if _ERROR.match(line)] or lines)[-1].removeprefix("error: ")


def commit() -> str | None:
    """Return the checkout's commit, with ``-dirty`` if tracked files changed; ``None`` for an installed package."""
    if not (PACKAGE.parent / ".git").exists():  # the environment may be inside somebody else's repository
        return None
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(cpu: bool) -> dict[str, Any]:
    """Return the machine's type and size, not its name."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    return {
        "device": "cpu" if cpu else torch.cuda.get_device_name(),
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()),
        "torch": torch.__version__,
    }
