"""The benchmark's gRPC server: grpcio, one method that returns its request, and health checks."""

import argparse
import asyncio

import grpc

CHECK_RESPONSE = b"\x08\x01"
"""A `grpc.health.v1.HealthCheckResponse` that says SERVING."""


async def _echo(request: bytes, _: grpc.aio.ServicerContext) -> bytes:
    return request


async def _check(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
    return CHECK_RESPONSE


async def _serve(port: int) -> None:
    server = grpc.aio.server()
    for service, method, handler in (
        ("bench.Bench", "Echo", _echo),
        ("grpc.health.v1.Health", "Check", _check),
    ):
        methods = {method: grpc.unary_unary_rpc_method_handler(handler)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
