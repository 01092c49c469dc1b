"""Peers whose machine vanishes: their cable is cut, so that neither FIN nor reset arrives."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from http1.client.pool import Pool
from http1.server.limits import ServerLimits
from http1.server.listener import bind_sockets, listen
from http1.stream import (
    Defect,
    Failure,
    NullRequestStream,
    NullResponseStream,
    Request,
    ResponseWriter,
)
from runtime.lifecycle import Ticker
from tests.support.network import Link, Machine, Network, why_not_permitted
from tests.support.programs import Program
from tests.support.waiting import until, until_unchanged

pytestmark = pytest.mark.skipif(bool(why_not_permitted()), reason=why_not_permitted() or "-")

VANISHED_S = 1.0
EVENT = b"event\n"
MUCH = bytes(8 << 20)

_CLIENTS = """
import socket, sys
def call(path):
    opened = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    opened.sendall(b"GET /%s HTTP/1.1\\r\\nhost: h\\r\\n\\r\\n" % path)
    return opened
waits, much, events = call(b"waits"), call(b"much"), call(b"events")
print("ready", flush=True)
while events.recv(65536):
    pass
"""
_SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 9000)) as listening:
    print("ready", flush=True)
    kept = [listening.accept() for _ in range(2)]
    while kept[0][0].recv(65536):
        pass
"""


@dataclass
class Address:
    host: str
    port: int = 0
    path: str = ""


class Exchange(NullRequestStream):
    """A request's stream; ``broken_at`` is the time of `request_broken`."""

    def __init__(self, request: Request, writer: ResponseWriter) -> None:
        self.path = request.target
        self.writer = writer
        self.is_slow = False
        self.broken_at = 0.0
        if self.path != b"/waits":
            writer.send_head(200, [], None)
        if self.path == b"/much":
            writer.send_data(MUCH)

    def pause_writing(self) -> None:
        self.is_slow = True

    def request_broken(self) -> None:
        self.broken_at = time.monotonic()

    def send(self) -> None:
        if not self.broken_at:
            self.writer.send_data(EVENT)


class Response(NullResponseStream):
    """A response that never comes; ``broken_at`` is the time of `response_broken`."""

    broken_at = 0.0

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        assert failure is Failure.RESET
        assert not is_stale
        self.broken_at = time.monotonic()


class Site:
    """A network with this machine, at ``address``, and another one."""

    def __init__(self, network: Network, machine: Machine) -> None:
        self.machine = machine
        self.address = network.join_here()
        self.link: Link = machine.join(network)

    def run(self, program: str, *arguments: str) -> Program:
        running = Program([*self.machine.prefix, sys.executable, "-c", program, *arguments])
        running.wait_line(lambda line: line == "ready\n")
        return running


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with Network() as network, Machine() as machine:
        yield Site(network, machine)


async def test_clients_that_vanish_are_noticed_and_one_that_reads_nothing_is_not(
    site: Site,
) -> None:
    found: dict[bytes, Exchange] = {}

    def dispatch(request: Request, writer: ResponseWriter) -> Exchange:
        return found.setdefault(request.target, Exchange(request, writer))

    sockets = bind_sockets([Address(site.address)])
    listener = await listen(sockets, dispatch, ServerLimits(vanished_s=VANISHED_S))
    port = listener.addresses[0].rpartition(":")[2]
    clients = await asyncio.to_thread(site.run, _CLIENTS, site.address, port)
    try:
        await until(lambda: len(found) == 3 and found[b"/much"].is_slow, what="three requests")
        await until_unchanged(
            lambda: [one.broken_at for one in found.values()], for_s=4 * VANISHED_S
        )
        assert [one.path for one in found.values() if one.broken_at] == []
        await asyncio.to_thread(site.link.cut)
        began = time.monotonic()
        events = Ticker(0.05, found[b"/events"].send)
        events.start()
        await until(
            lambda: {one.path.decode(): one.broken_at - began for one in found.values()},
            lambda took_s: min(took_s.values()) > 0,
            what="the end of all three",
        )
        events.stop()
        assert found[b"/events"].broken_at - began > VANISHED_S
    finally:
        listener.abort_all()
        clients.stop(9)


async def test_a_server_that_vanishes_is_noticed(site: Site) -> None:
    server = await asyncio.to_thread(site.run, _SERVER, site.link.address)
    loop = asyncio.get_running_loop()
    pool = Pool(
        lambda factory: loop.create_connection(factory, site.link.address, 9000),
        idle_s=60,
        max_idle=2,
        connect_timeout_s=5,
        vanished_s=VANISHED_S,
    )
    sweeps = Ticker(0.1, pool.sweep)
    try:
        uploads, waits = await pool.connect(), await pool.connect()
        sweeps.start()
        head = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        responses = [Response(), Response()]
        uploads.start(responses[0], head, b"", is_chunked=True, is_complete=False)
        waits.start(responses[1], b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", b"")
        uploads.send_data(EVENT)
        await until_unchanged(lambda: [one.broken_at for one in responses], for_s=2 * VANISHED_S)
        assert [one.broken_at for one in responses] == [0.0, 0.0]
        await asyncio.to_thread(site.link.cut)
        uploads.send_data(EVENT)
        await until(lambda: all(one.broken_at for one in responses), what="the end of both")
    finally:
        sweeps.stop()
        pool.close()
        server.stop(9)
