"""What all connections of a live server share: the model, the places, the workers, and whom it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from mla_fairseq.live.messages import FAILED, FULL, GONE, Refusal
from mla_fairseq.live.model import Model, Setting
from mla_fairseq.live.place import Place
from mla_fairseq.live.worker import Worker

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that only itself can reach."""


class Connection(Protocol):
    """A connection that can be ended."""

    def end(self, error: str, code: int) -> None:
        """Send an error and close it."""


class Service:
    """A model, its clients, and the workers that translate.

    Args:
        model: what is offered.
        places: clients at once.
        idle: seconds without audio that end a client's stream.
        origins: addresses, such as ``https://example.org``, under which a reverse proxy shows the page.
        local: whether only this machine reaches the server; requests for other hosts are then refused.
        workers: what translates; ``None``: a thread.

    Attributes:
        connections: all that are open.
        clients: those of them that have a place.
    """

    def __init__(
        self,
        model: Model,
        places: int = 8,
        idle: float = 60.0,
        origins: Sequence[str] = (),
        local: bool = True,
        workers: Sequence[Worker] | None = None,
    ) -> None:
        self.model, self.places, self.idle, self.local = model, places, idle, local
        self.origins = {netloc(origin) for origin in origins}
        self.connections: set[Connection] = set()
        self.clients: set[Connection] = set()
        self.workers = workers or [Worker(model, process=False)]

    def describe(self) -> dict[str, Any]:
        """Return what a page shows."""
        places = {"places": self.places, "free": self.places - len(self.clients), "idle_seconds": self.idle}
        return self.model.describe() | places

    def enter(self, connection: Connection, rate: int, setting: Setting) -> Place:
        """Give a connection a place, at the worker with the fewest clients; ``leave`` frees it.

        Args:
            connection: that of the client.
            rate: its sample rate in Hz.
            setting: what it has chosen.

        Raises:
            Refusal: all places are taken, or all workers have ended.
        """
        if len(self.clients) >= self.places:
            raise Refusal(f"all places are taken ({self.places}): try again later", FULL)
        working = [worker for worker in self.workers if not worker.ended]
        if not working:
            raise Refusal("nothing is left on the server that translates: start it again", FAILED)
        self.clients.add(connection)
        return Place(min(working, key=lambda worker: len(worker.turns.clients)), rate, setting)

    def forbids(self, host: str, origin: str | None) -> bool:
        """Return whether a request comes from another page than those of this server.

        Args:
            host: its header Host. That of a local server is checked: the owner of any name can let it point to this
                machine, and pages under that name would then have the same origin as the server.
            origin: its header Origin; ``None``: it does not come from a page.
        """
        host = host.lower()
        if self.local and host not in self.origins and hostname(host) not in LOCAL:
            return True
        return origin is not None and netloc(origin) not in (host or None, *self.origins)

    def stop(self) -> None:
        """Send all clients an error, and close their connections."""
        for connection in list(self.connections):
            connection.end("the server has stopped: start it again", GONE)
        for worker in self.workers:
            worker.stop()


def netloc(origin: str) -> str:
    """Return host and port of an address; empty if it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as a bracket without its partner
        return ""


def hostname(host: str) -> str | None:
    """Return a header Host without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
