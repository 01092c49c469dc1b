"""gRPC functions: grpcio as client and as server, with the whole system between them.

The cases are those of gRPC's interoperability tests, with messages of plain bytes.
"""

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.support.dev import start_dev
from tests.support.grpc_server import GrpcClient, grpc_client, grpc_function, running_at_server
from tests.support.stack import Stack, dispatched, start
from tests.support.waiting import until


async def _echo(client: GrpcClient, metadata: tuple[tuple[str, str], ...]) -> bytes:
    found = await client.echo(b"x", metadata=metadata)
    assert isinstance(found, bytes)
    return found


async def test_all_kinds_of_calls(stack: Stack) -> None:
    async with grpc_function(stack) as (_, _, client):
        meta = client.metadata
        assert await client.echo(b"", metadata=meta) == b""
        large = bytes(range(256)) * 1100
        assert await client.echo(large, metadata=meta) == large
        assert len(await client.large(b"5000000", metadata=meta)) == 5_000_000

        async def parts() -> AsyncIterator[bytes]:
            for size in (27182, 8, 1828, 45904):
                yield b"p" * size

        assert await client.collect(parts(), metadata=meta) == b"p" * (27182 + 8 + 1828 + 45904)
        found = [one async for one in client.count(b"1000", metadata=meta)]
        assert found == [b"%d" % number for number in range(1000)]
        talk = client.talk(metadata=meta)
        for message in (b"a", b"", b"c" * 200_000, b"d"):
            await talk.write(message)
            assert await talk.read() == message
        await talk.done_writing()
        assert await talk.read() == grpc.aio.EOF
        assert await talk.code() == grpc.StatusCode.OK
        empty = client.talk(metadata=meta)
        await empty.done_writing()
        assert await empty.read() == grpc.aio.EOF


async def test_metadata_compression_and_statuses_pass(stack: Stack) -> None:
    async with grpc_function(stack) as (_, _, client):
        meta = (*client.metadata, ("x-back-it", "text"), ("x-back-bin", b"\0\1\xfe"))
        call = client.echo(b"body", metadata=meta, compression=grpc.Compression.Gzip)
        assert await call == b"body"
        initial, trailing = (
            dict(await call.initial_metadata()),
            dict(await call.trailing_metadata()),
        )
        assert (initial["x-back-bin"], trailing["x-end-bin"]) == (b"\0\1\xfe", b"\0\xff")
        assert initial["nvcf-reqid"]
        seen = (await client.headers(b"", metadata=client.metadata, timeout=30)).decode()
        assert "nvcf-reqid" in seen
        assert "authorization" not in seen
        text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
        for code, detail in (("2", "test status message"), ("5", text), ("16", "")):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.fail(f"{code} {detail}".encode(), metadata=client.metadata)
            assert error.value.code().value[0] == int(code)
            assert error.value.details() == detail
            assert dict(error.value.trailing_metadata() or ())["x-reason"] == "asked"
        for path in ("/test.Calls/None", "/test.None/Echo"):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.channel.unary_unary(path)(b"", metadata=client.metadata)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_client_that_cancels_or_whose_deadline_passes_frees_the_server(
    stack: Stack,
) -> None:
    async with grpc_function(stack, INFERENCE__MAX_CONCURRENCY="1") as (_, server, client):
        meta = client.metadata
        slow = client.slow(b"60", metadata=meta)
        waiting = client.slow(b"60", metadata=meta, timeout=1)
        await running_at_server(server, 1)
        # The slot is taken: the second call waits in the queue until its deadline.
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await waiting
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        slow.cancel()
        await running_at_server(server, 0)
        talk = client.talk(metadata=meta)
        await talk.write(b"hello")
        assert await talk.read() == b"hello"
        talk.cancel()
        await running_at_server(server, 0)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.slow(b"60", metadata=meta, timeout=0.5)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await running_at_server(server, 0)
        assert await client.echo(b"next", metadata=meta) == b"next"


async def test_errors_of_the_platform_are_statuses(stack: Stack) -> None:
    async with grpc_function(stack, INFERENCE__MAX_CONCURRENCY="1") as (gateway, server, client):
        target = gateway.url.removeprefix("http://")
        key, function = gateway.headers["authorization"], gateway.headers["function-id"]
        unknown = "00000000-0000-4000-8000-000000000000"
        for metadata, code in (
            ((("function-id", function),), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", key), ("function-id", unknown)), grpc.StatusCode.NOT_FOUND),
            ((("authorization", key),), grpc.StatusCode.NOT_FOUND),
            (
                (*client.metadata, ("nvcf-poll-seconds", "never")),
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.echo(b"", metadata=metadata)
            assert error.value.code() is code
            assert error.value.details()
        # A call whose server dies after its first byte, and one that it never began.
        async with grpc_client(target, client.metadata) as other:
            talk = other.talk(metadata=client.metadata)
            await talk.write(b"hello")
            assert await talk.read() == b"hello"
            await server.kill()
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await talk.read()
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.start()

        async def served() -> bytes:
            try:
                return await _echo(client, client.metadata)
            except grpc.aio.AioRpcError:
                return b""

        await until(served, lambda found: found == b"x")


async def test_calls_of_one_connection_are_calls_of_their_own(stack: Stack) -> None:
    """More streams than the server takes at a time, over one connection of the client."""
    async with grpc_function(stack, max_streams=3, INFERENCE__MAX_CONCURRENCY="8") as (
        gateway,
        server,
        client,
    ):
        meta = client.metadata
        talks = [client.talk(metadata=meta) for _ in range(8)]
        for number, talk in enumerate(talks):
            await talk.write(b"%d" % number)
        assert [await talk.read() for talk in talks] == [b"%d" % number for number in range(8)]
        before = await dispatched(gateway, "queued")
        waiting = start(_echo(client, meta))
        await until(lambda: dispatched(gateway, "queued"), lambda count: count == before + 1)
        assert not waiting.done()
        await talks[3].write(b"leave")
        assert await waiting == b"x"
        for talk in talks:
            talk.cancel()
        await running_at_server(server, 0)


async def test_health_and_reflection_of_the_server_are_reached(stack: Stack) -> None:
    async with grpc_function(stack) as (_, _, client):
        check = client.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"", metadata=client.metadata) == b"\x08\x01"
        reflect = client.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )(metadata=client.metadata)
        # list_services, field 7
        await reflect.write(b"\x3a\x00")
        assert b"test.Calls" in await reflect.read()
        await reflect.done_writing()
        assert await reflect.read() == grpc.aio.EOF


async def test_a_grpc_server_of_ones_own_with_tls(tmp_path: Path) -> None:
    """What a newcomer types: ``gateway dev --grpc``, and a client that trusts its authority."""
    server = f"{sys.executable} -m tests.support.grpc_app --port {{port}}"
    options = ("--inference-command", server, "--grpc", "--tls", "--tls-port", "0")
    dev = start_dev(tmp_path, *options, "--data-dir", str(tmp_path / "data"))
    try:
        output = dev.program.output
        (port,) = set(re.findall(r"https://localhost:(\d+)", output))
        target = f"localhost:{port}"
        authority = (tmp_path / "data" / "tls" / "ca.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(authority)
        metadata = (
            ("authorization", f"Bearer {dev.ready['api_key']}"),
            ("function-id", dev.ready["function_id"]),
        )
        async with grpc.aio.secure_channel(target, credentials) as channel:
            echo = channel.unary_unary("/test.Calls/Echo")
            assert await echo(b"hello", metadata=metadata) == b"hello"
        assert "grpcurl" in output
    finally:
        assert dev.program.stop() == 0
