"""Worker agents at the API: the program itself, beside a nats-server that asks for logins."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import pytest

from gateway.auth.tokens import WorkerIdentity
from gateway.domain.states import is_running
from queueing.nats.jetstream import JetStream
from queueing.nats.queue import JetStreamQueue
from runtime.ids import new_uuid
from tests.support.deployments import deployment, gpu_spec
from tests.support.fake_gateway import Expected, FakeGateway, running_fake_gateway
from tests.support.nats_logins import GuardedNats, guarded_nats
from tests.support.programs import Program
from tests.support.queue_harness import REGION, STREAMS, Client, decided
from tests.support.raw_server import OK, Peer
from tests.support.registered_agent import Platform, running_inference, running_platform
from tests.support.waiting import until
from wire.ids import request_id
from wire.subjects import consumer_name, stream_name
from wire.worker_api import CONNECT_PATH, HEARTBEAT_PATH

__all__ = ["guarded_nats"]


async def answer_at_once(peer: Peer) -> None:
    while await peer.head():
        await peer.send(OK)


@pytest.fixture
async def platform(guarded_nats: GuardedNats) -> AsyncIterator[Platform]:
    async with running_platform(guarded_nats) as platform:
        yield platform


class Caller:
    """Publishes requests as a gateway process does."""

    def __init__(self, platform: Platform, gateway: FakeGateway) -> None:
        self._platform = platform
        self._gateway = gateway
        self._queue = JetStreamQueue(platform.data, region=REGION, process=7, streams=STREAMS)

    async def call(self) -> Expected:
        expected = self._gateway.expect(request_id(os.urandom(16), 7))
        client = Client()
        envelope = expected.envelope(b"GET")
        version_id = self._platform.record.version_id
        self._queue.publish(version_id, expected.request_id, envelope, client, b"")
        await decided(self._queue, expected.request_id, client)
        assert client.error is None
        return expected

    async def __aenter__(self) -> Self:
        await self._queue.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._queue.close()


async def test_an_agent_connects_serves_tells_how_it_is_and_says_goodbye(
    platform: Platform,
) -> None:
    async with (
        running_inference(answer_at_once) as (server, health),
        running_fake_gateway() as gateway,
        Caller(platform, gateway) as caller,
    ):
        health.is_good = False
        agent = await platform.agent(server.port)
        try:
            loading = await platform.until(lambda one: one.is_connected)
            assert not loading.is_healthy
            health.is_good = True
            running = await platform.until(lambda one: one.is_healthy)
            assert (running.slots, running.busy) == (4, 0)
            assert is_running(running, time.time())
            assert (await (await caller.call()).completed())[2] == b"{}"
            await platform.until(lambda one: one.busy > 0)
            await platform.until(lambda one: one.busy == 0)
            health.is_good = False
            told = await platform.until(lambda one: not one.is_healthy)
            assert told.is_connected
            health.is_good = True
            await platform.until(lambda one: one.is_healthy)
            assert await asyncio.to_thread(agent.stop) == 0
            gone = await platform.instance()
            assert (gone.is_connected, gone.slots) == (False, 0)
        finally:
            await asyncio.to_thread(agent.stop, signal.SIGKILL)


async def test_a_killed_agent_is_gone_when_its_lease_ends(platform: Platform) -> None:
    async with running_inference(answer_at_once) as (server, _):
        agent = await platform.agent(server.port)
        await platform.until(lambda one: one.is_healthy)
        first = (await platform.instance()).lease_until
        await platform.until(lambda one: one.lease_until > first)
        agent.stop(signal.SIGKILL)
        killed_at = time.time()
        await platform.until(lambda one: not is_running(one, time.time()))
        assert time.time() - killed_at <= 3.0 + 1.0


async def test_an_agent_goes_on_while_the_api_is_away(platform: Platform) -> None:
    async with (
        running_inference(answer_at_once) as (server, _health),
        running_fake_gateway() as gateway,
        Caller(platform, gateway) as caller,
    ):
        agent = await platform.agent(server.port)
        try:
            before = await platform.until(lambda one: one.is_healthy)
            await platform.down()
            await asyncio.to_thread(agent.wait_event, "control.away")
            assert (await (await caller.call()).completed())[2] == b"{}"
            await platform.up()
            await asyncio.to_thread(agent.wait_event, "control.back")
            after = await platform.until(lambda one: one.lease_until > before.lease_until)
            assert after.is_healthy
            assert await asyncio.to_thread(agent.stop) == 0
        finally:
            await asyncio.to_thread(agent.stop, signal.SIGKILL)


async def test_an_agent_that_starts_before_the_api_waits_for_it(platform: Platform) -> None:
    async with running_inference(answer_at_once) as (server, _):
        await platform.down()
        agent = await platform.agent(server.port)
        try:
            await asyncio.to_thread(agent.wait_event, "control.away")
            await platform.up()
            await platform.until(lambda one: one.is_healthy)
        finally:
            await asyncio.to_thread(agent.stop, signal.SIGKILL)


async def test_token_and_login_are_renewed_without_dropping_a_lease(
    guarded_nats: GuardedNats,
) -> None:
    may_answer, asked = asyncio.Event(), []

    async def serve(peer: Peer) -> None:
        while await peer.head():
            asked.append(peer)
            await may_answer.wait()
            await peer.send(OK)

    async with (
        running_platform(guarded_nats, token_s=4.0) as platform,
        running_inference(serve) as (server, _),
        running_fake_gateway() as gateway,
        Caller(platform, gateway) as caller,
    ):
        agent = await platform.agent(server.port)
        try:
            await platform.until(lambda one: one.is_healthy)
            held = await caller.call()
            # Beyond the first login's end: two more logins at least.
            begun = time.time()
            await platform.until(lambda _: time.time() - begun > 5.0)
            assert platform.workers.connects >= 3
            later = await caller.call()
            may_answer.set()
            assert (await held.completed())[2] == b"{}"
            assert (await later.completed())[2] == b"{}"
            assert len(asked) == 2
            assert "nats.disconnected" not in agent.output
            assert "nats.refused" not in agent.output
            assert await asyncio.to_thread(agent.stop) == 0
        finally:
            await asyncio.to_thread(agent.stop, signal.SIGKILL)


class Held:
    """A deployment whose inference server answers when it is told."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.reached = asyncio.Queue[Peer]()
        self._answers = asyncio.Semaphore(0)

    async def serve(self, peer: Peer) -> None:
        while await peer.head():
            self.reached.put_nowait(peer)
            await self._answers.acquire()
            await peer.send(OK)

    def answer(self, count: int) -> None:
        for _ in range(count):
            self._answers.release()

    def ask(self, concurrency: int) -> None:
        """Change the deployment."""
        record = self.platform.record
        spec = gpu_spec(record.spec_id, concurrency=concurrency)
        self.platform.deploy(
            deployment(spec, version_id=record.version_id, deployment_id=record.deployment_id)
        )

    async def follows(self, concurrency: int) -> None:
        """Change the deployment, and wait until the worker says that it has followed."""
        self.ask(concurrency)
        await self.platform.until(lambda one: one.is_healthy and one.slots == concurrency)

    async def until_leased(self, leased: int, waiting: int) -> None:
        """Wait until the broker counts so; none ever came to the agent and was sent back."""
        stream = stream_name(REGION, self.platform.record.version_id)
        queue = JetStream(self.platform.data)

        async def counts() -> tuple[int, int]:
            info = await queue.call(f"CONSUMER.INFO.{stream}.{consumer_name(stream)}", {})
            assert info["num_redelivered"] == 0
            return info["num_ack_pending"], info["num_pending"]

        await until(
            counts,
            lambda found: found == (leased, waiting),
            what=f"{leased} leased and {waiting} waiting requests",
        )


