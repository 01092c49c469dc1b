"""Either end of many channels, idle: gateway processes without calls, agents without jobs.

A gateway process listens for channels on one port. A process of agents opens one channel of each
of its agents to each of the ports, and writes `OPENED` once all are open. Both run until SIGTERM.
"""

import argparse
import asyncio
import gc
import os
import time

import uvloop

from gateway.attach.channels import WorkerChannels
from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.endpoints import AttachDispatcher
from gateway.requests.forwarding import ForwardedRequests
from gateway.telemetry.health import ProcessHealth
from http1.framed import FramedConnection
from http1.server.limits import ServerLimits
from http1.server.listener import bind_sockets, listen
from runtime.lifecycle import Ticker
from runtime.settings import Address
from wire.channel import CallFrame, channel_token
from wire.decoded_envelope import Envelope, decode_call_head
from wire.ids import uuid4_text
from worker_agent.attach.channel import AgentChannel
from worker_agent.attach.channels import AgentChannels
from worker_agent.attach.gateways import connector

OPENED = "all channels are open"
TICK_S = 0.1
SWEEP_S = 1.0
_AT_ONCE = 4
_LOOK_S = 0.01
_SECRET = b"channels of a benchmark"
_VERSION = "11111111-1111-4111-8111-111111111111"


async def accept_channels(port: int) -> list[Ticker]:
    """Listen for channels as a gateway process does, and do with them what it does."""
    loop = asyncio.get_running_loop()
    attach = AttachEndpoint(time.monotonic)
    attach.channels = WorkerChannels(
        attach.live,
        _NoQueue(),
        time.monotonic,
        _SECRET,
        lambda: uuid4_text(os.urandom(16)),
        lambda user: FramedConnection(user, loop),
    )
    sockets = bind_sockets([Address(host="127.0.0.1", port=port)])
    dispatch = AttachDispatcher(attach, ProcessHealth(), ForwardedRequests(_SECRET))
    await listen(sockets, dispatch, ServerLimits())
    ticker = Ticker(TICK_S, attach.channels.tick)
    ticker.start()
    return [ticker]


class _NoQueue:
    """No request waits in a queue."""

    def leased(self, request_id: str) -> None:
        """Nothing was leased."""


class _Idle:
    """An agent with free slots and no calls; the owner of its channels."""

    def offered(self) -> int:
        """Return the free slots."""
        return 4

    def on_call(self, channel: AgentChannel, number: int, call: CallFrame) -> None:
        """There are no calls."""

    def on_cancel(self, request_id: str) -> None:
        """There are no calls."""

    def given_up(self, request_ids: list[str]) -> None:
        """There are no calls."""


async def open_channels(agent: int, ports: list[int]) -> Ticker:
    """Open an agent's channels, and look after them as it does; return once they are open."""
    loop = asyncio.get_running_loop()
    channels = AgentChannels(
        _VERSION,
        f"agent-{agent}",
        lambda uri, factory: connector(uri, loop)(factory),
        connect_timeout_s=30.0,
        vanished_s=45.0,
    )
    channels.start(_Idle())
    for port in ports:
        request_id = uuid4_text(os.urandom(16))
        token = channel_token(_SECRET, request_id, _VERSION)
        head = decode_call_head(b"")
        uri = b"http://127.0.0.1:%d" % port
        channels.hear_of(Envelope(head, request_id, 0, b"", uri, "", None, channel_token=token))
    while len(channels) < len(ports):  # noqa: ASYNC110 - nobody else needs to hear of it
        await asyncio.sleep(_LOOK_S)
    ticker = Ticker(SWEEP_S, channels.sweep)
    ticker.start()
    return ticker


async def _gateway(port: int) -> None:
    tickers = await accept_channels(port)
    await asyncio.Event().wait()
    del tickers


async def _agents(agents: int, ports: list[int]) -> None:
    tickers = []
    for first in range(0, agents, _AT_ONCE):
        some = range(first, min(first + _AT_ONCE, agents))
        tickers += await asyncio.gather(*(open_channels(agent, ports) for agent in some))
    gc.collect()
    print(OPENED, flush=True)
    await asyncio.Event().wait()
    del tickers


def main() -> None:
    parser = argparse.ArgumentParser(description="Either end of many idle channels.")
    parser.add_argument("--port", type=int, help="be a gateway process that listens here")
    parser.add_argument("--agents", type=int, default=0, help="be as many agents")
    parser.add_argument("--to", type=int, action="append", default=[], metavar="PORT")
    arguments = parser.parse_args()
    if arguments.port is not None:
        uvloop.run(_gateway(arguments.port))
    else:
        uvloop.run(_agents(arguments.agents, arguments.to))


if __name__ == "__main__":
    main()
