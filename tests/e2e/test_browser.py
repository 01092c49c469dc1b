"""Web pages of another origin that call functions, in a real browser (`make test-browser`)."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web

from tests.support.chromium import (
    HOW_TO_GET_ONE,
    Browser,
    Page,
    connected,
    find_chromium,
    running_chromium,
)
from tests.support.dev import Dev
from tests.support.socket_world import running_sockets
from tests.support.waiting import PATIENCE_S, until

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=HOW_TO_GET_ONE)

UPLOAD_BYTES = 3_000_000
CALL = """
    const call = async (url, options = {}) => {
        try {
            const response = await fetch(url, options);
            const text = await response.text();
            return {status: response.status, text, headers: Object.fromEntries(response.headers)};
        } catch (error) {
            return {blocked: error.name};
        }
    };
"""


class Site(NamedTuple):
    """A page that calls the demo function, as it is served from two origins."""

    browser: Browser
    dev: Dev
    origin: str
    other_origin: str

    async def page(self, origin: str = "") -> Page:
        """Open the page. Its scripts know the URLs of function and API, and a key."""
        page = await self.browser.open(f"{origin or self.origin}/")
        names = {"fn": self.function_url, "api": self.api_url, "key": self.dev.ready["api_key"]}
        await page.run(f"Object.assign(window, {json.dumps(names)}); {CALL} window.call = call;")
        return page

    @property
    def function_url(self) -> str:
        port = urlsplit(self.dev.ready["invocation_url"]).port
        return f"http://{self.dev.ready['function_id']}.invocation.localhost:{port}"

    @property
    def api_url(self) -> str:
        return str(self.dev.ready["api_url"])

    def set_origins(self, *origins: str) -> None:
        """Let the pages of ``origins`` read the responses of the demo function."""
        ready = self.dev.ready
        path = f"/v2/nvcf/functions/{ready['function_id']}/versions/{ready['function_version_id']}"
        response = httpx.put(
            self.api_url + path,
            headers={"authorization": f"Bearer {ready['api_key']}"},
            json={"cors": {"origins": origins}},
            timeout=PATIENCE_S,
        )
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def devtools_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert CHROMIUM is not None
    with running_chromium(CHROMIUM, tmp_path_factory.mktemp("profile")) as url:
        yield url


@asynccontextmanager
async def serving_page() -> AsyncIterator[int]:
    """Serve an empty page; yield the port."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>app</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def site(devtools_url: str, dev: Dev) -> AsyncIterator[Site]:
    async with serving_page() as port, connected(devtools_url) as browser:
        site = Site(browser, dev, f"http://127.0.0.1:{port}", f"http://other.localhost:{port}")
        yield site
        site.set_origins()


def problem(found: dict[str, Any], status: int) -> dict[str, Any]:
    assert found.get("status") == status, found
    document: dict[str, Any] = json.loads(found["text"])
    assert document["status"] == status
    return document


WITH_KEY = "headers: {authorization: `Bearer ${key}`, 'content-type': 'application/json'}"


async def test_a_page_calls_a_function_and_the_api_and_reads_every_error(site: Site) -> None:
    site.set_origins(site.origin)
    page = await site.page()
    simple = await page.run("return call(`${fn}/echo`, {method: 'POST', body: 'x'})")
    assert "credential" in problem(simple, 401)["detail"]
    echoed = await page.run(
        f"return call(`${{fn}}/echo`, {{method: 'POST', body: '{{}}', {WITH_KEY}}})"
    )
    assert (echoed["status"], echoed["text"]) == (200, "{}")
    assert echoed["headers"]["nvcf-status"] == "fulfilled"
    assert echoed["headers"]["nvcf-reqid"]
    failed = await page.run(f"return call(`${{fn}}/fail/503`, {{{WITH_KEY}}})")
    assert (failed["status"], json.loads(failed["text"])["detail"]) == (503, "Failed as asked")
    late = await page.run(
        "return call(`${fn}/slow?seconds=9`,"
        "{headers: {authorization: `Bearer ${key}`, 'nvcf-poll-seconds': '1'}})"
    )
    assert problem(late, 504)["reason"] == "poll_timeout"
    assert late["headers"]["retry-after"]
    unknown = await page.run(
        f"return call(fn.replace(/[0-9a-f-]{{36}}/, crypto.randomUUID()), {{{WITH_KEY}}})"
    )
    problem(unknown, 404)
    listed = await page.run(f"return call(`${{api}}/v2/nvcf/functions`, {{{WITH_KEY}}})")
    assert json.loads(listed["text"])["functions"]
    named = await page.run(
        "return call(`${api}/echo`, {method: 'POST', body: 'x', headers:"
        "{authorization: `Bearer ${key}`, 'function-id': fn.match(/[0-9a-f-]{36}/)[0]}})"
    )
    assert (named["status"], named["text"]) == (200, "x")


async def test_a_page_of_another_origin_reads_nothing(site: Site) -> None:
    site.set_origins(site.origin)
    page = await site.page(site.other_origin)
    for options in (f"{{{WITH_KEY}}}", "{}"):
        assert await page.run(f"return call(`${{fn}}/health`, {options})") == {
            "blocked": "TypeError"
        }


