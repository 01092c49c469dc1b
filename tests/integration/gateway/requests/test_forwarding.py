"""A process looks for the one that holds a call."""

import orjson
import pytest

from gateway.requests.forwarding import Forwarder
from gateway.requests.holders import Holders
from gateway.requests.regions import Regions
from http1.stream import IGNORED, Request, RequestStream
from queueing.interface import NoResponder, QueueUnavailable
from tests.support.detached import NoBus, make_book
from tests.support.raw_server import OK, Peer, RawServer
from tests.support.recorder import RecordedResponseWriter, Script
from tests.support.waiting import until


class AskedBus(NoBus):
    """Replies in the order of ``replies``."""

    def __init__(self, *replies: bytes | QueueUnavailable) -> None:
        self.replies = list(replies)

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> bytes:
        reply = self.replies.pop(0)
        if isinstance(reply, QueueUnavailable):
            raise reply
        return reply


class World:
    """A process that forwards one request."""

    def __init__(self, *replies: bytes | QueueUnavailable) -> None:
        self.bus = AskedBus(*replies)
        self.client = RecordedResponseWriter(Script(), "client")
        self.served: list[str] = []
        self.holders = Holders(self.bus, None, Regions(self.bus, "eu", ()), 7)  # type: ignore[arg-type]
        Forwarder(self.holders, make_book()).serve(
            Request(b"GET", b"/v2/requests/x", b"", [], 0, 0.0),
            self.client,
            8,
            5.0,
            lambda: self._serve("gone"),
            lambda: self._serve("silent"),
        )

    def _serve(self, what: str) -> RequestStream:
        self.served.append(what)
        return IGNORED


GONE, SILENT = NoResponder(), QueueUnavailable()


@pytest.mark.parametrize(
    ("replies", "served"),
    [((GONE,), "gone"), ((SILENT, SILENT), "silent"), ((SILENT, GONE), "gone")],
)
async def test_a_holder_that_does_not_respond_is_not_gone(
    replies: tuple[QueueUnavailable, ...], served: str
) -> None:
    world = World(*replies)
    await until(lambda: world.served == [served])
    assert world.bus.replies == []
    world.holders.close()


async def test_a_holder_that_closes_a_connection_is_asked_where_it_is() -> None:
    async def close(peer: Peer) -> None:
        await peer.head()

    async def respond(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.closed()

    servers = [RawServer(close), RawServer(respond)]
    for server in servers:
        await server.start()
    addresses = [
        orjson.dumps([f"http://127.0.0.1:{server.port}", f"secret {server.port}"])
        for server in servers
    ]
    world = World(*addresses)
    await until(lambda: world.client.over)
    assert world.client.sent == b"{}"
    assert world.served == []
    world.holders.close()
    world = World(addresses[0], GONE)
    await until(lambda: world.served == ["gone"])
    world.holders.close()
    for server in servers:
        server.stop()