async def metric(agent: Program, name: str) -> float:
    """Return what an agent shows."""
    port = (await asyncio.to_thread(agent.wait_event, "worker.ready"))["admin_port"]
    url = f"http://127.0.0.1:{port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        lines = (await answer.text()).splitlines()
    (line,) = [line for line in lines if line.startswith(name)]
    return float(line.rpartition(" ")[2])


async def test_a_running_agent_follows_the_concurrency_of_its_deployment(
    platform: Platform,
) -> None:
    held = Held(platform)
    async with (
        running_inference(held.serve) as (server, _),
        running_fake_gateway() as gateway,
        Caller(platform, gateway) as caller,
    ):
        # Started with 4, and told another number before it takes anything.
        held.ask(3)
        agent = await platform.agent(server.port, WORKER_QUEUE__PROGRESS_S="0.2")
        try:
            await held.follows(3)
            await held.follows(1)
            calls = [await caller.call() for _ in range(5)]
            await held.until_leased(1, 4)
            await held.follows(3)
            await held.until_leased(3, 2)
            # What runs goes on; with one slot of three, two answers make no room.
            await held.follows(1)
            held.answer(2)
            await held.until_leased(1, 2)
            await held.follows(8)
            await held.until_leased(3, 0)
            shown = await metric(agent, "nvcf_worker_service_worker_thread_count_total")
            assert shown == 8
            held.answer(3)
            for expected in calls:
                assert (await expected.completed())[2] == b"{}"
            assert held.reached.qsize() == len(calls)
            assert await asyncio.to_thread(agent.stop) == 0
        finally:
            await asyncio.to_thread(agent.stop, signal.SIGKILL)


