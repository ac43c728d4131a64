"""A real Chromium, driven over its own protocol: two pipes, no other package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab. Everything that it logs, and every address that it asks for, is kept."""

    def __init__(self, write_to: int, read_from: int) -> None:
        self._out, self._in = os.fdopen(write_to, "wb", 0), os.fdopen(read_from, "rb", 0)
        self._number, self._rest, self._session = 0, b"", None
        self.messages: list[str] = []
        self.requests: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: object) -> dict:
        """Send a command, and wait for what it returns."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            data = self._in.read(1 << 16)
            if not data:
                raise EOFError("the browser has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        match message.get("method"), message.get("params", {}):
            case "Network.requestWillBeSent", what:
                self.requests.append(what["request"]["url"])
            case "Log.entryAdded", what:
                self.messages.append(what["entry"]["text"])
            case "Runtime.consoleAPICalled", what:
                self.messages += [str(x.get("value")) for x in what["args"]]
            case "Runtime.exceptionThrown", what:
                self.messages.append(str(what["exceptionDetails"]))
            case "Page.javascriptDialogOpening", what:
                self.messages.append(f"dialog: {what['message']}")
        return message

    def run(self, script: str, frame: str | None = None) -> object:
        """The value of an expression in the page, or in a frame whose address has `frame`."""
        where = {} if frame is None else {"contextId": self._world(frame)}
        result = self(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, **where
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def _world(self, address: str) -> int:
        tree = self("Page.getFrameTree")["frameTree"]
        frames = [tree["frame"], *(x["frame"] for x in tree.get("childFrames", []))]
        (frame,) = [x["id"] for x in frames if address in x["url"]]
        return self("Page.createIsolatedWorld", frameId=frame)["executionContextId"]

    def wait(self, script: str, frame: str | None = None, seconds: float = 60) -> object:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if value := self.run(script, frame):
                    return value
            except (RuntimeError, ValueError):  # the frame is not there yet
                pass
            time.sleep(0.2)
        raise TimeoutError(f"{script}: {self.run('document.body.innerText')!r}\n{self.messages}")

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        self.resize(width, height)
        self("Page.navigate", url=address)
        self.wait("document.readyState == 'complete'")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)

    def choose_file(self, selector: str, path: Path) -> None:
        """As if a person had chosen it in the file dialog of an input."""
        found = self("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        files = [str(path)]
        self("DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=files)

    def click_at(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def downloads_to(self, folder: Path) -> None:
        self("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self, path: Path, **options: object) -> Path:
        data = self("Page.captureScreenshot", captureBeyondViewport=False, **options)["data"]
        path.write_bytes(base64.b64decode(data))
        return path


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start it, with its files in `profile`; it reaches nothing but this machine."""
    (in_theirs, out_ours), (in_ours, out_theirs) = os.pipe(), os.pipe()
    # it reads from 3 and writes to 4, which these must not be
    theirs = [fcntl.fcntl(x, fcntl.F_DUPFD, 10) for x in (in_theirs, out_theirs)]
    flags = "--headless=new --no-sandbox --disable-gpu --mute-audio --hide-scrollbars"
    command = f"exec {CHROMIUM} {flags} --disable-dev-shm-usage --no-first-run"
    command += " --disable-background-networking --autoplay-policy=no-user-gesture-required"
    command += " --disable-features=IsolateSandboxedIframes"  # frames would be targets of their own
    command += f" --user-data-dir='{profile}' --remote-debugging-pipe 3<&{theirs[0]} 4>&{theirs[1]}"
    process = subprocess.Popen(["bash", "-c", command], pass_fds=theirs, stderr=subprocess.DEVNULL)
    for number in (in_theirs, out_theirs, *theirs):
        os.close(number)
    try:
        yield Browser(out_ours, in_ours)
    finally:
        process.terminate()
        process.wait()
