"""What survives when the broker goes away, and what is told to whom when it does not."""

import asyncio
from dataclasses import replace

import pytest

from queueing.interface import RunDecision
from queueing.nats.connection import NatsConnection
from queueing.nats.consumer import PullOptions
from queueing.nats.jetstream import JetStream, StreamSettings
from queueing.nats.queue import PublishedRequest
from queueing.own_requests import QueueLimits, RequestState
from tests.support.nats_server import NatsServer
from tests.support.queue_harness import (
    REGION,
    Client,
    GatewayQueue,
    Worker,
    connected,
    counted,
    decided,
    gateway,
    messages_in,
    new_request,
    new_version,
    publish,
    publish_many,
    until_depth,
    worker,
)
from tests.support.waiting import until
from wire.subjects import consumer_name, queue_subjects, stream_name

ON_DISK = StreamSettings(storage="file", ack_wait_s=300.0)
SOON = QueueLimits(lease_grace_s=0.3, look_interval_s=0.2)


async def until_down(queue: GatewayQueue) -> None:
    await until(lambda: not queue.connection.is_connected())


async def until_up(*sides: GatewayQueue | Worker) -> None:
    for side in sides:
        is_up = side.pull.is_bound if isinstance(side, Worker) else side.connection.is_connected
        await until(is_up)


