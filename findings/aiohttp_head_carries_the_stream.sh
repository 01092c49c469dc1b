#!/usr/bin/env bash
# aiohttp: a HEAD of a streaming route is answered with the stream, which aiohttp's client rejects.
#
# Versions   aiohttp 3.14.5, Python 3.11.
# Set-up     Two routes added with add_get, which by default adds HEAD with the same handler. One
#            handler returns web.Response(text=...), the other one streams three events as the
#            documentation shows: web.StreamResponse, prepare, write, write_eof.
# Input      HEAD of each, on a connection of its own: first a plain socket, then aiohttp's client.
# Expected   Both responses end with their heads: aiohttp knows that a response to HEAD has no body,
#            and therefore sends no Transfer-Encoding with either.
# Seen       web.Response: so. web.StreamResponse: the three events follow the head, not even in
#            chunks, and the connection is kept. aiohttp's own client, when the events arrive with
#            the head, raises ClientResponseError 400 "Bad status line" instead of returning the
#            response; it did in five HEADs of five, in each of four runs.
# Known      Fixed for web.Response (aio-libs/aiohttp issue 820, PR 838) and for static files (issue
#            4809). Of web.StreamResponse we found no report. In the review of PR 1668, which added
#            HEAD to add_get, a maintainer says that handlers need to support it explicitly; the
#            documentation of add_get does not.
# So         A handler that streams asks for request.method before it writes, or its route is added
#            with allow_head=False. Whoever calls such a server reads a response to HEAD up to the
#            head, and does not use the connection again if more came.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 15 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check aiohttp==3.14.5
cat > "$work/probe.py" <<'PY'
import asyncio
import sys

import aiohttp
from aiohttp import web

HEADS = 5
EVENTS = b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


async def whole(request: web.Request) -> web.Response:
    return web.Response(text="whole")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for number in range(3):
        await response.write(b"data: %d\n\n" % number)
    await response.write_eof()
    return response


async def head(port: int, path: str) -> tuple[bytes, bytes, bool]:
    """Return the head, what follows it, and whether the connection answers another request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = f"{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    writer.write(f"HEAD {lines}".encode())
    first = await reader.readuntil(b"\r\n\r\n")
    more = b""
    try:
        async with asyncio.timeout(1):
            while data := await reader.read(65536):
                more += data
    except TimeoutError:
        pass
    writer.write(f"HEAD {lines}".encode())
    is_kept = (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    return first, more, is_kept


async def head_by_client(port: int, path: str) -> str:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.head(f"http://127.0.0.1:{port}{path}") as response:
                return str(response.status)
        except aiohttp.ClientResponseError as error:
            return f"{error.status} {error.message.splitlines()[0]}"


async def main() -> int:
    application = web.Application()
    application.router.add_get("/whole", whole)
    application.router.add_get("/stream", stream)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    print(f"aiohttp {aiohttp.__version__}")
    seen = {}
    for path in ("/whole", "/stream"):
        first, more, is_kept = await head(port, path)
        results = [await head_by_client(port, path) for _ in range(HEADS)]
        is_chunked = b"transfer-encoding" in first.lower()
        seen[path] = more, is_chunked, is_kept, set(results)
        print(f"{path}: after the head {more!r}, chunked {is_chunked}, kept {is_kept}")
        print(f"{path}: HEAD by aiohttp's client: {results}")
    await runner.cleanup()
    expected = {
        "/whole": (b"", False, True, {"200"}),
        "/stream": (EVENTS, False, True, {"400 Bad status line:"}),
    }
    return 0 if seen == expected else 1


sys.exit(asyncio.run(main()))
PY
"$work/venv/bin/python" "$work/probe.py"
