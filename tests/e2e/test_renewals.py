"""Silent calls while logins, tokens, keys and the issuer's signing keys change around them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.domain.model import (
    Account,
    ApiKey,
    Client,
    Function,
    FunctionVersion,
    VersionState,
)
from gateway.domain.principal import INVOKE
from runtime.ids import new_uuid
from tests.support.grpc_server import GRPC, GrpcServer, grpc_client
from tests.support.jwks import AUDIENCE, NAME, TokenIssuer, token_issuer
from tests.support.nats_logins import GuardedNats, guarded_nats
from tests.support.programs import Program, gateway
from tests.support.queue_harness import REGION
from tests.support.raw_server import HEALTHY, OK, Peer, RawServer
from tests.support.registered_agent import Platform, running_platform
from tests.support.stack import LEASE_S, Demo, Gateway, runs_of, start, until_waiting
from tests.support.waiting import PATIENCE_S, until
from tests.support.websockets import TEXT, Connection, SocketServer
from wire.ids import FunctionId, VersionId

__all__ = ["guarded_nats"]

TOKEN_S = 3.0
"""Lifetime of a worker's token and of its NATS login."""
RENEWALS = 4
"""Each comes after half a life: so many take longer than two lives."""


class SilentServer:
    """An inference server that is silent until ``go_on`` is set.

    ``/stream`` has a response head before the silence, other calls have none.
    """

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.runs = 0
        self.server = RawServer(self._serve)

    async def _serve(self, peer: Peer) -> None:
        while True:
            path = (await peer.head()).split(b" ")[1]
            if path == b"/health":
                await peer.send(HEALTHY)
            elif path == b"/stream":
                self.runs += 1
                await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
                await self.go_on.wait()
                await peer.send(b"1\r\nb\r\n0\r\n\r\n")
            else:
                self.runs += 1
                await self.go_on.wait()
                await peer.send(OK)

    async def until_runs(self, count: int) -> None:
        await until(lambda: self.runs, lambda found: found == count)


class World:
    """A gateway whose NATS asks for logins, and the API at which its workers register."""

    def __init__(self, platform: Platform, gateway: Gateway, issuer: TokenIssuer) -> None:
        self.platform = platform
        self.gateway = gateway
        self.issuer = issuer
        self._agents: list[Program] = []

    async def agent(self, inference_port: int, **settings: str) -> Program:
        env = {f"WORKER_{name}": value for name, value in settings.items()}
        env["WORKER_QUEUE__PROGRESS_S"] = str(LEASE_S / 4)
        agent = await self.platform.agent(inference_port, **env)
        self._agents.append(agent)
        await self.platform.until(lambda one: one.is_healthy)
        return agent

    async def renewed(self) -> None:
        """Wait for `RENEWALS` more renewals of every login and token."""
        begun, connects = time.time(), self.platform.workers.connects
        await until(lambda: self.platform.workers.connects - connects, lambda n: n >= RENEWALS)
        assert time.time() - begun > TOKEN_S + 1

    def client(self, credential: str = "", *, http2: bool = False) -> httpx.AsyncClient:
        """Return a client that calls with ``credential``, the function's key by default."""
        own = {"authorization": f"Bearer {credential}"} if credential else {}
        return httpx.AsyncClient(
            base_url=self.gateway.url,
            headers={**self.gateway.headers, **own},
            http1=not http2,
            http2=http2,
            timeout=PATIENCE_S,
        )

    def end(self) -> None:
        for program in [*self._agents, self.gateway.program]:
            program.process.kill()
            program.wait_end()


@asynccontextmanager
async def running_world(nats: GuardedNats, direct: str = "true") -> AsyncIterator[World]:
    async with (
        running_platform(nats, token_s=TOKEN_S) as platform,
        token_issuer() as issuer,
    ):
        demo = await register(platform)
        settings = {
            "EDGE__LISTEN": "127.0.0.1:0",
            "ATTACH__LISTEN": "127.0.0.1:0",
            "ADMIN__LISTEN": "127.0.0.1:0",
            "NATS__URLS": nats.url,
            "NATS__CREDENTIALS_FILE": str(nats.logins.gateway_credentials),
            "ROLES": "invocation",
            "QUEUE__REGION": REGION,
            "QUEUE__LEASE_S": str(LEASE_S),
            "QUEUE__DIRECT": direct,
            "JWT__ISSUER": NAME,
            "JWT__AUDIENCES": AUDIENCE,
            "JWT__JWKS_URL": issuer.url,
            "JWT__REFRESH_S": "0.2",
        }
        env = {f"GATEWAY_{name}": value for name, value in settings.items()}
        program = gateway("serve", env=env)
        try:
            ready = await asyncio.to_thread(program.wait_event, "gateway.ready")
            world = World(platform, Gateway(program, ready, demo), issuer)
        except BaseException:
            program.process.kill()
            raise
        try:
            yield world
        finally:
            world.end()


async def register(platform: Platform) -> Demo:
    """Write the function of the platform's instance, a key for it, and a client of the issuer."""
    record, store = platform.record, platform.store
    function_id, version_id = FunctionId(record.function_id), VersionId(record.version_id)
    key = new_key(os.urandom(RANDOM_BYTES))
    await store.put(Account(record.account, "acme"))
    await store.put(Client("client-1", record.account))
    await store.put(Function(function_id, record.account))
    await store.put(
        FunctionVersion(function_id, version_id, record.account, "demo", VersionState.ACTIVE)
    )
    digest = digest_of(key.encode())
    await store.put(ApiKey("demo", digest, record.account, "demo", frozenset({INVOKE})))
    return Demo(function_id, version_id, key)


