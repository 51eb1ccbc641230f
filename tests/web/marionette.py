"""Firefox by its own remote control: Playwright drives a Firefox of its own and not the one of Debian.

The protocol is Mozilla's Marionette, what geckodriver speaks to a browser: JSON with its length before it,
over TCP. https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html
"""

import json
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lake_testing.stack import free_ports, wait_until

START_SECONDS: Final = 90
ANSWER_SECONDS: Final = 60
ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver names an element."""


class Firefox:
    """A headless Firefox whose home and profile are in `folder`; `command` is its program."""

    def __init__(self, command: str, folder: Path, preferences: str = "") -> None:
        """`preferences` are lines of a `user.js`."""
        self._port = free_ports(1)
        profile = folder / "profile"
        profile.mkdir(exist_ok=True)
        (profile / "user.js").write_text(f'{preferences}user_pref("marionette.port", {self._port});\n')
        self._process = subprocess.Popen(
            [command, "--headless", "--marionette", "--no-remote", "--profile", str(profile)],
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "MOZ_CRASHREPORTER_DISABLE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0

    def __enter__(self) -> Self:
        connected = wait_until(self._connected, deadline_seconds=START_SECONDS, what="Firefox listens")
        assert connected is not None
        self._socket = connected
        self._socket.settimeout(ANSWER_SECONDS)
        self._stream = self._socket.makefile("rb")
        assert self._read()["marionetteProtocol"] == 3
        self.call("WebDriver:NewSession")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def call(self, command: str, **parameters: Any) -> Any:
        """Return the value that a command of WebDriver answers; AssertionError when it fails."""
        self._number += 1
        message = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, number, error, value = self._read()
        assert number == self._number
        assert error is None, f"{command}: {error['error']}: {error['message']}"
        return value.get("value") if isinstance(value, dict) else value

    def quit(self, deadline_seconds: float) -> None:
        """End it as its user would, and wait until it has ended."""
        self.call("Marionette:Quit", flags=["eAttemptQuit"])
        self._process.wait(deadline_seconds)

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("WebDriver:Navigate", url=address)

    def find(self, selector: str) -> str:
        """Return the element of a CSS selector."""
        element: str = self.call("WebDriver:FindElement", using="css selector", value=selector)[ELEMENT]
        return element

    def type(self, selector: str, text: str) -> None:
        """Type into an element."""
        self.call("WebDriver:ElementSendKeys", id=self.find(selector), text=text)

    def click(self, selector: str) -> None:
        """Click an element."""
        self.call("WebDriver:ElementClick", id=self.find(selector))

    def run(self, script: str) -> Any:
        """Return what a script of the page returns."""
        return self.call("WebDriver:ExecuteScript", script=script, args=[], sandbox=None)

    def wait_for(self, expression: str) -> None:
        """Wait until an expression of the page is true."""
        wait_until(
            lambda: self.run(f"return Boolean({expression})"),
            deadline_seconds=ANSWER_SECONDS,
            what=expression,
        )

    def _connected(self) -> socket.socket | None:
        assert self._process.poll() is None, "Firefox ended at its start"
        try:
            return socket.create_connection(("127.0.0.1", self._port))
        except ConnectionRefusedError:
            return None

    def _read(self) -> Any:
        size = b""
        while (digit := self._stream.read(1)) != b":":
            assert digit, "Firefox closed the connection"
            size += digit
        return json.loads(self._stream.read(int(size)))