async def test_without_settings_the_container_decides_and_errors_are_readable(site: Site) -> None:
    page = await site.page()
    problem(await page.run("return call(`${fn}/health`)"), 401)
    # The preflight passes, but the demo server names no origin.
    assert await page.run(f"return call(`${{fn}}/health`, {{{WITH_KEY}}})") == {
        "blocked": "TypeError"
    }


async def test_a_page_reads_a_stream_event_by_event(site: Site) -> None:
    site.set_origins("*")
    page = await site.page()
    parts = await page.run(
        f"""
        const response = await fetch(`${{fn}}/sse?events=5&interval_ms=100`, {{{WITH_KEY}}});
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        const parts = [];
        for (;;) {{
            const {{done, value}} = await reader.read();
            if (done) return parts;
            parts.push(value);
        }}
        """
    )
    assert "".join(parts).count("data:") == 5
    assert len(parts) > 1


async def test_event_source_and_link_carry_a_token_that_nobody_else_gets(site: Site) -> None:
    site.set_origins(site.origin)
    page = await site.page()
    token = await page.run(
        f"""
        const id = fn.match(/[0-9a-f-]{{36}}/)[0];
        const response = await call(`${{api}}/v2/nvcf/tokens/functions/${{id}}`, {{
            method: 'POST', body: JSON.stringify({{clientId: 'page'}}), {WITH_KEY},
        }});
        window.token = JSON.parse(response.text).access_token;
        return window.token;
        """
    )
    events = await page.run(
        """
        const source = new EventSource(`${fn}/sse?events=3&interval_ms=20&nvcf-token=${token}`);
        return new Promise((resolve, reject) => {
            const events = [];
            source.onmessage = (event) => {
                events.push(JSON.parse(event.data).n);
                if (events.length === 3) { source.close(); resolve(events); }
            };
            source.onerror = () => { source.close(); reject(new Error('no event source')); };
        });
        """
    )
    assert events == [0, 1, 2]
    forged = await page.run("return call(`${fn}/sse?nvcf-token=${token}x`)")
    problem(forged, 401)

    link = f"{site.function_url}/reflect/x?a=1&nvcf-token={token}"
    opened = await site.browser.open(link)
    reflected = json.loads(await opened.run("return document.body.innerText"))
    assert (reflected["raw_path"], reflected["query"]) == ("/reflect/x", "a=1")
    assert token not in json.dumps(reflected)
    # What the opened page requests itself does not tell its URL.
    again = await opened.run(
        f"{CALL} return call('/reflect', {{headers: {{authorization: "
        f"'Bearer {site.dev.ready['api_key']}'}}}})"
    )
    assert token not in again["text"]
    assert token not in site.dev.program.output


async def test_a_page_uploads_a_file(site: Site) -> None:
    site.set_origins(site.origin)
    page = await site.page()
    counted = await page.run(
        f"""
        const bytes = new Uint8Array({UPLOAD_BYTES}).map((_, n) => n % 251);
        return call(`${{fn}}/count`, {{
            method: 'POST', body: new Blob([bytes]), headers: {{authorization: `Bearer ${{key}}`}},
        }});
        """
    )
    body = bytes(n % 251 for n in range(UPLOAD_BYTES))
    assert counted["status"] == 200
    expected = {"bytes": UPLOAD_BYTES, "sha256": hashlib.sha256(body).hexdigest()}
    assert json.loads(counted["text"]) == expected


SOCKET = """
    const call = (protocols, text) => new Promise((resolve) => {
        const events = [];
        const socket = new WebSocket(url, protocols);
        socket.onopen = () => { events.push(["open", socket.protocol]); socket.send(text); };
        socket.onmessage = (event) => { events.push(["message", event.data]); socket.close(4001); };
        socket.onclose = (event) => { events.push(["close", event.code]); resolve(events); };
    });
"""


async def test_a_page_opens_a_websocket_with_its_key_as_a_subprotocol(devtools_url: str) -> None:
    async with (
        running_sockets() as world,
        serving_page() as port,
        connected(devtools_url) as browser,
    ):
        await world.begin(slots=4)
        demo = world.stack.demo
        page = await browser.open(f"http://127.0.0.1:{port}/")
        url = f"{world.gateway.url.replace('http', 'ws')}/f/{demo.function_id}/ws"
        await page.run(f"Object.assign(window, {json.dumps({'url': url})})")
        key = f"nvcf-key.{demo.api_key}"
        opened = f"{SOCKET} return await call({json.dumps(['nvcf', key])}, 'hello')"
        assert await page.run(opened) == [["open", "nvcf"], ["message", "hello"], ["close", 4001]]
        world.server.protocol = "chat"
        opened = f"{SOCKET} return await call({json.dumps(['chat', key])}, 'x')"
        assert await page.run(opened) == [["open", "chat"], ["message", "x"], ["close", 4001]]
        refused = f"{SOCKET} return await call({json.dumps(['nvcf', key + 'x'])}, 'x')"
        assert await page.run(refused) == [["close", 1006]]
        await until(lambda: world.server.ends, lambda ends: ends == ["talk", "talk"])
