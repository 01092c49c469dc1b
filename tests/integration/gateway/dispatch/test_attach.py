"""Workers that are not ours, at the attach endpoint of a real listener."""

import asyncio
from dataclasses import dataclass

from gateway.attach.endpoint import AttachEndpoint
from gateway.invocation.states import Outcome
from http1.server.limits import ServerLimits
from http1.server.listener import bind_sockets, listen
from tests.support.invocation_world import World
from tests.support.waiting import PATIENCE_S
from wire.worker_api import ATTACH_PATH


@dataclass
class Address:
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""


async def test_nvcfs_worker_that_closes_after_the_head_of_a_head_request_has_delivered_it() -> None:
    world = World(method=b"HEAD").publish()
    endpoint = AttachEndpoint(lambda: world.now)
    endpoint.response_tokens.issue("response-token", world.invocation)
    sockets = bind_sockets([Address()])
    port = sockets[0].getsockname()[1]
    listener = await listen(sockets, endpoint.serve, ServerLimits())
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # Three segments, as that worker sends them, and the end in place of the body.
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: h\r\nauthorization: Bearer response-token\r\n"
            b"content-length: %d\r\n\r\n" % (ATTACH_PATH, len(head) + 1234)
        )
        await writer.drain()
        writer.write(head)
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert world.invocation.outcome is Outcome.ANSWERED
    assert world.client.head is not None
    assert world.client.head[2] == 1234
    assert "client.abort" not in world.script.lines
    listener.abort_all()


async def test_a_workers_problem_after_an_interim_response_is_known_by_a_trailer() -> None:
    world = World(passes_interim=True).publish()
    endpoint = AttachEndpoint(lambda: world.now)
    endpoint.response_tokens.issue("response-token", world.invocation)
    sockets = bind_sockets([Address()])
    port = sockets[0].getsockname()[1]
    listener = await listen(sockets, endpoint.serve, ServerLimits())
    response = (
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\n{}"
    )
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: h\r\nauthorization: Bearer response-token\r\n"
            b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n"
            b"0\r\nnvcf-fault: inference-invalid\r\n\r\n" % (ATTACH_PATH, len(response), response)
        )
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert world.invocation.outcome is Outcome.INFERENCE_INVALID
    assert "client.interim 103 [(b'link', b'x')]" in world.script.lines
    assert not [line for line in world.script.lines if "trailers" in line]
    listener.abort_all()
