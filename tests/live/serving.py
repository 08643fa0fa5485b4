"""A live server and its clients in one event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.testing import bind_unused_port
from tornado.websocket import WebSocketClientConnection, websocket_connect

from mla_fairseq.live.model import Model
from mla_fairseq.live.server import serve
from mla_fairseq.live.service import Service
from mla_fairseq.live.worker import Worker

FIRST = {"sample_rate": 16_000}
END = {"end": True}
SECONDS = 60  # for a scenario, on a busy machine

Message = dict[str, Any]


class Connection:
    """A client."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket = socket

    async def send(self, *messages: object) -> None:
        """Send samples and bytes as audio, texts as they are, and anything else as JSON."""
        for message in messages:
            if isinstance(message, np.ndarray | bytes):
                await self.socket.write_message(bytes(message), binary=True)
            else:
                await self.socket.write_message(message if isinstance(message, str) else json.dumps(message))

    async def read(self) -> Message | None:
        """Return the next message; ``None`` once the server has closed the connection."""
        text = await self.socket.read_message()
        return None if text is None else json.loads(text)

    async def read_all(self) -> tuple[list[Message], int | None]:
        """Return all messages until the server closes the connection, and its code."""
        messages = []
        while (message := await self.read()) is not None:
            messages.append(message)
        return messages, self.socket.close_code

    def break_off(self) -> None:
        """Close the connection without a word."""
        self.socket.protocol.stream.close()


class Live:
    """A running server."""

    def __init__(self, service: Service, port: int) -> None:
        self.service, self.port = service, port

    async def connect(self, *messages: object, **headers: str) -> Connection:
        """Return a new client that has sent ``messages``."""
        request = HTTPRequest(f"ws://127.0.0.1:{self.port}/stream", headers=headers)
        connection = Connection(await websocket_connect(request))
        await connection.send(*messages)
        return connection

    async def ready(self, **choice: object) -> Connection:
        """Return a new client that has a place."""
        connection = await self.connect(FIRST | choice)
        assert await connection.read() == {"ready": True}
        return connection

    async def get(self, path: str, **headers: str) -> HTTPResponse:
        """Return the answer to a request."""
        url = f"http://127.0.0.1:{self.port}{path}"
        return await AsyncHTTPClient().fetch(url, headers=headers, raise_error=False)

    async def empty(self) -> None:
        """Wait until no client holds a place or a connection."""
        while self.service.clients or self.service.connections:
            await asyncio.sleep(0.01)


def play(model: Model, scenario: Callable[[Live], Awaitable[object]], processes: int = 0, **limits: Any) -> None:
    """Run a scenario with a server of a model and ``limits``, which translates in a thread or some processes."""

    async def main() -> None:
        service = Service(model, workers=[Worker(model) for _ in range(processes)], **limits)
        socket, port = bind_unused_port()
        server = serve(service, [socket])
        await asyncio.wait_for(scenario(Live(service, port)), SECONDS)
        server.stop()
        service.stop()

    asyncio.run(main())