async def test_answers_say_what_the_deployment_of_the_very_instance_asks_for(
    platform: Platform,
) -> None:
    worker, record = Worker(platform), platform.record
    same = {"version_id": record.version_id, "deployment_id": record.deployment_id}

    async def told() -> set[object]:
        answers = [
            await worker.post(CONNECT_PATH, worker.connect_body),
            await worker.post(HEARTBEAT_PATH, worker.beat_body),
        ]
        assert [status for status, _ in answers] == [200, 200]
        return {answer.get("maxRequestConcurrency", "nothing") for _, answer in answers}

    assert await told() == {"nothing"}
    specs = gpu_spec("another", concurrency=2), gpu_spec(record.spec_id, concurrency=7)
    platform.deploy(deployment(*specs, **same))
    assert await told() == {7}
    platform.deploy(deployment(*specs, **{**same, "deployment_id": "a later one"}))
    assert await told() == {"nothing"}
    platform.deploy(deployment(specs[0], **same))
    assert await told() == {"nothing"}


async def test_an_agent_that_is_not_wanted_ends_and_says_why(platform: Platform) -> None:
    async with running_inference(answer_at_once) as (server, _):
        agent = await platform.agent(server.port, WORKER_CONTROL__TOKEN="forged")
        assert await asyncio.to_thread(agent.wait_end) == 1
        assert "status 401" in agent.output
        assert "Traceback" not in agent.output


class Worker:
    """Calls with the token of an instance."""

    def __init__(self, platform: Platform, **changes: str) -> None:
        record = platform.record
        own = {
            "account": record.account,
            "function_id": record.function_id,
            "version_id": record.version_id,
            "instance_id": record.instance_id,
        }
        now = time.time()
        self.token = platform.token_of(WorkerIdentity(**{**own, **changes}), now, 60.0)
        self.url = platform.url
        self.connect_body = {
            "instanceId": record.instance_id,
            "functionId": record.function_id,
            "functionVersionId": record.version_id,
        }
        self.beat_body = {
            "instanceId": record.instance_id,
            "healthy": True,
            "slots": 1,
            "busy": 0,
        }

    async def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json(content_type=None)


async def test_a_login_and_the_next_token_come_with_the_connection(platform: Platform) -> None:
    worker = Worker(platform)
    status, told = await worker.post(CONNECT_PATH, worker.connect_body)
    assert status == 200
    assert (told["region"], told["leaseSeconds"]) == (REGION, 3.0)
    assert told["expiresInSeconds"] == 600.0
    assert told["nats"]["urls"] == [platform.nats.url]
    worker.token = told["token"]
    assert (await worker.post(HEARTBEAT_PATH, worker.beat_body))[0] == 200


@pytest.mark.parametrize("other", ["instance_id", "version_id", "function_id"])
async def test_a_token_is_good_for_its_own_instance_only(platform: Platform, other: str) -> None:
    worker = Worker(platform, **{other: new_uuid()})
    status, problem = await worker.post(CONNECT_PATH, worker.connect_body)
    assert status == 403
    assert "nats" not in problem
    beat = await worker.post(HEARTBEAT_PATH, worker.beat_body)
    assert beat[0] == (403 if other == "instance_id" else 404)
    assert not (await platform.instance()).is_connected


async def test_an_instance_of_another_account_is_not_there(platform: Platform) -> None:
    worker = Worker(platform, account="somebody-else")
    assert (await worker.post(CONNECT_PATH, worker.connect_body))[0] == 404
    assert (await worker.post(HEARTBEAT_PATH, worker.beat_body))[0] == 404


async def test_nobody_else_may_call_these_routes(platform: Platform) -> None:
    worker = Worker(platform)
    worker.token = ""
    for path, body in ((CONNECT_PATH, worker.connect_body), (HEARTBEAT_PATH, worker.beat_body)):
        assert (await worker.post(path, body))[0] == 401
    worker = Worker(platform)
    assert (await worker.post(HEARTBEAT_PATH, {**worker.beat_body, "busy": -1}))[0] == 400


async def test_heartbeats_and_the_reconciler_do_not_undo_each_other(platform: Platform) -> None:
    worker = Worker(platform)
    assert (await worker.post(CONNECT_PATH, worker.connect_body))[0] == 200
    beats = [
        worker.post(HEARTBEAT_PATH, {**worker.beat_body, "busy": busy}) for busy in (0, 1, 0, 1)
    ]
    statuses = {status for status, _ in await asyncio.gather(*beats)}
    assert statuses == {200}
    found = await platform.instance()
    assert found.is_healthy
    assert found.phase is platform.record.phase
