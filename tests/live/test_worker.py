"""Processes that translate: the same words as in a thread, whatever happens to one of them."""

import asyncio
import logging
import os
import signal

import numpy as np
import pytest

from mla_fairseq.live.client import Client
from mla_fairseq.live.model import Model
from tests.live.serving import END, FIRST, Live, play
from tests.live.test_words import blocks, expected, words
from tests.streaming.test_long import STREAM

FAILED = {"error": "the server failed: try again, or look at its log"}


def test_processes_share_the_clients(model: Model) -> None:
    async def scenario(live: Live) -> None:
        clients = [await live.ready() for _ in range(2)]
        assert [len(worker.turns.clients) for worker in live.service.workers] == [1, 1]
        for client in clients:
            await client.send(*blocks(STREAM), END)
        found = [words((await client.read_all())[0]) for client in clients]
        assert found == [expected(model.begin(model.default), STREAM)] * 2 and found[0]
        await live.empty()
        assert [len(worker.turns.clients) for worker in live.service.workers] == [0, 0]

    play(model, scenario, processes=2)


def test_a_process_that_ends_takes_no_other_with_it(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(live: Live) -> None:
        first, second = live.service.workers
        speaking, other = await live.ready(), await live.ready()
        os.kill(first.process.pid, signal.SIGSTOP)  # within the next call
        await speaking.send(STREAM[:2048])
        while not first.answers:
            await asyncio.sleep(0.01)
        os.kill(first.process.pid, signal.SIGKILL)
        assert await speaking.read_all() == ([FAILED], 1011)
        await other.send(*blocks(STREAM), END)
        assert words((await other.read_all())[0])
        later = [await live.ready(), await live.ready()]
        assert len(second.turns.clients) == 2
        os.kill(second.process.pid, signal.SIGKILL)
        second.process.join()
        while not second.ended:
            await asyncio.sleep(0.01)
        for client in later:
            await client.send(STREAM[:2048])
            assert await client.read_all() == ([FAILED], 1011)
        refused = await live.connect(FIRST)
        assert (await refused.read_all())[1] == 1011
        await live.empty()

    play(model, scenario, processes=2)
    lost = "a process that translates has ended: its clients must start again"
    assert [record.message for record in caplog.records if record.name.endswith("worker")] == [lost] * 2
    assert {record.levelno for record in caplog.records if record.name == "asyncio"} <= {logging.DEBUG}


def test_a_fault_in_a_process_ends_one_stream(model: Model, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    push = Client.push

    def fail(self: Client, samples: np.ndarray, final: bool = False) -> list[dict]:
        if samples.any():
            raise ValueError("the scores of the model are not finite")
        return push(self, samples, final)

    monkeypatch.setattr(Client, "push", fail)  # the processes are forked later

    async def scenario(live: Live) -> None:
        one, other = await live.ready(), await live.ready()
        await one.send(STREAM[:2048])
        assert await one.read_all() == ([FAILED], 1011)
        await other.send(np.zeros(1600, np.int16), END)
        assert (await other.read_all())[1] == 1000

    play(model, scenario, processes=1)
    assert "the scores of the model are not finite" in caplog.text