@pytest.mark.parametrize("direct", ["true", "false"])
async def test_silent_calls_live_through_renewals_of_the_workers_token_and_login(
    guarded_nats: GuardedNats, direct: str
) -> None:
    inference = SilentServer()
    await inference.server.start()
    async with AsyncExitStack() as stack:
        stack.callback(inference.server.stop)
        world = await stack.enter_async_context(running_world(guarded_nats, direct))
        agent = await world.agent(inference.server.port)
        first = await stack.enter_async_context(world.client())
        second = await stack.enter_async_context(world.client(http2=True))
        inference.go_on.set()
        for client in (first, second):
            assert (await client.get("/warm")).status_code == 200
        inference.go_on.clear()
        calls = [
            start(client.get(path)) for client in (first, second) for path in ("/a", "/stream")
        ]
        await inference.until_runs(2 + len(calls))
        await world.renewed()
        inference.go_on.set()
        responses = [await call for call in calls]
        assert [one.http_version for one in responses] == ["HTTP/1.1"] * 2 + ["HTTP/2"] * 2
        assert [one.content for one in responses] == [b"{}", b"ab"] * 2
        # The present login is one of those that came meanwhile.
        assert (await second.get("/after")).status_code == 200
        assert inference.runs == await runs_of(agent) == 2 + len(calls) + 1
        assert "nats.disconnected" not in agent.output
        assert "nats.refused" not in agent.output


async def test_a_silent_call_outlives_the_login_of_a_worker_that_cannot_renew_it(
    guarded_nats: GuardedNats,
) -> None:
    inference = SilentServer()
    await inference.server.start()
    async with AsyncExitStack() as stack:
        stack.callback(inference.server.stop)
        world = await stack.enter_async_context(running_world(guarded_nats, "false"))
        agent = await world.agent(inference.server.port)
        client = await stack.enter_async_context(world.client(http2=True))
        calls = [start(client.get(path)) for path in ("/a", "/stream")]
        await inference.until_runs(len(calls))
        await world.platform.down()
        await asyncio.to_thread(agent.wait_event, "nats.connect_failed")
        inference.go_on.set()
        assert [(await call).content for call in calls] == [b"{}", b"ab"]
        assert inference.runs == len(calls)


async def test_an_open_websocket_lives_through_renewals(guarded_nats: GuardedNats) -> None:
    inference = SocketServer()
    await inference.server.start()
    async with AsyncExitStack() as stack:
        stack.callback(inference.server.stop)
        world = await stack.enter_async_context(running_world(guarded_nats))
        await world.agent(inference.port)
        socket = await Connection.open(world.gateway.url)
        stack.callback(socket.close)
        assert (await socket.handshake("/ws", world.gateway.headers)).status == 101
        await socket.echo(TEXT, b"before")
        await world.renewed()
        await socket.echo(TEXT, b"after")
        assert inference.begun == 1


async def test_a_silent_stream_of_grpc_lives_through_renewals(guarded_nats: GuardedNats) -> None:
    inference = GrpcServer()
    await inference.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(inference.kill)
        world = await stack.enter_async_context(running_world(guarded_nats))
        agent = await world.agent(inference.port, **GRPC)
        metadata = tuple(world.gateway.headers.items())
        target = world.gateway.url.removeprefix("http://")
        client = await stack.enter_async_context(grpc_client(target, metadata))
        talk = client.talk(metadata=client.metadata)
        await talk.write(b"before")
        assert await talk.read() == b"before"
        await world.renewed()
        await talk.write(b"after")
        assert await talk.read() == b"after"
        await talk.done_writing()
        assert await runs_of(agent) == 1


async def test_calls_go_on_when_the_credential_that_admitted_them_ends(
    guarded_nats: GuardedNats,
) -> None:
    """A key that is revoked, a JWT that expires, and one whose signing key the issuer replaces."""
    inference = SilentServer()
    await inference.server.start()
    async with AsyncExitStack() as stack:
        stack.callback(inference.server.stop)
        world = await stack.enter_async_context(running_world(guarded_nats))
        issuer, store = world.issuer, world.platform.store
        await world.agent(inference.server.port, INFERENCE__MAX_CONCURRENCY="6")
        credentials = [
            world.gateway.headers["authorization"].removeprefix("Bearer "),
            issuer.token("client-1", INVOKE),
        ]

        async def statuses() -> set[int]:
            """404 for a credential that is valid, because the call names no version that is."""
            nowhere = {"function-version-id": new_uuid()}
            async with world.client() as asking:
                heads = [nowhere | {"authorization": f"Bearer {one}"} for one in credentials]
                return {(await asking.get("/c", headers=head)).status_code for head in heads}

        await until(statuses, lambda found: found == {404})
        credentials.append(issuer.token("client-1", INVOKE, exp=int(time.time()) + 12))
        clients = [
            await stack.enter_async_context(world.client(one, http2=http2))
            for one in credentials
            for http2 in (False, True)
        ]
        for client in clients:
            # The calls last as long as all the waiting below.
            client.timeout = 3 * PATIENCE_S
        # Six run, and six wait in the queue when their credentials end.
        calls = [start(client.post("/a", content=b"x")) for client in clients]
        await inference.until_runs(len(calls))
        waiting = [start(client.post("/b", content=b"x")) for client in clients]
        await until_waiting(world.gateway, len(waiting))
        await until(statuses, lambda found: found == {401, 404}, what="the end of a token")
        await store.revoke_key("demo")
        issuer.rotate()
        await until(statuses, lambda found: found == {401})
        inference.go_on.set()
        responses = [await call for call in calls + waiting]
        assert {(one.status_code, one.content) for one in responses} == {(200, b"{}")}
        assert inference.runs == len(responses)
