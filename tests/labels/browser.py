"""A headless Chromium, driven over a pipe by the DevTools protocol: no driver, no package, no port.

Its network is ours: every request is handed to ``answer``, so that a page is tested under its real addresses
without DNS, TLS or anything leaving the machine.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

__all__ = ["Answer", "Asked", "Browser", "chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
SECONDS = 60.0
#: Chromium reads commands from descriptor 3 and writes to 4.
_BECOME = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def chromium() -> str | None:
    """Path of a Chromium of this machine, or ``None``; ``CHROMIUM`` names another."""
    given = os.environ.get("CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request of the page."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What it gets."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Browser:
    """One page of one browser."""

    def __init__(self, program: str, profile: Path, answer: Callable[[Asked], Answer]) -> None:
        self._answer = answer
        self.console: list[str] = []
        self._number = 0
        self._lock = threading.Lock()
        self._waiting: dict[int, Queue[dict[str, Any]]] = {}
        self._network = ThreadPoolExecutor(max_workers=4)
        to_browser_read, self._to_browser = os.pipe()
        self._from_browser, from_browser_write = os.pipe()
        # Away from 3 and 4, which become the browser's.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_browser_read, from_browser_write)]
        os.close(to_browser_read)
        os.close(from_browser_write)
        command = [
            sys.executable,
            "-Ic",
            _BECOME,
            *map(str, theirs),
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            # Inside containers there is no user namespace to make a sandbox of; only our own page is opened.
            "--no-sandbox",
            "--force-color-profile=srgb",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in theirs:
            os.close(fd)
        threading.Thread(target=self._read, daemon=True).start()
        self._session: str | None = None
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")
        self.call("Fetch.enable", patterns=[{"urlPattern": "*"}])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._network.shutdown(wait=False, cancel_futures=True)
        os.close(self._to_browser)

    # -- the protocol -------------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and return its result."""
        answer = self._send(method, params).get(timeout=SECONDS)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _send(self, method: str, params: Mapping[str, Any]) -> Queue[dict[str, Any]]:
        place: Queue[dict[str, Any]] = Queue()
        with self._lock:
            self._number += 1
            self._waiting[self._number] = place
            message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
            if self._session is not None:
                message["sessionId"] = self._session
            data = json.dumps(message).encode() + b"\0"
            while data:
                data = data[os.write(self._to_browser, data) :]
        return place

    def _read(self) -> None:
        with os.fdopen(self._from_browser, "rb") as stream:
            rest = b""
            while chunk := stream.read1(65_536):
                *messages, rest = (rest + chunk).split(b"\0")
                for message in messages:
                    self._hear(json.loads(message))

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._waiting.pop(message["id"]).put(message)
            return
        method, params = message["method"], message.get("params", {})
        if method == "Fetch.requestPaused":
            self._network.submit(self._fulfil, params)
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(params["entry"]["text"])

    def _fulfil(self, paused: dict[str, Any]) -> None:
        request = paused["request"]
        body = request.get("postData")
        answer = self._answer(
            Asked(
                method=request["method"],
                url=request["url"],
                headers={k.lower(): v for k, v in request["headers"].items()},
                body=None if body is None else body.encode(),
            )
        )
        self._send(
            "Fetch.fulfillRequest",
            {
                "requestId": paused["requestId"],
                "responseCode": answer.status,
                "responseHeaders": [{"name": k, "value": v} for k, v in answer.headers.items()],
                "body": base64.b64encode(answer.body).decode(),
            },
        )

    # -- what a person does -------------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Value of an expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = SECONDS) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self.run(script)
            except (RuntimeError, Empty):  # the page is being left
                found = None
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"did not become true: {script}; the page says {self.text()!r}; console: {self.console}"
                )
            time.sleep(0.05)

    def text(self) -> str:
        """What is to be read on the page."""
        return str(self.run("document.body.innerText"))

    def key(self, key: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def click(self, selector: str) -> None:
        """Click the middle of an element, as a mouse does: what covers it is clicked instead."""
        box = self.wait(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            "e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
            "return b.width ? [b.x + b.width / 2, b.y + b.height / 2] : null; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Write into a field."""
        self.wait(f"document.querySelector({json.dumps(selector)}) !== null")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def look(self, *, width: int, height: int, scheme: str, touch: bool = False) -> None:
        """Set window and colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self) -> bytes:
        """A PNG of what the window shows."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
