"""Clients that a live server must survive: each does one wrong thing, again and again."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, websocket_connect

FIRST = json.dumps({"sample_rate": 16_000})
SPEECH = os.urandom(64_000)  # 2 s of noise
PAUSE = 0.2  # seconds between two attempts of one client

Attack = Callable[[str], Awaitable[str]]
"""Does one wrong thing to a server, and returns how that ended."""


async def connect(url: str, *messages: str | bytes) -> WebSocketClientConnection:
    """Return a connection on which ``messages`` were sent."""
    socket = await websocket_connect(f"{url.replace('http', 'ws', 1)}/stream")
    for message in messages:
        await socket.write_message(message, binary=isinstance(message, bytes))
    return socket


async def answer(socket: WebSocketClientConnection) -> str:
    """Return the code with which the server closes a connection, after all messages."""
    while await socket.read_message() is not None:
        pass
    return f"closed with {socket.close_code or 'no code'}"


async def wrong_json(url: str) -> str:
    return await answer(await connect(url, "{" * 1000))


async def wrong_values(url: str) -> str:
    return await answer(await connect(url, '{"sample_rate": NaN, "policy": [], "number": 1e999}'))


async def audio_first(url: str) -> str:
    return await answer(await connect(url, SPEECH))


async def flood(url: str) -> str:
    """Send a minute of audio as fast as the server takes it, and go away."""
    socket = await connect(url, FIRST, *[SPEECH] * 30)
    socket.protocol.stream.close()
    return "took the flood, or was full"


async def tiny_messages(url: str) -> str:
    """Send nothing, many times."""
    socket = await connect(url, FIRST, *[b""] * 20_000)
    socket.close()
    return await answer(socket)


async def changes(url: str) -> str:
    """Choose another number, many times."""
    socket = await connect(url, FIRST, *[json.dumps({"number": 1 + i % 2}) for i in range(2000)])
    socket.close()
    return await answer(socket)


async def large_message(url: str) -> str:
    return await answer(await connect(url, FIRST, b"x" * 70_000))


async def huge_message(url: str) -> str:
    return await answer(await connect(url, FIRST, b"x" * 20_000_000))


async def leave_early(url: str) -> str:
    (await connect(url)).protocol.stream.close()
    return "left"


async def leave_speaking(url: str) -> str:
    (await connect(url, FIRST, SPEECH)).protocol.stream.close()
    return "left"


async def leave_ending(url: str) -> str:
    (await connect(url, FIRST, SPEECH, '{"end": true}')).protocol.stream.close()
    return "left"


async def half_open(url: str) -> str:
    """Begin a request, and wait."""
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n")
    try:
        await reader.read()
    finally:
        writer.close()
    return "closed"


async def silent(url: str) -> str:
    """Open a WebSocket, and wait."""
    return await answer(await connect(url))


async def other_origin(url: str) -> str:
    request = HTTPRequest(f"{url.replace('http', 'ws', 1)}/stream", headers={"Origin": "http://evil.org"})
    try:
        await websocket_connect(request)
    except HTTPClientError as error:
        return f"HTTP {error.code}"
    return "accepted"


ATTACKS: dict[str, Attack] = {
    attack.__name__.replace("_", " "): attack
    for attack in (
        wrong_json, wrong_values, audio_first, flood, tiny_messages, changes, large_message, huge_message, leave_early,
        leave_speaking, leave_ending, half_open, silent, other_origin,
    )
}  # fmt: skip


async def repeat(name: str, url: str, until: float, results: Counter[tuple[str, str]]) -> None:
    """Do one wrong thing again and again until a time of ``time.monotonic``, and count the ends."""
    while (left := until - time.monotonic()) > 0:
        try:
            end = await asyncio.wait_for(ATTACKS[name](url), left)
        except TimeoutError:
            end = "still open at the end"
        except (OSError, StreamClosedError, WebSocketClosedError) as error:
            end = f"broken off ({type(error).__name__})"
        results[name, end] += 1
        await asyncio.sleep(PAUSE)


def attack(url: str, count: int, seconds: float) -> Counter[tuple[str, str]]:
    """Let ``count`` hostile clients attack a server, and return how their attempts ended."""

    async def main() -> Counter[tuple[str, str]]:
        results: Counter[tuple[str, str]] = Counter()
        names, until = list(ATTACKS), time.monotonic() + seconds
        await asyncio.gather(*(repeat(names[i % len(names)], url, until, results) for i in range(count)))
        return results

    return asyncio.run(main())
