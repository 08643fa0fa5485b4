"""Run a program in a child forked from this process, which spares it the imports of torch and fairseq (8 s of CPU)."""

import dataclasses
import importlib
import logging
import multiprocessing
import os
import runpy
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import torch._dynamo  # noqa: F401 -- every optimizer imports it, for seconds: once is enough for all children

ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINTS: dict[str, str] = {
    "fairseq-train": "fairseq_cli.train:cli_main",
    "fairseq-generate": "fairseq_cli.generate:cli_main",
    "fairseq-interactive": "fairseq_cli.interactive:cli_main",
    "fairseq-score": "fairseq_cli.score:cli_main",
    "fairseq-validate": "fairseq_cli.validate:cli_main",
    "simuleval": "simuleval.cli:main",
    "simulstream_inference": "simulstream.inference:cli_main",
    **tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"],
}
TIMEOUT = 300


@dataclasses.dataclass(frozen=True)
class Done:
    """A program that has ended: its exit status and its output."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """Return the last line of the error output."""
        return self.err.rstrip().rpartition("\n")[2]

    def hypotheses(self) -> list[tuple[str, float, str]]:
        """Return (sentence, score, words) of every hypothesis that ``fairseq-generate`` printed, sorted."""
        lines = (line.split("\t") for line in self.lines("H-"))
        return sorted((name, float(score), text) for name, score, text in lines)

    def lines(self, start: str) -> list[str]:
        """Return the lines of the output that begin with ``start``."""
        return [line for line in self.out.splitlines() if line.startswith(start)]


def run(program: str | Path, *arguments: object, cwd: Path | None = None, seconds: float = TIMEOUT) -> Done:
    """Run a program of ``ENTRY_POINTS`` or a Python file; a list among the arguments is replaced by its items.

    It is killed after ``seconds``, and its exit status is -9 then.
    """
    words = [str(word) for words in arguments for word in (words if isinstance(words, list) else [words])]
    main = _main(program)  # imported here, so that the next child of this process has it too
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = multiprocessing.get_context("fork").Process(
            target=_child, args=(main, [program, *words], cwd, out, err)
        )
        child.start()
        child.join(seconds)
        if child.is_alive():
            child.kill()
            child.join()
        return Done(child.exitcode, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace"))


def _main(program: str | Path) -> Callable[[], object]:
    if program in ENTRY_POINTS:
        module, function = ENTRY_POINTS[program].split(":")
        return getattr(importlib.import_module(module), function)
    path = Path(program).resolve()

    def main() -> None:
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")

    return main


def _child(main: Callable[[], object], argv: list[str], cwd: Path | None, out: Path, err: Path) -> None:
    """Redirect the output of the child, set its arguments, and run the program; multiprocessing ends the process."""
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
    os.chdir(cwd or Path.cwd())
    sys.argv = argv
    main()
