#!/usr/bin/env python3
"""Make or refresh the virtual environment of this checkout, with the versions that constraints.txt pins.

`make test` and `make demo` run this first. An environment that is whole and current is left as it is; one that was
made for older files is updated in place; one that was interrupted half-way is made afresh.
Needs nothing but the standard library of Python 3.11 or newer, and a C++ compiler for fairseq's extensions.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DECIDES = ("setup.py", "pyproject.toml", "constraints.txt", "scripts/setup_env.py")
# Installed first: fairseq's build imports them. Without pip's build isolation torch is fetched once, not twice,
# and fairseq is compiled against the very torch that it will run with.
BUILD = ("setuptools", "cython", "numpy", "torch")
STAMP = "setup.stamp"
UNFINISHED = "unfinished"


def python_id() -> str:
    """Name the interpreter: an environment is tied to it and to the folder that it was made in."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    return f"{version} {Path(sys.base_prefix).resolve()}"


def fingerprint(root: Path, venv: Path) -> str:
    """Return two lines: what the environment is tied to, and a hash of all that decides on its contents."""
    digest = hashlib.sha256()
    for name in DECIDES:
        digest.update(name.encode() + b"\0" + (root / name).read_bytes())
    return f"{python_id()} {venv.resolve()}\n{digest.hexdigest()}\n"


def plan(venv: Path, wanted: str) -> str:
    """Say what to do about ``venv``: "keep", "update" or "create".

    Raises:
        SystemExit: the folder is there, and something else made it.
    """
    if not venv.exists() or not any(venv.iterdir()):
        return "create"
    stamp = venv / STAMP
    if not stamp.exists():
        raise SystemExit(f"error: {venv} was not made by this set-up: move it away, then run the command again")
    found = stamp.read_text(encoding="utf-8")
    if found == wanted:
        return "keep"
    return "update" if found.partition("\n")[0] == wanted.partition("\n")[0] else "create"


def write_stamp(venv: Path, text: str) -> None:
    """Record how far the set-up came; the stamp is replaced in one step, so that it is never half-written."""
    partial = venv / f"{STAMP}.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, venv / STAMP)


def clear(venv: Path) -> None:
    """Empty ``venv`` but for the stamp, which still says whose folder it is should this be killed half-way."""
    for child in venv.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != STAMP:
            child.unlink()


def check_machine() -> None:
    """Find out now, not after minutes of downloads, that fairseq's extensions cannot be compiled here.

    Raises:
        SystemExit: Python's headers or the C++ compiler are missing.
    """
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.exists():
        raise SystemExit(f"error: {headers} is missing: install Python's headers (Debian, Ubuntu: python3-dev)")
    compiler = os.environ.get("CXX", "c++").split()[0]
    if not shutil.which(compiler):
        raise SystemExit(f"error: the C++ compiler {compiler} is not on the PATH: install one (Debian, Ubuntu: g++)")


def environment() -> dict[str, str]:
    """Return this process's variables without those that lead pip or fairseq's build astray, and set for speed."""
    # CUDA_HOME makes fairseq compile CUDA extensions that need nvcc and that nothing here uses
    astray = {"PYTHONPATH", "PYTHONHOME", "CUDA_HOME", "PIP_CONSTRAINT", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}
    kept = {name: value for name, value in os.environ.items() if name not in astray}
    # no debug information: it takes 40 % of the compile time. CFLAGS would replace Python's own flags, this adds one
    kept["CPPFLAGS"] = f"{kept.get('CPPFLAGS', '')} -g0"
    return {**kept, "PYTHONUNBUFFERED": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def last_line(log: Path, width: int = 70) -> str:
    """Return the newest line of the log, cut to ``width``."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line[:width] for line in reversed(lines) if line), "")


def follow(process: subprocess.Popen, title: str, log: Path) -> None:
    """Wait for ``process`` and show that it is alive: a line that renews itself, or one every 30 seconds in a log."""
    started = time.monotonic()
    live = sys.stdout.isatty()
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1 if live else 30)
        line = f"  {title}: {time.monotonic() - started:.0f} s"
        if process.returncode is not None:
            line += ", done" if process.returncode == 0 else ", failed"
        else:
            line += f"  {last_line(log)}"
        print(f"\r\033[K{line}" if live else line, end="" if live else "\n", flush=True)
    if live:
        print()


class StepFailed(SystemExit):
    """A step ended with an error of its own: unlike one that was killed, it left the environment in order."""


def run(title: str, command: list[str | Path], log: Path) -> None:
    """Run one step with its output in ``log``.

    Raises:
        SystemExit: the step was killed, or (StepFailed) it failed; the message shows the end of its log.
    """
    with log.open("a", encoding="utf-8") as sink:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            follow(process, title, log)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        stop = StepFailed if process.returncode > 0 else SystemExit
        raise stop(f"{tail}\nerror: set-up stopped at '{title}'; everything it said is in {log}")


def cache_options(python: Path) -> list[str]:
    """Return the options that keep pip from failing where it cannot write its cache (a full or read-only home)."""
    asked = subprocess.run([python, "-m", "pip", "cache", "dir"], env=environment(), capture_output=True, text=True)
    folder = asked.stdout.strip()
    try:
        for part in (folder, f"{folder}/wheels"):
            os.makedirs(part, exist_ok=True)
            tempfile.TemporaryFile(dir=part).close()
    except OSError:
        return ["--no-cache-dir"]
    return []


def install(venv: Path, afresh: bool, wanted: str, log: Path) -> None:
    """Fill ``venv``; while this runs its stamp says that it is unfinished.

    Where pip itself gives up (no network, say), the next run goes on from there: pip leaves no half package behind.
    """
    venv.mkdir(parents=True, exist_ok=True)
    write_stamp(venv, UNFINISHED)
    if afresh:
        clear(venv)
        run("virtual environment", [sys.executable, "-m", "venv", venv], log)
    python = venv / "bin" / "python"
    # no bytecode ahead of time: of the many modules that torch, scipy and pandas bring, few are ever imported
    pip = [python, "-m", "pip", "install", "--progress-bar", "off", "--no-compile", "-c", "constraints.txt"]
    pip += cache_options(python)
    try:
        run("torch and build tools", [*pip, *BUILD], log)
        run("fairseq (compiles), all else", [*pip, "--no-build-isolation", "-e", ".[all]"], log)
    except StepFailed:
        write_stamp(venv, wanted.partition("\n")[0] + "\nfailed\n")
        raise
    write_stamp(venv, wanted)


@contextlib.contextmanager
def only_one(venv: Path) -> Iterator[None]:
    """Let a second set-up of the same environment wait for the first one."""
    lock = venv.with_name(venv.name + ".lock")
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another set-up of {venv.name} is running: waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where the environment is or will be")
    venv = parser.parse_args().venv.absolute()
    with only_one(venv):
        wanted = fingerprint(ROOT, venv)
        todo = plan(venv, wanted)
        if todo == "keep":
            return
        check_machine()
        log = venv.with_name(venv.name + ".log")
        log.unlink(missing_ok=True)
        print(f"set-up ({todo} {venv.name}): some minutes, details in {log.name}", flush=True)
        try:
            install(venv, todo == "create", wanted, log)
        except KeyboardInterrupt:
            raise SystemExit("\nset-up interrupted: the next run starts it afresh") from None


if __name__ == "__main__":
    main()
