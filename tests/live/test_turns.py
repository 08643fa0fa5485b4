"""Turns: who is ahead of its share comes after the others."""

import asyncio
import contextlib
import time
from typing import Any

from mla_fairseq.live.turns import LEAST, SHARE, Answer, Turns


class Client:
    """What has a clock."""

    clock = 0.0


def answer(result: Any = None, spent: float = 0.0) -> Answer:
    """Return an answer that has arrived."""
    future = asyncio.get_running_loop().create_future()
    future.set_result((result, spent))
    return future


async def block(turns: Turns) -> tuple[Answer, asyncio.Task[Any]]:
    """Keep the worker busy until the future has a result."""
    release = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(turns.run(Client(), 0, lambda: release))
    await asyncio.sleep(0)
    return release, task


def test_who_sends_faster_than_it_speaks_comes_later() -> None:
    order: list[str] = []

    async def main() -> None:
        turns, flood, speaker = Turns(), Client(), Client()
        for second in range(3):
            await turns.run(flood, 1.0, lambda second=second: answer(order.append(f"flood {second}")))
        release, blocked = await block(turns)
        late = asyncio.create_task(turns.run(flood, 1.0, lambda: answer(order.append("flood 3"))))
        await asyncio.sleep(0)
        soon = asyncio.create_task(turns.run(speaker, 0.04, lambda: answer(order.append("speaker"))))
        await asyncio.sleep(0)
        release.set_result((None, 0.0))
        await asyncio.gather(blocked, late, soon)
        assert not turns.busy

    asyncio.run(main())
    assert order == ["flood 0", "flood 1", "flood 2", "speaker", "flood 3"]


def test_a_call_counts_as_audio_as_computing_or_as_a_message_whatever_is_most() -> None:
    async def main() -> None:
        for seconds, spent, counted in ((0.01, 5.0, 5.0 / SHARE), (3.0, 0.05, 3.0), (0.0, 0.001, LEAST)):
            turns, client, began = Turns(), Client(), time.monotonic()
            await turns.run(client, seconds, lambda spent=spent: answer(spent=spent))
            assert began + counted <= client.clock <= time.monotonic() + counted

    asyncio.run(main())


def test_a_turn_that_nobody_waits_for_is_passed_on() -> None:
    """Whether the client has gone before its turn, or just after it was given."""

    async def main(at_once: bool) -> None:
        turns = Turns()
        release, blocked = await block(turns)
        gone = asyncio.create_task(turns.run(Client(), 0, answer))
        last = asyncio.create_task(turns.run(Client(), 0, lambda: answer("7")))
        await asyncio.sleep(0)
        if at_once:
            gone.cancel()
            await asyncio.sleep(0)
        release.set_result((None, 0.0))
        await blocked
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        assert await asyncio.wait_for(last, 10) == "7"
        assert not turns.busy

    asyncio.run(main(at_once=True))
    asyncio.run(main(at_once=False))


def test_a_fault_frees_the_worker() -> None:
    def fail() -> Answer:
        raise ValueError

    async def main() -> None:
        turns = Turns()
        with contextlib.suppress(ValueError):
            await turns.run(Client(), 0, fail)
        assert await turns.run(Client(), 0, lambda: answer("7")) == "7"
        assert not turns.busy

    asyncio.run(main())
