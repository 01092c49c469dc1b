"""A plain reverse proxy with aiohttp's server and client, tuned.

uvloop, one unlimited keep-alive pool, no timeouts, no access log, bodies streamed both ways.
Forwarding small bodies in one piece was measured and made no difference.
"""

import argparse
import asyncio
import socket

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

_HOP_BY_HOP = (
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)


def _forwardable(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    kept = headers.copy()
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


class ReverseProxy:
    """Forwards every request to one upstream."""

    def __init__(self, session: ClientSession, upstream: str) -> None:
        self._session = session
        self._upstream = upstream

    async def forward(self, request: web.Request) -> web.StreamResponse:
        headers = _forwardable(request.headers)
        body = request.content if request.can_read_body else None
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as upstream:
            response = web.StreamResponse(
                status=upstream.status, headers=_forwardable(upstream.headers)
            )
            await response.prepare(request)
            async for data in upstream.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response


async def _serve(port: int, upstream: str) -> None:
    async with ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=75),
        timeout=ClientTimeout(total=None),
        auto_decompress=False,
    ) as session:
        app = web.Application(client_max_size=2**40)
        app.router.add_route("*", "/{path:.*}", ReverseProxy(session, upstream).forward)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", port), backlog=4096)
        await web.SockSite(runner, listening, backlog=4096).start()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain aiohttp reverse proxy.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="http://host:port")
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.port, arguments.upstream))


if __name__ == "__main__":
    main()
