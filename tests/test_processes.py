"""Processes end with the one that started them, however it ends, and a lock belongs to one process."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_fairseq.cli import prepare
from mla_fairseq.cli.options import STOPPED
from mla_fairseq.data.extraction import parallel_map
from mla_fairseq.evaluation.programs import run_program
from mla_fairseq.processes import end_forks_with_this, locked
from mla_fairseq.recipes.process import execute
from tests import programs
from tests.killing import killed, needs_proc, wait_for
from tests.recipes.noise import make_corpus
from tests.recipes.test_process import Program

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]


def sleep_after(path: Path) -> None:
    path.touch()
    time.sleep(300)


def program(path: Path) -> str:
    return f"import pathlib, time; pathlib.Path({str(path)!r}).touch(); time.sleep(300)"


def in_a_pool(path: Path) -> None:
    list(parallel_map(sleep_after, [path], workers=3))  # two of them wait for a task


def in_a_recipe(path: Path) -> None:
    execute(Program(path.parent, program(path)), "train")


def in_a_sweep(path: Path) -> None:
    run_program([Path(sys.executable).name, "-c", program(path)], path.with_suffix(".log"))


def in_a_fork(path: Path) -> None:
    end_forks_with_this()
    multiprocessing.get_context("fork").Process(target=sleep_after, args=(path,)).start()
    time.sleep(300)


@needs_proc
@pytest.mark.parametrize("signal_", SIGNALS)
@pytest.mark.parametrize("start", [in_a_pool, in_a_recipe, in_a_sweep, in_a_fork])
def test_processes_end_with_the_one_that_started_them(
    tmp_path: Path, start: Callable[[Path], None], signal_: int
) -> None:
    started = tmp_path / "started"
    with killed(start, started, signal_=signal_):
        wait_for(started.exists)


def prepare_in_a_session(folder: Path, output: Path) -> None:
    os.setsid()  # as a terminal gives a command a group of processes, which Ctrl-C reaches
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background, which ignores it
    words = ["--data", folder, "--pairs", "en-de", "--vocab-type", "char", "--workers", "2"]
    programs._child(prepare.main, ["mla-prepare", *map(str, words)], None, output, output.with_suffix(".err"))


@needs_proc
def test_ctrl_c_gives_one_line_though_it_reaches_the_workers_too(tmp_path: Path) -> None:
    make_corpus(tmp_path, train=400)
    process = multiprocessing.get_context("fork").Process(
        target=prepare_in_a_session, args=(tmp_path, tmp_path / "out")
    )
    process.start()
    wait_for(lambda: list(tmp_path.glob("en-de/*.staged/*.npy")))
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    lines = (tmp_path / "out.err").read_text().splitlines()
    assert process.exitcode == 1 and lines[-1] == STOPPED
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "en-de" / "config_st.yaml").exists()


def in_another_process(function: Callable[[], None]) -> int:
    """Call a function in a forked process; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join()
    return process.exitcode


def test_a_refused_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    def second() -> None:
        words = rf"^{tmp_path} is used by another run \(process {parent}\): wait for it, or stop it$"
        with pytest.raises(ValueError, match=words), locked(tmp_path / "lock", tmp_path):
            pass

    parent = os.getpid()
    (tmp_path / "lock").write_text("12345678")  # of a run that was killed
    with locked(tmp_path / "lock", tmp_path):
        assert in_another_process(second) == 0


def test_a_lock_is_free_when_its_process_was_killed_though_a_child_of_it_runs(tmp_path: Path) -> None:
    def hold() -> None:
        with locked(tmp_path / "lock", tmp_path):
            if child := os.fork():
                (tmp_path / "child").write_text(str(child))
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(300)

    assert in_another_process(hold) == -signal.SIGKILL
    try:
        with locked(tmp_path / "lock", tmp_path):
            pass
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_run_that_waits_names_the_process_that_it_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def hold() -> None:
        with locked(tmp_path / "lock", tmp_path):
            (tmp_path / "held").touch()
            time.sleep(0.5)
            (tmp_path / "done").touch()

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    wait_for((tmp_path / "held").exists)
    caplog.set_level("INFO")
    with locked(tmp_path / "lock", tmp_path, wait=True):
        assert (tmp_path / "done").exists()
    assert f"{tmp_path} is used by another run (process {process.pid}): waiting for it" in caplog.text
    process.join()
