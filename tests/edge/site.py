"""A static server for the page, which can be stopped: the page must then work without it."""

import os
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

from tests.chromium import Loop

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(os.environ.get("NODE_MODULES", ROOT / "node_modules"))


class Site:
    """A folder, served in the thread of a loop."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop, self.folder = loop, folder
        self.loop.run(self._start())

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://localhost:{self.port}/"

    def stop(self) -> None:
        """Answer no more requests."""
        self.loop.run(self._stop())

    async def _start(self) -> None:
        sockets = bind_sockets(0, "localhost")[:1]
        self.port = sockets[0].getsockname()[1]
        rules = [(r"/(.*)", StaticFileHandler, {"path": str(self.folder), "default_filename": "index.html"})]
        self.server = HTTPServer(Application(rules))
        self.server.add_sockets(sockets)

    async def _stop(self) -> None:
        self.server.stop()
        await self.server.close_all_connections()
