"""Chromium without a window, driven over a pipe in the DevTools protocol: what a page does for a reader."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60  # seconds until an answer


class Browser:
    """A process of its own, which asks the network for nothing. Use it in a `with` block."""

    def __init__(self, folder: Path):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-extensions", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
                 f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
        reads, self.writes = os.pipe()
        self.reads, writes = os.pipe()
        shell = f'exec "$0" "$@" 3<&{reads} 4>&{writes}'  # the two that Chromium expects
        self.process = subprocess.Popen(["bash", "-c", shell, CHROMIUM, *flags], pass_fds=(reads, writes),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        os.close(reads)
        os.close(writes)
        self.number, self.unread, self.events = 0, b"", []

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")  # ends its children, too
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        os.close(self.reads)
        os.close(self.writes)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """A command's result; events that come before it are kept. AssertionError where it fails or takes too long."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.reads], [], [], max(0, until - time.monotonic()))
            assert ready, f"Chromium has not answered for {PATIENCE} s"
            self.unread += (read := os.read(self.reads, 2**20))
            assert read, "Chromium has ended"
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int = 1280, height: int = 900, **media: str) -> "Tab":
        """A file in a new tab, when all of it is there; `media` are features, as prefers_color_scheme="dark"."""
        tab = Tab(self, self.call("Target.createTarget", url="about:blank")["targetId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.emulate(**media)
        tab.call("Page.navigate", url=path.resolve().as_uri())
        tab.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")
        return tab


class Tab:
    def __init__(self, browser: Browser, target: str):
        self.browser, self.target = browser, target
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, awaited where it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return when an expression in the page is true. AssertionError where it never is."""
        until = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < until, f"{condition} has not come true in {PATIENCE} s"
            time.sleep(0.05)

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def emulate(self, media: str = "", **features: str) -> None:
        pairs = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=media, features=pairs)

    def click(self, x: float, y: float, *, count: int = 1) -> None:
        self.hover(x, y)
        for number in range(1, count + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self._mouse(kind, x, y, button="left", clickCount=number)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._mouse("mousePressed", *start, button="left", clickCount=1)
        for share in (0.5, 1):
            self._mouse("mouseMoved", *(a + share * (b - a) for a, b in zip(start, end, strict=True)), buttons=1)
        self._mouse("mouseReleased", *end, button="left", clickCount=1)

    def hover(self, x: float, y: float) -> None:
        self._mouse("mouseMoved", x, y)

    def _mouse(self, kind: str, x: float, y: float, **how: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **how)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def complaints(self) -> list[str]:
        """What the console shows as an error or a warning, and scripts that failed."""
        self.evaluate("new Promise(requestAnimationFrame)")
        found = []
        for event in self._events():
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Every address asked for."""
        return [event["params"]["request"]["url"] for event in self._events()
                if event["method"] == "Network.requestWillBeSent"]

    def _events(self) -> list[dict[str, Any]]:
        return [event for event in self.browser.events if event.get("sessionId") == self.session]
