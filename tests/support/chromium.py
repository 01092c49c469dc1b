"""A headless Chromium that runs JavaScript in pages, over the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.programs import Program
from tests.support.waiting import PATIENCE_S, until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW_TO_GET_ONE = (
    "there is no Chromium: install one (Debian, Ubuntu: apt install chromium; macOS: brew install "
    "--cask chromium), or set CHROMIUM to the path of one"
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_LISTENING = "DevTools listening on "
_START_S = 3 * PATIENCE_S


def find_chromium() -> str | None:
    """Return the path of a Chromium, `None` if this machine has none."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab."""

    def __init__(self, browser: "Browser", session_id: str) -> None:
        self._browser = browser
        self._session_id = session_id

    async def run(self, script: str) -> Any:
        """Run the body of an async function in the page; return what it returns.

        Raises `AssertionError` if it throws.
        """
        found = await self._browser.call(
            "Runtime.evaluate",
            self._session_id,
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", details).get("description", details))
        return found["result"].get("value")


class Browser:
    """The connection to a running Chromium. One call at a time."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, session_id: str = "", **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session_id:
            message["sessionId"] = session_id
        await self._socket.send_json(message)
        while True:
            found = await self._socket.receive_json(timeout=PATIENCE_S)
            if found.get("id") == number:
                assert "error" not in found, found
                result: dict[str, Any] = found["result"]
                return result

    async def open(self, url: str, headers: Mapping[str, str] | None = None) -> Page:
        """Open a page in a new tab and wait until it is loaded.

        ``headers`` are sent with all that it requests, as an extension of a browser would do.
        """
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        session_id = attached["sessionId"]
        page = Page(self, session_id)
        if headers is not None:
            await self.call("Network.enable", session_id)
            await self.call("Network.setExtraHTTPHeaders", session_id, headers=dict(headers))
        await self.call("Page.navigate", session_id, url=url)
        await until(
            lambda: page.run("return [location.href, document.readyState]"),
            lambda found: found[0] != "about:blank" and found[1] == "complete",
            what=f"{url} in the browser",
        )
        return page


@contextmanager
def running_chromium(path: str, folder: Path) -> Iterator[str]:
    """Run a Chromium with a new profile in ``folder``; yield the URL of its DevTools."""
    program = Program([path, *_FLAGS, f"--user-data-dir={folder}", "about:blank"])
    try:
        line = program.wait_line(lambda text: _LISTENING in text, _START_S)
        found = re.search(r"ws://\S+", line)
        assert found is not None, line
        yield found[0]
    finally:
        program.stop()


@asynccontextmanager
async def connected(devtools_url: str) -> AsyncIterator[Browser]:
    """Connect to a running Chromium while the block runs."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(devtools_url, max_msg_size=0) as socket,
    ):
        yield Browser(socket)
