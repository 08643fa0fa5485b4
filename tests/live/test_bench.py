"""Clients that speak while hostile ones attack, as ``scripts/bench_live.py`` measures them."""

import asyncio
import multiprocessing
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from mla_fairseq.live.model import Model
from mla_fairseq.live.server import serve
from mla_fairseq.live.service import Service
from mla_fairseq.live.worker import Worker
from tests import programs
from tests.streaming.conftest import RATE
from tests.streaming.test_long import STREAM
from tests.test_bench import rows

BENCH = programs.ROOT / "scripts" / "bench_live.py"


@pytest.fixture
def server(model: Model) -> Iterator[tuple[int, int]]:
    """Port and process of a server."""
    listening = socket.create_server(("localhost", 0))
    listening.setblocking(False)

    async def run(workers: list[Worker]) -> None:
        serve(Service(model, places=16, workers=workers), [listening])
        await asyncio.Event().wait()

    child = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(run([Worker(model), Worker(model)])))
    child.start()
    yield listening.getsockname()[1], child.pid
    child.kill()
    child.join()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU time and memory from /proc")
def test_hostile_clients_do_no_harm(server: tuple[int, int], tmp_path: Path) -> None:
    port, pid = server
    wav = tmp_path / "speech.wav"
    soundfile.write(wav, STREAM, RATE)
    flags = ["--url", f"http://localhost:{port}", "--pid", pid, "--clients", 2, "--minutes", 0.1, "--hostile", 14]
    done = programs.run(BENCH, *flags, wav)
    assert done.code == 0, done.err
    clients = rows(done.out, "| client |")
    assert [(row[0], int(row[1]) > 0, row[-1]) for row in clients] == [("1", True, ""), ("2", True, "")]
    assert float(rows(done.out, "| minute |")[0][1]) > 0
    ends = {(name, end) for name, end, _ in rows(done.out, "| hostile client |")}
    assert {name for name, _ in ends} == set(hostile_clients())
    wanted = {"wrong json": 1008, "wrong values": 1008, "audio first": 1008, "large message": 1008}
    assert {(name, f"closed with {code}") for name, code in wanted.items()} | {("other origin", "HTTP 403")} <= ends
    assert not [end for _, end in ends if "1011" in end or end in ("accepted", "HTTP 500")]
    assert os.path.exists(f"/proc/{pid}")


def hostile_clients() -> list[str]:
    sys.path.insert(0, str(BENCH.parent))
    try:
        import hostile
    finally:
        sys.path.pop(0)
    return list(hostile.ATTACKS)
