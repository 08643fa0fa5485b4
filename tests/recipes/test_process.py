"""Running a program: where its output goes, and what is said when it fails."""

import fcntl
import os
import signal
import sys
import threading
import time

import pytest

from mla_fairseq.recipes.commands import Command
from mla_fairseq.recipes.process import run


def python(program: str, **options) -> Command:
    return Command(("python", "-c", program), **options)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "stage.log"


def test_every_line_is_logged_and_watched(log):
    lines = []
    run(python("import sys; print('out'); print('err', file=sys.stderr); print('end', end='')"), log, lines.append)
    assert lines == ["out", "err"]
    assert log.read_text() == "out\nerr\nend"


def test_the_log_keeps_earlier_sessions(log):
    for word in ("first", "second"):
        run(python(f"print('{word}')"), log, lambda line: None)
    assert log.read_text().split() == ["first", "second"]


def test_a_redrawn_line_is_logged_in_its_last_state(log, capfd):
    run(python("print('10%\\r50%\\r100%')"), log, lambda line: None, echo=True)
    assert log.read_text() == "100%\n"
    assert "50%" in capfd.readouterr().err


def test_programs_of_this_environment_come_first(log):
    run(python("import sys; print(sys.prefix)"), log, lambda line: None)
    assert log.read_text().strip() == sys.prefix


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_set(log, threads):
    run(python("import os; print(os.environ['OMP_NUM_THREADS'])", threads=threads), log, lambda line: None)
    assert log.read_text() == f"{threads}\n"


def test_output_that_is_the_result_appears_whole(log, tmp_path):
    result = tmp_path / "result.txt"
    seen = []
    command = python("import sys; print('hypothesis'); print('warning', file=sys.stderr)", stdout=result)
    run(command, log, lambda line: seen.append((line, result.exists())))
    assert seen == [("hypothesis", False)]
    assert (result.read_text(), log.read_text()) == ("hypothesis\n", "warning\n")


def test_a_failed_program_leaves_the_old_result(log, tmp_path):
    result = tmp_path / "result.txt"
    result.write_text("old")
    with pytest.raises(ValueError, match="code 3"):
        run(python("print('new'); raise SystemExit(3)", stdout=result), log, lambda line: None)
    assert result.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["result.txt"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param("raise KeyError('no such thing')", "KeyError: 'no such thing'", id="exception"),
        pytest.param(
            "raise SystemExit('error: no x here; take y')", "code 1: no x here; take y (log", id="one-line-error"
        ),
        pytest.param("import argparse; argparse.ArgumentParser(prog='p').parse_args(['--zz'])", "--zz", id="argparse"),
        pytest.param("print('last words'); raise SystemExit(1)", "last words", id="no-error-line"),
        pytest.param("raise SystemExit(1)", "it said nothing", id="silence"),
    ],
)
def test_failure_names_the_last_error_and_the_log(log, program, said):
    log.parent.mkdir()
    log.write_text("ValueError: of an earlier session\n")
    with pytest.raises(ValueError, match="python ended with code") as caught:
        run(python(program), log, lambda line: None)
    assert said in str(caught.value)
    assert str(log) in str(caught.value)
    assert "earlier session" not in str(caught.value)


def test_failure_names_the_script_that_python_ran(log, tmp_path):
    (tmp_path / "prep.py").write_text("raise SystemExit('error: no data')")
    with pytest.raises(ValueError, match=r"^prep\.py ended with code 1: no data \(log: "):
        run(Command(("python", str(tmp_path / "prep.py"))), log, lambda line: None)


def test_a_killed_program_names_the_signal(log):
    with pytest.raises(ValueError, match="killed by signal 9"):
        run(python("import os; os.kill(os.getpid(), 9)"), log, lambda line: None)


def test_an_unknown_program_names_the_mend(log):
    with pytest.raises(ValueError, match=r"'no-such-program' not found.*make"):
        run(Command(("no-such-program",)), log, lambda line: None)


def test_stopping_the_runner_stops_the_program(log, tmp_path):
    """As Ctrl-C does: an exception in the watcher while the program would go on for a minute."""

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(python("import os, time; print(os.getpid()); time.sleep(60)"), log, stop)
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_a_kept_lock_lives_as_long_as_the_program(log, tmp_path):
    """Even if the runner itself is killed, nobody may start a second training beside the first."""
    path = tmp_path / ".lock"
    started = threading.Event()
    command = python("import time; print('started'); time.sleep(60)")

    def hold() -> None:
        with open(path, "a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            with pytest.raises(ValueError, match="killed by signal"):
                run(command, log, lambda _: (stream.close(), started.set()), keep=(stream.fileno(),))

    thread = threading.Thread(target=hold)
    thread.start()
    assert started.wait(30)  # from here on, only the program holds the lock
    with open(path, "a") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for pid in _children():
            os.kill(pid, signal.SIGTERM)
        thread.join(30)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _children() -> list[int]:
    """Programs that any thread of this process started."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as stream:
            found.update(int(word) for word in stream.read().split())
    return sorted(found)
