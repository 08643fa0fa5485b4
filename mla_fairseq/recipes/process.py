"""Runs one program: its output to a log, its lines to a watcher, its failure as one clear error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mla_fairseq.recipes.commands import Command

_ERROR = re.compile(rb"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b.*|.*\berror: .+)$")


def run(command: Command, log: Path, on_line: Callable[[str], None], echo: bool = False, keep: tuple[int, ...] = ()):
    """Runs ``command`` to its end.

    Args:
        command: what to run; programs of this Python's environment come first.
        log: file that its output is appended to (only the error output where ``command.stdout`` takes the rest).
        on_line: called with every line of output.
        echo: show the output as it comes; for programs with a progress bar of their own.
        keep: file descriptors that the program holds open, such as a lock that must live as long as it does.

    Raises:
        ValueError: the program failed; names its last error line and the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    partial = command.stdout.with_name(command.stdout.name + ".partial") if command.stdout else None
    with open(log, "ab") as log_file, open(partial or os.devnull, "wb") as result_file:
        begin = log_file.tell()
        sink = result_file if partial else log_file
        error_output = log_file if partial else subprocess.STDOUT
        program = _start(command, error_output, keep)
        try:
            _pump(program.stdout, sink, on_line, echo)
            code = program.wait()
        finally:
            if program.poll() is None:
                program.terminate()
                program.wait()
    if code != 0:
        if partial:
            partial.unlink()
        raise ValueError(_failure(command, code, log, begin))
    if partial:
        os.replace(partial, command.stdout)


def _start(command: Command, error_output: int | IO, keep: tuple[int, ...]) -> subprocess.Popen:
    env = dict(os.environ, PYTHONUNBUFFERED="1")
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    if command.threads:
        env["OMP_NUM_THREADS"] = str(command.threads)
    try:
        return subprocess.Popen(
            command.args, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=error_output, pass_fds=keep
        )
    except FileNotFoundError as error:
        raise ValueError(f"program '{command.args[0]}' not found; run `make demo` once to set up .venv.") from error


def _pump(stream: IO, sink: IO, on_line: Callable[[str], None], echo: bool) -> None:
    """Moves output as it comes; of a progress bar that redraws its line, the sink gets the last state."""
    rest = b""
    while chunk := os.read(stream.fileno(), 1 << 16):
        if echo:
            sys.stderr.buffer.write(chunk)
            sys.stderr.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            line = line.rsplit(b"\r", 1)[-1]
            sink.write(line + b"\n")
            on_line(line.decode("utf-8", errors="replace"))
        sink.flush()
    sink.write(rest)


def _failure(command: Command, code: int, log: Path, begin: int) -> str:
    with open(log, "rb") as stream:
        stream.seek(begin)
        lines = [line.strip() for line in stream.read().splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)] or lines or [b"it said nothing"]
    said = errors[-1].decode("utf-8", errors="replace").removeprefix("error: ")
    how = f"ended with code {code}" if code > 0 else f"was killed by signal {-code}"
    return f"{_name(command)} {how}: {said} (log: {log})"


def _name(command: Command) -> str:
    """The program, or the script or module that Python runs."""
    if command.args[1:2] == ("-m",):
        return command.args[2]
    scripts = [arg for arg in command.args[1:2] if arg.endswith(".py")]
    return Path((scripts or command.args)[0]).name
