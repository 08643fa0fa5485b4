"""Running a program: its output is logged and shown, its failure is reported."""

import os
import sys
import time
from pathlib import Path

import pytest

from mla_fairseq.recipes import process
from mla_fairseq.recipes.process import execute


class Program:
    """Stands in for a recipe whose stages run a line of Python."""

    def __init__(self, run: Path, line: str) -> None:
        self.run, self.name, self.line, self.tree = run, "small", line, {"train": {"max_update": 4}}

    def command(self, name: str) -> list[str]:
        return ["python", "-c", self.line]

    def show(self, name: str) -> str:
        return "the command"


def output(folder: Path, line: str, name: str = "average") -> list[str]:
    execute(Program(folder / "run", line), name)
    first, *rest = (folder / "run" / f"{name}.log").read_text().splitlines()
    assert first.startswith("# session ") and first.endswith(" the command")
    return rest


@pytest.mark.parametrize(
    ("line", "name", "logged", "shown"),
    [
        pytest.param("print('out', end='', file=sys.stderr)", "average", ["out"], "out", id="script"),
        pytest.param("print('1%\\r2%')", "average", ["2%"], "1%\r2%\n", id="redrawn"),
        pytest.param("print('INFO\\n\\r1%\\r2%')", "generate", ["INFO", "2%"], "\r1%\r2%", id="fairseq"),
    ],
)
def test_output_is_logged_and_shown(tmp_path, capfd, line, name, logged, shown):
    assert output(tmp_path, "import sys; " + line, name) == logged
    assert capfd.readouterr().err == shown


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    """Even inside another repository."""
    assert process.commit()
    monkeypatch.setattr(process, "PACKAGE", process.PACKAGE / "recipes")
    assert process.commit() is None


def test_a_training_has_a_bar_of_updates(tmp_path, capfd):
    stats = '{"num_updates": "3", "loss": "2.5"}'
    output(tmp_path, f"print('2030-01-01 12:00:00 | INFO | train_inner | {stats}')", "train")
    shown = capfd.readouterr().err
    assert "train small" in shown and "INFO" not in shown and "3/4" in shown.rpartition("\r")[2]


def test_programs_of_this_environment_come_first(tmp_path):
    assert output(tmp_path, "import sys; print(sys.prefix)") == [sys.prefix]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        pytest.param("raise KeyError('no such thing')", "KeyError: 'no such thing' (log", id="exception"),
        pytest.param("raise SystemExit('error: no x (3): take y')", "failed: no x (3): take y (log", id="one-line"),
        pytest.param("import argparse; argparse.ArgumentParser(prog='p').parse_args(['--zz'])", "--zz", id="argparse"),
        pytest.param("print('last words'); raise SystemExit(1)", "last words", id="no-error-line"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "failed: no output", id="killed"),
    ],
)
def test_a_failure_names_the_program_its_last_error_and_the_log(tmp_path, line, error):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "average.log").write_text("ValueError: of an earlier session\n")
    with pytest.raises(ValueError, match=r"^mla-average failed: .*average\.log\)$") as caught:
        execute(Program(tmp_path / "run", line), "average")
    assert error in str(caught.value)
    assert "earlier session" not in str(caught.value)


def test_stopping_the_runner_stops_the_program(tmp_path, monkeypatch):
    """Raise an exception, as Ctrl-C does, while the program would run for another minute."""

    def stop(chunk: bytes) -> None:
        pids.append(int(chunk))
        raise KeyboardInterrupt

    pids: list[int] = []
    monkeypatch.setattr(process, "_display", lambda recipe, name: stop)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        output(tmp_path, "import os, time; print(os.getpid()); time.sleep(60)")
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
