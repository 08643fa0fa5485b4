#!/usr/bin/env python3
"""Measure a running mla-live: how far its words are behind clients that speak, its CPU time and its memory.

Each client sends the recordings, one after another, as a page with a microphone does: at real time, 2048 samples at
48 kHz in a message. A word is behind by the time from the moment when its client had spoken all the audio that the
server used for it, until the word is back. Hostile clients may attack meanwhile, from another process.

    mla-live CHECKPOINT --data DIR
    python scripts/bench_live.py --pid $(pgrep -of mla-live) --clients 8 --minutes 2 --hostile 20 talk1.wav talk2.wav
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import benchmark
import hostile
import numpy as np
import soxr
from tornado.websocket import WebSocketClientConnection, websocket_connect

from mla_fairseq.cli.options import at_least
from mla_fairseq.speech import SAMPLE_RATE, load_audio

RATE, BLOCK = 48_000, 2048  # of browsers, and of the page
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Heard:
    """What a client got: all in seconds.

    Attributes:
        behind: for each message with words, how far it is behind the speaker.
        first: for each stretch of speech, the time from its start to its first words.
        end: from the end of the audio to the end of the words.
        words: number of words.
        error: what the server refused it with.
    """

    behind: list[float] = field(default_factory=list)
    first: dict[int, float] = field(default_factory=dict)
    end: float = float("nan")
    words: int = 0
    error: str = ""


def blocks(samples: Sequence[np.ndarray], start: int) -> Iterator[bytes]:
    """Yield the audio of a client without an end, from recording ``start`` on."""
    rest = np.zeros(0, np.int16)
    for recording in islice(cycle(samples), start, None):
        rest = np.concatenate([rest, recording])
        for place in range(0, len(rest) - BLOCK + 1, BLOCK):
            yield rest[place : place + BLOCK].tobytes()
        rest = rest[len(rest) // BLOCK * BLOCK :]


async def listen(socket: WebSocketClientConnection, began: float, heard: Heard) -> None:
    """Note the answers of the server until it closes the connection."""
    while (text := await socket.read_message()) is not None:
        now, message = time.monotonic() - began, json.loads(text)
        heard.error = message.get("error", heard.error)
        if message.get("words"):
            heard.behind.append(now - message["time"] / 1000)
            heard.first.setdefault(message["stretch"], now - message["start"] / 1000)
            heard.words += len(message["words"].split())


async def speak(args: argparse.Namespace, number: int, samples: Sequence[np.ndarray]) -> Heard:
    """Be one client, and return what it got."""
    await asyncio.sleep(number * 0.37)  # clients do not start together
    heard, socket = Heard(), await websocket_connect(f"{args.url.replace('http', 'ws', 1)}/stream")
    first = {"sample_rate": RATE, "policy": args.policy, "number": args.number}
    await socket.write_message(json.dumps(first))
    if refused := json.loads(await socket.read_message() or "{}").get("error"):
        heard.error = refused
        return heard
    began = time.monotonic()
    listener = asyncio.create_task(listen(socket, began, heard))
    for place, block in enumerate(islice(blocks(samples, number), round(args.minutes * 60 * RATE / BLOCK)), 1):
        await asyncio.sleep(began + place * BLOCK / RATE - time.monotonic())  # until it is spoken
        if listener.done():
            break
        await socket.write_message(block, binary=True)
    ended = time.monotonic()
    if not listener.done():
        await socket.write_message(json.dumps({"end": True}))
    await listener
    heard.end = time.monotonic() - ended
    return heard


def family(pid: int) -> list[int]:
    """Return a process and its children (Linux)."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
    return found


def usage(pids: Sequence[int]) -> tuple[float, float]:
    """Return the CPU seconds of processes so far, and their memory in MB; what they share counts once (Linux)."""
    seconds = memory = 0.0
    for folder in (Path("/proc", str(pid)) for pid in pids):
        words = (folder / "stat").read_text().rpartition(")")[2].split()
        seconds += (int(words[11]) + int(words[12])) / TICKS
        memory += int(re.findall(r"Pss: *([0-9]+) kB", (folder / "smaps_rollup").read_text())[0]) / 1024
    return seconds, memory


async def watch(pid: int, seconds: float) -> list[list[str]]:
    """Return rows of each minute: CPU time per second, and memory at its end."""
    rows, pids = [], family(pid)
    for minute in range(max(1, round(seconds / 60))):
        (before, _), began = usage(pids), time.monotonic()
        await asyncio.sleep(min(60, seconds))
        after, memory = usage(pids)
        rows.append([str(minute + 1), f"{(after - before) / (time.monotonic() - began):.2f}", f"{memory:.0f}"])
    return rows


def row(number: int, heard: Heard) -> list[str]:
    """Return the cells of one client."""
    cells = [str(number), str(heard.words)]
    for values in (heard.behind, list(heard.first.values())):
        found = np.quantile(values, (0.5, 0.95, 1)) if values else [np.nan] * 3
        cells += [f"{value:.2f}" for value in found]
    return [*cells, f"{heard.end:.2f}", heard.error]


async def measure(args: argparse.Namespace, samples: Sequence[np.ndarray]) -> str:
    """Return the report."""
    loop, seconds = asyncio.get_running_loop(), args.minutes * 60
    with ProcessPoolExecutor(1) as pool:
        attacks = loop.run_in_executor(pool, hostile.attack, args.url, args.hostile, seconds) if args.hostile else None
        watcher = asyncio.create_task(watch(args.pid, seconds)) if args.pid else None
        clients = await asyncio.gather(*(speak(args, number, samples) for number in range(args.clients)))
        head = ["client", "words", "behind (s): median", "95 %", "most", "first word (s): median", "95 %", "most"]
        parts = [benchmark.table([*head, "last (s)", "error"], [row(*pair) for pair in enumerate(clients, 1)])]
        if watcher:
            parts.append(benchmark.table(["minute", "CPU (cores)", "memory (MB)"], await watcher))
        if attacks:
            ends = [[name, end, str(count)] for (name, end), count in sorted((await attacks).items())]
            parts.append(benchmark.table(["hostile client", "end of an attempt", "attempts"], ends))
    return "\n\n".join([benchmark.signature(), *parts])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help="recordings; client i starts with number i")
    parser.add_argument("--url", default="http://localhost:8800", help="address of the server (default: %(default)s)")
    parser.add_argument(
        "--pid", type=int, help="process of the server, for its CPU time and memory, with its children (default: none)"
    )
    parser.add_argument("--clients", type=at_least(1), default=8, help="clients that speak (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long they speak (default: %(default)s)")
    parser.add_argument("--hostile", type=at_least(0), default=0, help="hostile clients (default: %(default)s)")
    parser.add_argument("--policy", help="policy of the clients (default: that of the server)")
    parser.add_argument("--number", type=int, help="its number (default: that of the server)")
    parser.add_argument("--output", type=Path, help="markdown file for the report (default: none)")
    return parser


def main() -> None:
    args = build_parser().parse_args()
    recordings = [soxr.resample(load_audio(path), SAMPLE_RATE, RATE) for path in args.wavs]
    samples = [np.round(one.clip(-1, 1) * 32_767).astype(np.int16) for one in recordings]
    benchmark.publish(asyncio.run(measure(args, samples)), args.output)


if __name__ == "__main__":
    main()
