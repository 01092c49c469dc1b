"""A gRPC server on a port of 127.0.0.1, with methods that carry plain bytes.

/test.Calls/Echo        unary       the request
/test.Calls/Collect     client      all requests, joined
/test.Calls/Count       server      as many messages as the request says
/test.Calls/Talk        both        each request at once; "leave" ends the call
/test.Calls/Slow        unary       after so many seconds as the request says
/test.Calls/Fail        unary       the status and message that the request says: "5 text"
/test.Calls/Headers     unary       the request's metadata, one line each
/test.Calls/Large       unary       so many bytes as the request says
/test.Calls/Running     unary       how many calls of Slow and Talk run
grpc.health.v1 and reflection besides
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

Aio = grpc.aio.ServicerContext
_running = 0


async def echo(request: bytes, context: Aio) -> bytes:
    given = context.invocation_metadata()
    if back := tuple(pair for pair in given if pair[0].startswith("x-back")):
        await context.send_initial_metadata(back)
        context.set_trailing_metadata((("x-end-bin", b"\0\xff"),))
    return request


async def collect(requests: AsyncIterator[bytes], context: Aio) -> bytes:
    return b"".join([request async for request in requests])


async def count(request: bytes, context: Aio) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def talk(requests: AsyncIterator[bytes], context: Aio) -> AsyncIterator[bytes]:
    global _running  # noqa: PLW0603
    _running += 1
    try:
        async for request in requests:
            if request == b"leave":
                return
            yield request
    finally:
        _running -= 1


async def slow(request: bytes, context: Aio) -> bytes:
    global _running  # noqa: PLW0603
    _running += 1
    try:
        await asyncio.sleep(float(request))
    finally:
        _running -= 1
    return b"slept"


async def fail(request: bytes, context: Aio) -> bytes:
    code, _, detail = request.decode().partition(" ")
    found = next(one for one in grpc.StatusCode if one.value[0] == int(code))
    context.set_trailing_metadata((("x-reason", "asked"),))
    await context.abort(found, detail)
    return b""


async def headers(request: bytes, context: Aio) -> bytes:
    lines = [f"{name}: {value!r}" for name, value in context.invocation_metadata()]
    return "\n".join(lines).encode()


async def large(request: bytes, context: Aio) -> bytes:
    return b"x" * int(request)


async def running(request: bytes, context: Aio) -> bytes:
    return b"%d" % _running


Method = Callable[[bytes, Aio], Awaitable[bytes]]


def handlers() -> grpc.GenericRpcHandler:
    unary = grpc.unary_unary_rpc_method_handler
    methods = {
        "Echo": unary(echo),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
        "Slow": unary(slow),
        "Fail": unary(fail),
        "Headers": unary(headers),
        "Large": unary(large),
        "Running": unary(running),
    }
    return grpc.method_handlers_generic_handler("test.Calls", methods)


async def serve(port: int, max_streams: int) -> None:
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_concurrent_streams", max_streams),
            ("grpc.so_reuseport", 0),
        )
    )
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(("test.Calls", reflection.SERVICE_NAME), server)
    server.add_generic_rpc_handlers((handlers(),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    sys.stderr.write(f"serving on {port}\n")
    sys.stderr.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-streams", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.max_streams))