async def until_ticks(count: int) -> None:
    """Return when a running queue has ticked ``count`` times, every half second."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.5 * count
    await until(lambda: loop.time() >= end)


async def leased_now(look: NatsConnection, version: str) -> int:
    stream = stream_name(REGION, version)
    info = await JetStream(look).call(f"CONSUMER.INFO.{stream}.{consumer_name(stream)}", {})
    count = info["num_ack_pending"]
    assert isinstance(count, int)
    return count


async def test_a_queue_lost_with_its_broker_refuses_what_nobody_answers(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    url = nats_server.url
    limits = replace(SOON, max_kept_bytes=0)
    async with gateway(url, limits=limits) as queue, worker(url, version) as work:
        running, answered = await publish(queue, version)
        (old_lease,) = await work.has(1)
        _, lost = await publish(queue, version)
        await nats_server.kill()
        await until_down(queue)
        await nats_server.start()
        await until_up(queue, work)
        # Made again without a publish, so that workers find their queue.
        queue.answered(running)
        await lost.reaches("publish_failed")
        assert answered.entries == [("published",)]
        assert str(lost.error) == "The queue has lost the request"

        fresh, client = await publish(queue, version)
        assert client.sequence > lost.sequence
        work.pull.want(1)
        await work.has(2)
        assert work.leases[1].request_id == fresh
        # The old lease's acknowledgement must not take the new one out.
        old_lease.ack()
        await queue.depth(version)
        async with connected(url) as look:
            assert await leased_now(look, version) == 1


async def test_a_queue_on_disk_goes_on_where_it_was(nats_server: NatsServer) -> None:
    version = new_version()
    url = nats_server.url
    async with (
        gateway(url, streams=ON_DISK, limits=SOON) as queue,
        worker(url, version) as work,
    ):
        requests = await publish_many(queue, version, 3)
        (lease,) = await work.has(1)
        await nats_server.stop()
        await until_down(queue)
        # Said while nobody hears it; must arrive all the same.
        lease.ack()
        queue.answered(requests[0])
        await nats_server.start()
        await until_up(queue, work)
        assert await queue.position(version, requests[2]) == 2
        work.pull.want(3)
        await work.has(3)
        assert [lease.deliveries for lease in work.leases] == [1, 1, 1]
        async with connected(url) as look:
            assert await leased_now(look, version) == 2


async def test_what_is_withdrawn_without_a_broker_is_taken_out_when_it_is_back(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    url = nats_server.url
    async with (
        gateway(url, streams=ON_DISK) as queue,
        worker(url, version, slots=0) as work,
    ):
        gone, _ = await publish(queue, version)
        stays, _ = await publish(queue, version)
        await nats_server.stop()
        await until_down(queue)
        queue.withdraw(version, gone)
        await nats_server.start()
        await until_up(queue)
        await until_depth(queue, version, 1)
        assert await queue.position(version, stays) == 1
        await until_up(work)
        assert work.leases == []


async def test_what_waited_in_a_lost_queue_is_published_once_more(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    url = nats_server.url
    async with gateway(url, limits=SOON) as queue, worker(url, version, slots=1) as work:
        running, client = await publish(queue, version)
        await work.has(1)
        queue.started(running)
        waiting = await publish_many(queue, version, 20)
        for _ in range(2):
            await nats_server.kill()
            await until_down(queue)
            await nats_server.start()
            await until_up(queue, work)
            if queue.republished < len(waiting):
                await until(lambda: queue.republished == len(waiting))
                work.pull.want(20)
                await work.has(21)
                # In their order, and each once.
                assert [lease.request_id for lease in work.leases[1:]] == waiting
                assert [lease.deliveries for lease in work.leases[1:]] == [1] * 20
        assert queue.republished == len(waiting)
        assert client.entries == [("published",)]


async def test_what_waits_outlives_a_broker_that_goes_away_again_and_again(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    url = nats_server.url
    async with gateway(url, limits=SOON) as queue, worker(url, version, slots=0) as work:
        waiting = await publish_many(queue, version, 20)

        def states() -> set[RequestState | None]:
            return {request and request.state for request in map(queue.request, waiting)}

        async def go_away() -> None:
            await nats_server.kill()
            await until_down(queue)
            await until_ticks(3)
            assert None not in states()
            await nats_server.start()

        await go_away()
        # Before they are published again, and after that.
        await until(states, lambda found: found == {RequestState.LOST})
        await go_away()
        await until(lambda: queue.republished == 20 and states() == {RequestState.HELD})
        await go_away()
        await until(lambda: queue.republished == 40 and states() == {RequestState.HELD})
        await until_up(work)
        work.pull.want(20)
        await work.has(20)
        assert [lease.request_id for lease in work.leases] == waiting
        assert queue.losses == 0


async def test_a_publish_without_answer_is_sent_again_when_the_link_breaks(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(nats_server.url) as queue:
        await publish(queue, version)
        nats_server.pause()
        request, client = new_request(), Client()
        queue.publish(version, request, b"envelope", client, b"")
        await nats_server.kill()
        await until_down(queue)
        await nats_server.start()
        await decided(queue, request, client)
        assert client.entries == [("published",)]
        assert counted(queue, version) == {"Ok": 2}


async def test_a_publish_without_answer_fails_if_the_broker_stays_away(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    async with gateway(nats_server.url, limits=QueueLimits(ack_timeout_s=1.0)) as queue:
        await publish(queue, version)
        nats_server.pause()
        client = Client()
        queue.publish(version, new_request(), b"envelope", client, b"")
        await nats_server.kill()
        await client.reaches("publish_failed")
        assert client.entries == [("publish_failed", "QueueUnavailable")]
        assert counted(queue, version) == {"Ok": 1, "Timeout": 1}


async def test_a_publish_without_answer_is_refused_in_time(nats_server: NatsServer) -> None:
    version = new_version()
    async with gateway(nats_server.url, limits=QueueLimits(ack_timeout_s=0.2)) as queue:
        await publish(queue, version)
        nats_server.pause()
        late, client = new_request(), Client()
        queue.publish(version, late, b"envelope", client, b"")
        await client.reaches("publish_failed")
        nats_server.resume()
        # The acknowledgement that comes now belongs to nobody, and nobody shall run the request.
        await until_depth(queue, version, 1)
        assert client.entries == [("publish_failed", "QueueUnavailable")]
        assert counted(queue, version) == {"Ok": 1, "Timeout": 1}


async def test_a_publish_that_a_paused_broker_has_is_taken_once(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    url = nats_server.url
    async with gateway(url) as queue, connected(url) as look:
        await publish(queue, version)
        nats_server.pause()
        request, client = new_request(), Client()
        queue.publish(version, request, b"envelope", client, b"")
        sent = queue.request(request)
        assert sent is not None
        await until(lambda: sent.is_repeating)
        nats_server.resume()
        await decided(queue, request, client)
        await until(lambda: not sent.is_repeating)
        await publish(queue, version)
        assert await messages_in(look, version) == 3
        assert client.entries == [("published",)]
        assert counted(queue, version) == {"Ok": 3}


def _publish_unheard(
    queue: GatewayQueue, version: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[PublishedRequest, Client]:
    """Publish a request that does not reach the broker."""
    request, client = new_request(), Client()
    with monkeypatch.context() as patch:
        patch.setattr(queue.connection, "send", lambda _frame: True)
        queue.publish(version, request, b"envelope", client, b"")
    sent = queue.request(request)
    assert sent is not None
    return sent, client


def _store(connection: NatsConnection, version: str, request: str) -> None:
    """Store a request as if the broker had lost its acknowledgement."""
    subject = queue_subjects(REGION, version).replace(">", request)
    assert connection.publish(subject.encode(), b"envelope")


async def test_a_publish_that_the_broker_dropped_is_repeated_and_counts_as_a_run(
    shared_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, url = new_version(), shared_nats_server.url
    async with gateway(url, limits=QueueLimits(max_runs=2)) as queue:
        await publish(queue, version)
        sent, client = _publish_unheard(queue, version, monkeypatch)
        await decided(queue, sent.request_id, client)
        assert (sent.sends, client.names) == (2, ["published"])
        assert await messages_in(queue.connection, version) == 2
        assert queue.may_run(sent.request_id, 2) is RunDecision.LATER


async def test_what_may_run_once_is_not_repeated(
    shared_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, url = new_version(), shared_nats_server.url
    limits = QueueLimits(max_runs=1, ack_timeout_s=2.0)
    async with gateway(url, limits=limits) as queue:
        await publish(queue, version)
        sent, client = _publish_unheard(queue, version, monkeypatch)
        await client.reaches("publish_failed")
        assert sent.sends == 1
        assert await messages_in(queue.connection, version) == 1


async def test_a_request_whose_acknowledgement_was_lost_is_found_instead_of_repeated(
    shared_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, url = new_version(), shared_nats_server.url
    async with gateway(url) as queue, connected(url) as other:
        await publish(queue, version)
        sent, client = _publish_unheard(queue, version, monkeypatch)
        _store(other, version, sent.request_id)
        # It comes over another connection than the next one.
        await until(lambda: messages_in(other, version), lambda stored: stored == 2)
        _, later = await publish(queue, version)
        await decided(queue, sent.request_id, client)
        assert (sent.sends, client.names) == (1, ["published"])
        assert 0 < client.sequence < later.sequence
        assert await queue.position(version, sent.request_id) == 2


async def test_a_request_that_ran_while_its_acknowledgement_was_lost_is_not_run_again(
    shared_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, url = new_version(), shared_nats_server.url
    async with (
        gateway(url, streams=StreamSettings()) as queue,
        connected(url) as other,
        worker(url, version, slots=5) as work,
    ):
        await publish(queue, version)
        sent, client = _publish_unheard(queue, version, monkeypatch)
        _store(other, version, sent.request_id)
        (_, lease) = await work.has(2)
        lease.ack()
        await until(lambda: messages_in(other, version), lambda left: left == 1)
        # The response is still on its way when the stream is asked.
        await until(lambda: sent.is_repeating)
        queue.answered(sent.request_id)
        await until(lambda: not sent.is_repeating)
        last, _ = await publish(queue, version)
        await work.has(3)
        assert [lease.request_id for lease in work.leases[1:]] == [sent.request_id, last]
        assert (sent.sends, client.entries) == (1, [])


async def test_a_request_of_a_lost_connection_is_found_on_the_next_one(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, url = new_version(), nats_server.url
    async with gateway(url, streams=ON_DISK) as queue:
        await publish(queue, version)
        sent, client = _publish_unheard(queue, version, monkeypatch)
        async with connected(url) as other:
            _store(other, version, sent.request_id)
            await until(lambda: messages_in(other, version), lambda count: count == 2)
        await nats_server.stop()
        await until_down(queue)
        await nats_server.start()
        await decided(queue, sent.request_id, client)
        assert (sent.sends, client.names) == (1, ["published"])
        assert await messages_in(queue.connection, version) == 2


async def test_a_stream_deleted_under_our_feet_is_made_again_for_the_next_request(
    shared_nats_server: NatsServer,
) -> None:
    version = new_version()
    url = shared_nats_server.url
    async with (
        gateway(url, limits=SOON) as queue,
        worker(url, version) as work,
        connected(url) as admin,
    ):
        _, lost = await publish(queue, version)
        await work.has(1)
        # A look that began before the lease does not see it.
        before = queue.looks
        await until(lambda: queue.looks >= before + 2)
        await JetStream(admin).call(f"STREAM.DELETE.{stream_name(REGION, version)}", {})
        fresh, client = await publish(queue, version)
        assert client.names == ["published"]
        work.pull.want(1)
        await work.has(2)
        assert work.leases[1].request_id == fresh
        await lost.reaches("publish_failed")


async def test_a_consumer_that_is_missing_is_made_again(shared_nats_server: NatsServer) -> None:
    version = new_version()
    url = shared_nats_server.url
    stream = stream_name(REGION, version)
    async with (
        gateway(url, limits=SOON) as queue,
        worker(url, version, slots=0) as work,
        connected(url) as admin,
    ):
        await publish(queue, version)
        await until_up(work)
        await JetStream(admin).call(f"CONSUMER.DELETE.{stream}.{consumer_name(stream)}", {})
        work.pull.want(1)
        await work.has(1)


async def test_a_pull_that_the_broker_forgot_is_noticed_by_its_silence(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    url = nats_server.url
    pulls = PullOptions(heartbeat_s=0.2)
    async with gateway(url) as queue, worker(url, version, pulls=pulls) as work:
        await publish(queue, version)
        await work.has(1)
        work.pull.want(1)
        nats_server.pause()
        await until(lambda: not work.pull.is_bound())
        nats_server.resume()
        await until_up(work)
        await publish(queue, version)
        await work.has(2)


async def test_a_pull_that_expires_is_renewed(shared_nats_server: NatsServer) -> None:
    version = new_version()
    url = shared_nats_server.url
    pulls = PullOptions(expires_s=0.3, heartbeat_s=0.1)
    async with gateway(url) as queue, worker(url, version, slots=4, pulls=pulls) as work:
        await publish(queue, version)
        await work.has(1)
        before = work.pull.pulls
        await until(lambda: work.pull.pulls >= before + 3)
        await publish_many(queue, version, 3)
        await work.has(4)
        # None was given back.
        assert [lease.deliveries for lease in work.leases] == [1, 1, 1, 1]


async def test_a_request_published_into_the_new_queue_is_not_lost_with_the_old(
    shared_nats_server: NatsServer,
) -> None:
    """The stream is made again by somebody else, and used before we notice."""
    version = new_version()
    limits = QueueLimits(max_kept_bytes=0, look_interval_s=300.0)
    async with gateway(shared_nats_server.url, limits=limits) as queue:
        _, old = await publish(queue, version)
        _, also_old = await publish(queue, version)
        async with connected(shared_nats_server.url) as admin:
            api = JetStream(admin)
            await api.call(f"STREAM.DELETE.{stream_name(REGION, version)}", {})
            await api.ensure(REGION, version, StreamSettings(), also_old.sequence)
        request, fresh = await publish(queue, version)
        assert fresh.sequence > also_old.sequence
        await old.reaches("publish_failed")
        await also_old.reaches("publish_failed")
        assert fresh.entries == [("published",)]
        assert await queue.position(version, request) == 1
