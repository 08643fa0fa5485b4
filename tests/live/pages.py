"""The page in a browser: what tests do and see there, and a server that can be killed."""

import os
from pathlib import Path

from tornado.netutil import bind_sockets

from mla_fairseq.live.model import Model
from mla_fairseq.live.server import serve
from mla_fairseq.live.service import Service
from tests.chromium import Chromium, Loop, Page

SCREENSHOTS = os.environ.get("LIVE_SCREENSHOTS")
SIZES = {"": (1100, 760, False), "_dark": (1100, 760, True), "_360": (360, 700, False)}  # the last: dark
LINES = "[...document.querySelectorAll('.words')].map(e => e.textContent)"
NOTICE = "document.querySelector('#notice-text').textContent"
STATE = "document.querySelector('#state').textContent"


class Live:
    """A server in the thread of a loop, under an address that stays the same."""

    def __init__(self, loop: Loop, model: Model, places: int = 8) -> None:
        self.loop, self.model, self.places, self.port = loop, model, places, 0
        self.start()

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://localhost:{self.port}/"

    def start(self) -> None:
        """Start the server."""
        self.loop.run(self._start())

    def kill(self) -> None:
        """Drop every connection without a word, as the end of a process does."""
        self.loop.run(self._kill())

    async def _start(self) -> None:
        self.service = Service(self.model, self.places)
        sockets = bind_sockets(self.port, "localhost")[:1]
        self.port = sockets[0].getsockname()[1]
        self.http = serve(self.service, sockets)

    async def _kill(self) -> None:
        self.http.stop()
        for connection in list(self.service.connections):
            if connection.ws_connection and connection.ws_connection.stream:
                connection.ws_connection.stream.close()
        await self.http.close_all_connections()
        for worker in self.service.workers:
            worker.stop()


def ready(browser: Chromium, address: str) -> Page:
    """Open the page, and wait until it can start."""
    page = browser.open(address)
    is_state(page, "Ready")
    return page


def is_state(page: Page, state: str) -> None:
    """Wait until the page is in a state."""
    page.wait(f"{STATE} === '{state}'")


def button(page: Page, text: str) -> None:
    """Click the button with that text."""
    shown = f"[...document.querySelectorAll('button')].find(e => e.textContent === '{text}' && e.checkVisibility())"
    page.click(f"#{page.wait(f'{shown}?.id')}")


def start(page: Page, lines: int = 1) -> None:
    """Start, and wait for the first word of a line."""
    button(page, "Start")
    page.wait(f"{LINES}.length >= {lines}")


def shoot(page: Page, name: str) -> None:
    """Check that a state fits into 360 px, and keep pictures of it where ``LIVE_SCREENSHOTS`` names a folder."""
    for style, size in SIZES.items():
        page.resize(*size)
        assert page.value("document.documentElement.scrollWidth") <= size[0], f"{name} is too wide"
        if SCREENSHOTS:
            page.screenshot(Path(SCREENSHOTS) / f"{name}{style}.png")
    page.resize(*SIZES[""])
