"""Turns: who is ahead of its share comes after the others."""

import asyncio
import threading
import time

from mla_fairseq.live.turns import Turns


class Client:
    """What has a clock."""

    clock = 0.0


async def block(turns: Turns) -> tuple[threading.Event, asyncio.Task[bool]]:
    """Keep the only thread busy until the event is set."""
    release = threading.Event()
    task = asyncio.create_task(turns.run(Client(), 1, 0, release.wait, 60))
    await asyncio.sleep(0)
    return release, task


def test_who_sends_faster_than_it_speaks_comes_later() -> None:
    order: list[str] = []

    async def main() -> None:
        turns, flood, speaker = Turns(1), Client(), Client()
        for second in range(3):
            await turns.run(flood, 2, 1.0, order.append, f"flood {second}")
        release, blocked = await block(turns)
        late = asyncio.create_task(turns.run(flood, 2, 1.0, order.append, "flood 3"))
        await asyncio.sleep(0)
        soon = asyncio.create_task(turns.run(speaker, 2, 0.04, order.append, "speaker"))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(blocked, late, soon)
        assert turns.free == 1

    asyncio.run(main())
    assert order == ["flood 0", "flood 1", "flood 2", "speaker", "flood 3"]


def test_computing_counts_by_the_share_of_a_client() -> None:
    def compute() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    async def main() -> None:
        turns, client = Turns(2), Client()
        began = time.monotonic()
        await turns.run(client, 8, 0.01, compute)
        assert client.clock >= began + 0.05 * 8 / 2
        client.clock = 0
        await turns.run(client, 8, 3, compute)
        assert began + 3 <= client.clock <= time.monotonic() + 3

    asyncio.run(main())


def test_a_turn_that_nobody_waits_for_is_passed_on() -> None:
    async def main() -> None:
        turns = Turns(1)
        release, blocked = await block(turns)
        gone = asyncio.create_task(turns.run(Client(), 1, 0, time.sleep, 0))
        last = asyncio.create_task(turns.run(Client(), 1, 0, int, "7"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await last == 7
        await blocked
        assert turns.free == 1

    asyncio.run(main())


def test_a_fault_frees_its_thread() -> None:
    async def main() -> None:
        turns = Turns(1)
        for text in ("x", "7"):
            try:
                assert await turns.run(Client(), 1, 0, int, text) == 7
            except ValueError:
                assert text == "x"
        assert turns.free == 1

    asyncio.run(main())
