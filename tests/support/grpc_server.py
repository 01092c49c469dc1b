"""`tests.support.grpc_app` as a separate process, and clients of the same methods."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tests.support.server_process import ServerProcess
from tests.support.stack import Gateway, Stack
from tests.support.waiting import PATIENCE_S, until

_ROOT = Path(__file__).parents[2]
_SERVING = re.compile(r"serving on (\d+)")
GRPC = {"INFERENCE__PROTOCOL": "grpc", "HEALTH__PROTOCOL": "grpc"}
"""Settings of an agent beside a gRPC server."""


class GrpcServer(ServerProcess):
    """It keeps its port over `restart`."""

    name = "the gRPC server"

    def __init__(self, max_streams: int = 100) -> None:
        super().__init__()
        self.port = 0
        self._max_streams = max_streams

    def start_blocking(self) -> None:
        """Start the process and return when it serves."""
        ready = threading.Event()
        self.log = []
        options = ["--port", str(self.port), "--max-streams", str(self._max_streams)]
        process = self._launch(
            [sys.executable, "-m", "tests.support.grpc_app", *options],
            lambda process: self._read(process, ready),
            _ROOT,
        )
        if not ready.wait(PATIENCE_S) or process.poll() is not None:
            self.end_blocking(signal.SIGKILL)
            raise AssertionError("the gRPC server did not start:\n" + "".join(self.log))

    def _read(self, process: "subprocess.Popen[str]", ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if found := _SERVING.search(line):
                    self.port = int(found[1])
                    ready.set()
        ready.set()


class GrpcClient:
    """Calls of the methods of `tests.support.grpc_app` over one channel."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self.channel = channel
        self.metadata = metadata
        self.echo = channel.unary_unary("/test.Calls/Echo")
        self.collect = channel.stream_unary("/test.Calls/Collect")
        self.count = channel.unary_stream("/test.Calls/Count")
        self.talk = channel.stream_stream("/test.Calls/Talk")
        self.slow = channel.unary_unary("/test.Calls/Slow")
        self.fail = channel.unary_unary("/test.Calls/Fail")
        self.headers = channel.unary_unary("/test.Calls/Headers")
        self.large = channel.unary_unary("/test.Calls/Large")
        self.running = channel.unary_unary("/test.Calls/Running")


@asynccontextmanager
async def grpc_client(
    target: str, metadata: tuple[tuple[str, str], ...] = (), **options: int | str
) -> AsyncIterator[GrpcClient]:
    """Run a client of ``host:port``; ``options`` are grpcio's, without ``grpc.``."""
    given = [(f"grpc.{name}", value) for name, value in options.items()]
    given += [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options=given) as channel:
        yield GrpcClient(channel, metadata)


@asynccontextmanager
async def grpc_function(
    stack: Stack, *, max_streams: int = 100, gateway: dict[str, str] | None = None, **agent: str
) -> AsyncIterator[tuple[Gateway, GrpcServer, GrpcClient]]:
    """Run a gRPC server with an agent, a gateway, and a client of the gateway."""
    server = GrpcServer(max_streams)
    await server.start()
    try:
        running = stack.gateway(**(gateway or {}))
        stack.agent(INFERENCE__PORT=str(server.port), **GRPC, **agent)
        metadata = tuple(running.headers.items())
        async with grpc_client(running.url.removeprefix("http://"), metadata) as client:
            yield running, server, client
    finally:
        await server.kill()


async def running_at_server(server: GrpcServer, count: int) -> None:
    """Wait until so many calls run at the server, asked directly."""
    async with grpc_client(f"127.0.0.1:{server.port}") as direct:

        async def running() -> int:
            return int(await direct.running(b""))

        await until(running, lambda found: found == count)
