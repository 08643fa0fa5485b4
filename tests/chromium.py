"""Drive a headless Chromium by its DevTools protocol, over tornado's client: no other package is needed."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--use-fake-device-for-media-stream", "--remote-debugging-port=0"),
]
SECONDS = 60.0  # how long a slow machine may take for one step
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}


class Loop:
    """An event loop in a thread of its own, for the server and for the connection to the browser."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class Chromium:
    """A browser whose microphone plays a wav file; ``%noloop`` after its name plays it once."""

    def __init__(self, loop: Loop, microphone: str) -> None:
        self.loop, self.answers, self.number = loop, {}, 0
        self.pages: dict[str, Page] = {}
        self.folder = Path(tempfile.mkdtemp())
        flags = [*FLAGS, f"--user-data-dir={self.folder}", f"--use-file-for-fake-audio-capture={microphone}"]
        self.process = subprocess.Popen([str(BINARY), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.socket = loop.run(self._connect())

    def close(self) -> None:
        """End the browser, and remove its files."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def open(self, address: str, width: int = 1100, height: int = 760, dark: bool = False) -> "Page":
        """Open a page in a new profile that allows the microphone."""
        profile = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=profile)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, profile)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height, dark)
        page.allow(address, "microphone")
        page.call("Page.navigate", url=address)
        page.wait("document.readyState === 'complete' && location.protocol !== 'about:'")
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Call a method of the protocol."""
        return self.loop.run(self._call(method, session, parameters))

    async def _call(self, method: str, session: str | None, parameters: dict[str, Any]) -> Any:
        self.number += 1
        answer = self.answers[self.number] = asyncio.get_running_loop().create_future()
        message = {"id": self.number, "method": method, "params": parameters}
        await self.socket.write_message(json.dumps(message | ({"sessionId": session} if session else {})))
        return await answer

    async def _connect(self) -> Any:
        file, late = self.folder / "DevToolsActivePort", time.monotonic() + SECONDS
        while not (file.exists() and file.read_text().count("\n")):
            assert self.process.poll() is None, "Chromium has ended"
            assert time.monotonic() < late, "Chromium does not start"
            await asyncio.sleep(0.05)
        port, path = file.read_text().split()
        return await websocket_connect(f"ws://127.0.0.1:{port}{path}", on_message_callback=self._receive)

    def _receive(self, text: str | bytes | None) -> None:
        message = json.loads(text or "{}")
        if answer := self.answers.pop(message.get("id"), None):
            if "error" in message:
                answer.set_exception(AssertionError(message["error"]))
            else:
                answer.set_result(message["result"])
        elif page := self.pages.get(message.get("sessionId", "")):
            page.receive(message["method"], message["params"])


class Page:
    """A page of the browser.

    Attributes:
        exceptions: those that its script did not catch.
        problems: errors of its console, among them what its content security policy refused.
        requests: addresses that it asked for.
    """

    def __init__(self, browser: Chromium, session: str, profile: str) -> None:
        self.browser, self.session, self.profile = browser, session, profile
        self.exceptions: list[str] = []
        self.problems: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol on this page."""
        return self.browser.call(method, self.session, **parameters)

    def receive(self, method: str, parameters: dict[str, Any]) -> None:
        """Keep an event that tests look at."""
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.exceptions.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def resize(self, width: int, height: int, dark: bool = False, scale: float = 1) -> None:
        """Set the size in CSS pixels, light or dark, and how many pixels of a picture each of them has."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript; a promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = SECONDS) -> Any:
        """Return the value of an expression once it is true."""
        late = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert not self.exceptions, self.exceptions
            if time.monotonic() > late:
                raise AssertionError(f"not within {seconds} s: {expression}\n{self.value('document.body.innerText')}")
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Click with the mouse in the middle of an element."""
        self.value(f"document.querySelector('{selector}').scrollIntoView({{block: 'nearest'}})")
        box = f"document.querySelector('{selector}').getBoundingClientRect()"
        x, y = self.value(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key of ``KEYS``."""
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind, more in (("keyDown", text), ("keyUp", {})):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key], **more)

    def give(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def allow(self, origin: str, permission: str, setting: str = "granted") -> None:
        """Answer a permission prompt in advance."""
        where = {"browserContextId": self.profile, "origin": origin}
        self.browser.call("Browser.setPermission", permission={"name": permission}, setting=setting, **where)

    def download(self, selector: str, folder: Path) -> Path:
        """Click on what saves a file, and return the file."""
        folder.mkdir(parents=True, exist_ok=True)
        place = {"behavior": "allow", "downloadPath": str(folder), "browserContextId": self.profile}
        self.browser.call("Browser.setDownloadBehavior", **place)
        before, late = set(folder.iterdir()), time.monotonic() + SECONDS
        self.click(selector)
        while not (new := {file for file in folder.iterdir() if file.suffix != ".crdownload"} - before):
            assert time.monotonic() < late, "nothing was saved"
            time.sleep(0.05)
        return new.pop()

    def screenshot(self, path: Path) -> None:
        """Write what is visible to a png file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """Close the page, without the question about what was not saved."""
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.profile)
