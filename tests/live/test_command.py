"""``mla-live``: its mistakes in one line each, its defaults, and its end."""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from tornado.websocket import websocket_connect

from mla_fairseq.cli import live
from mla_fairseq.live.model import Setting
from mla_fairseq.streaming import SileroDetector
from tests import programs
from tests.live.serving import FIRST, Connection
from tests.streaming.conftest import Save

SMALL = "--attn-type relu"


def parse(save: Save, data: Path, *flags: str) -> argparse.Namespace:
    return live.build_parser().parse_args([str(save(SMALL)), "--data", str(data), *flags])


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as taken:
        return taken.getsockname()[1]


MISTAKES = {
    "policy": ("--policy best", "--policy is 'best': use one of wait-k, align-att, local-agreement, hold"),
    "unsuitable": ("--policy monotonic", "--policy is 'monotonic': use one of wait-k, align-att"),
    "number": ("--number 4", "--number is 4: wait-k has 1 to 3"),
    "pause": ("--pause 0", "the shortest pause must be at least 0.04 s and the longest"),
    "longest": ("--longest nan", "the shortest pause must be at least 0.04 s and the longest"),
    "boundary": ("--detector boundary", "this model has no boundary output: use --detector energy, or train with"),
    "device": ("--device cuda:99", "device 'cuda:99' is not available ("),
    "host": ("--host no.such.host.invalid", "cannot listen on --host no.such.host.invalid --port 8800 ("),
    "long-host": (f"--host {'x' * 70}", "cannot listen on --host xxx"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_in_one_line(save: Save, data: Path, name: str) -> None:
    flags, message = MISTAKES[name]
    port = [] if "--host" in flags else ["--port", free_port()]
    done = programs.run("mla-live", save(SMALL), "--data", data, flags.split(), *port)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: {message}"), done.err
    assert done.err.count("\n") == 1


def test_a_port_that_is_taken_is_reported_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        done = programs.run("mla-live", tmp_path / "none.pt", "--data", tmp_path, "--port", port)
    assert (done.code, done.out) == (1, "")
    place = f"--host localhost --port {port}"
    assert done.err == f"error: cannot listen on {place} (Address already in use): give another port or host\n"


@pytest.mark.parametrize(
    "flag", ["--port 0", "--port 70000", "--clients 0", "--idle 0", "--origin example.org", "--origin http://a/b"]
)
def test_a_wrong_flag_is_reported(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        live.main(["model.pt", "--data", "folder", *flag.split()])
    assert f"argument {flag.split()[0]}: '" in capsys.readouterr().err


def test_a_model_names_itself_and_its_languages(save: Save, data: Path) -> None:
    path = save(SMALL)
    model = live.load(parse(save, data))
    assert (model.name, model.source, model.targets) == (f"{path.parent.name}/checkpoint", "en", ["de"])
    assert model.default == Setting("wait-k", 2)
    assert model.detector is None


def test_flags_are_the_defaults_of_clients(save: Save, data: Path) -> None:
    flags = "--policy hold --number 3 --tgt-lang de-AT --source-lang en-GB --pause 0.4 --longest 20 --detector silero"
    model = live.load(parse(save, data, *flags.split()))
    assert (model.source, model.targets, model.default) == ("en-GB", ["de-AT"], Setting("hold", 3, "de-AT"))
    session = model.begin(model.default)
    assert (session.pause, session.longest, type(session.detector)) == (10, 500, SileroDetector)
    assert session.detector is not model.detector


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_at_once(save: Save, data: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Its clients get an error, also one whose audio is being translated, and it ends with one line."""
    port, (out, err) = free_port(), (tmp_path / "out", tmp_path / "err")
    command = ["mla-live", str(save(SMALL)), "--data", str(data), "--port", str(port)]
    main = programs._main("mla-live")
    child = multiprocessing.get_context("fork").Process(target=programs._child, args=(main, command, None, out, err))
    child.start()
    wait_for(lambda: out.exists() and out.read_text() == f"open http://localhost:{port}\n")

    async def talk() -> tuple[list[dict], int | None]:
        client = Connection(await websocket_connect(f"ws://localhost:{port}/stream"))
        await client.send(FIRST, *[os.urandom(60_000) for _ in range(20)])
        await client.read()
        for pid in [*children(child.pid), child.pid]:  # as a terminal, or a manager of services, does
            os.kill(pid, number)
        return await client.read_all()

    answers, code = asyncio.run(asyncio.wait_for(talk(), 60))
    began = time.monotonic()
    child.join(60)
    assert time.monotonic() < began + 30
    assert (answers[-1], code) == ({"error": "the server has stopped: start it again"}, 1001)
    assert (child.exitcode, err.read_text()) == (1, "stopped\n")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def interrupt(port: int) -> None:
    """Press Ctrl-C once the server answers."""
    wait_for(lambda: answers(port))
    os.kill(os.getpid(), signal.SIGINT)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/model"):
        return True
    return False


def test_a_public_server_warns_about_microphones(save: Save, data: Path, capsys, caplog) -> None:
    port = free_port()
    threading.Thread(target=interrupt, args=(port,)).start()
    args = parse(save, data, "--host", "0.0.0.0", "--port", str(port))
    with pytest.raises(SystemExit, match="stopped"):
        live.run(args)
    assert capsys.readouterr().out == f"open http://localhost:{port}\n"  # where a browser allows the microphone
    assert "browsers on other machines need https for a microphone" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_end_with_the_server(save: Save, data: Path, tmp_path: Path, number: signal.Signals) -> None:
    port, (out, err) = free_port(), (tmp_path / "out", tmp_path / "err")
    command = ["mla-live", str(save(SMALL)), "--data", str(data), "--port", str(port)]
    main = programs._main("mla-live")
    server = multiprocessing.get_context("fork").Process(target=programs._child, args=(main, command, None, out, err))
    server.start()
    wait_for(lambda: answers(port))
    workers = children(server.pid)
    assert len(workers) == min(os.cpu_count(), 8)
    os.kill(server.pid, number)
    server.join(60)
    wait_for(lambda: not any(map(is_running, workers)))


def children(pid: int) -> list[int]:
    """Return the children of a process that are running; none where there is no /proc."""
    found = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [child for child in found if is_running(child) and status(child)[1] == str(pid)]


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended waits for its parent as a zombie."""
    return status(pid)[0] not in "ZX"


def status(pid: int) -> list[str]:
    """Return the state of a process, its parent, and more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X"]
