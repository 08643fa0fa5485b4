"""The server of one port: the page, what the model offers, and a WebSocket for each client."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from mla_fairseq.live.messages import LARGEST
from mla_fairseq.live.service import Service
from mla_fairseq.live.stream import Guarded, Stream

PAGE = Path(__file__).with_name("page")
FILES = r"/(|index\.html|live\.css|live\.js)"  # no other path gets to the file system
UNREAD = 8 * LARGEST  # bytes of messages that are not even read; for smaller ones the client gets a clear error


class Page(Guarded, StaticFileHandler):
    """The files of the page."""


class Missing(Guarded):
    """The answer to all other paths."""

    def prepare(self) -> None:
        """Refuse it."""
        super().prepare()
        if not self._finished:
            raise HTTPError(404)


class Description(Guarded):
    """What the model offers, and how many places are free."""

    def get(self) -> None:
        """Write it as JSON."""
        self.write(self.service.describe())


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on a port; connections wait until they are served.

    Raises:
        ValueError: the port or the host cannot be used.
    """
    try:
        return bind_sockets(port, host)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"cannot listen on --host {host} --port {port} ({reason}): give another port or host"
        ) from error


def serve(service: Service, sockets: list[socket.socket]) -> HTTPServer:
    """Accept connections on sockets that are bound already."""
    server = HTTPServer(
        application(service),
        idle_connection_timeout=service.idle,  # also of a request that is never complete
        body_timeout=service.idle,
        max_header_size=LARGEST,
        max_body_size=LARGEST,
        max_buffer_size=2 * UNREAD,
    )
    server.add_sockets(sockets)
    return server


def application(service: Service) -> Application:
    """Return the handlers of all requests."""
    page = {"path": str(PAGE), "default_filename": "index.html"}
    handlers: list[Any] = [("/model", Description), ("/stream", Stream), (FILES, Page, page)]
    return Application(
        handlers,
        default_handler_class=Missing,
        service=service,
        log_function=_ignore,
        websocket_max_message_size=UNREAD,
    )


def _ignore(handler: RequestHandler) -> None:
    """Log no request: anybody could fill the log."""
