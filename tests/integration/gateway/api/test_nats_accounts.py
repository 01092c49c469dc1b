"""What a worker's login is good for, asked of a real nats-server, and what it is not."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from gateway.store.names import BUCKETS, IN_MEMORY, KEYS
from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.nats.kv import NatsStore
from gateway.store.options import NatsOptions
from gateway.store.records import Store
from queueing.interface import NoResponder
from queueing.nats.accounts.document import NatsLogin
from queueing.nats.accounts.users import WORKER_API
from queueing.nats.connection import NatsConnection
from queueing.nats.consumer import PulledLease, PullOptions
from queueing.nats.jetstream import JetStream, next_message_subject
from queueing.nats.login import Login
from queueing.nats.polls import NatsPolls
from queueing.nats.settings import WorkerNatsSettings
from queueing.nats.worker import NatsWorkerBroker
from runtime.ids import new_uuid
from runtime.metrics import MetricRegistry
from tests.support.nats_logins import GuardedNats, guarded_nats, options_of
from tests.support.queue_harness import (
    OPTIONS,
    REGION,
    STREAMS,
    Diary,
    Worker,
    connected,
    gateway,
    new_version,
    publish,
    until_depth,
    worker,
)
from tests.support.queues import request_subject
from tests.support.waiting import PATIENCE_S, until
from wire.subjects import (
    cancel_subject,
    consumer_name,
    polling_subject,
    queue_subjects,
    scoped_polling_subject,
    stream_name,
    worker_inbox,
)

__all__ = ["guarded_nats"]

PULLS = PullOptions(api=WORKER_API)
SLOW = replace(STREAMS, ack_wait_s=30.0)
"""Whatever comes again within a test was given back, it did not time out."""


@pytest.fixture
async def store(guarded_nats: GuardedNats) -> AsyncIterator[Store]:
    """The whole store, with one key in it."""
    credentials = guarded_nats.logins.gateway_credentials
    connection = NatsStoreConnection(NatsOptions((guarded_nats.url,), credentials_file=credentials))
    await connection.open(PATIENCE_S)
    store = NatsStore(connection)
    await store.prepare()
    await store.put_raw(KEYS, "k1", b"{}")
    yield store
    await connection.close()


class Told(Diary):
    """A `queueing.interface.LoginListener`."""

    def connected(self) -> None:
        self.write("connected")

    def disconnected(self) -> None:
        self.write("disconnected")

    def refused(self) -> None:
        self.write("refused")

    def denied(self, subject: bytes) -> None:
        self.write("denied", subject.decode())


async def test_a_worker_pulls_acknowledges_and_hears_cancels(guarded_nats: GuardedNats) -> None:
    version_id = new_version()
    options = await guarded_nats.worker_options(version_id)
    async with (
        gateway(guarded_nats.url, options=guarded_nats.gateway_options) as queue,
        worker(guarded_nats.url, version_id, slots=4, options=options, pulls=PULLS) as work,
    ):
        first, _ = await publish(queue, version_id, b"one")
        second, _ = await publish(queue, version_id, b"two")
        leases = await work.has(2)
        assert [(one.request_id, one.envelope) for one in leases] == [
            (first, b"one"),
            (second, b"two"),
        ]
        for lease in leases:
            lease.in_progress()
            lease.ack()
        await work.connection.flush()
        assert await in_queue(guarded_nats, version_id) == 0
        queue.withdraw(version_id, second)
        await work.until(lambda: work.cancelled == [second])


async def test_a_worker_gets_the_polls_of_its_version_and_no_others(
    guarded_nats: GuardedNats,
) -> None:
    """A poll has a token to respond with: another tenant must not see it."""
    version_id, other_id = new_version(), new_version()
    options = await guarded_nats.worker_options(version_id)
    others = await guarded_nats.worker_options(other_id)
    url, pulls = guarded_nats.url, replace(PULLS, has_scoped_polls=True)
    heard: list[bytes] = []
    async with (
        connected(url, guarded_nats.gateway_options) as connection,
        worker(url, version_id, slots=0, options=options, pulls=pulls) as work,
        connected(url, others) as other,
    ):
        polls, refused = NatsPolls(connection), Told()
        other.add_listener(refused, refused.denied)
        for subject in (scoped_polling_subject(version_id, "*"), polling_subject("*")):
            other.subscribe(subject.encode(), lambda *message: heard.append(message[3]))
        await other.flush()
        await until(lambda: len(refused.entries) == 2)
        received: list[bytes] = []

        def poll(envelope: bytes, acknowledge: Callable[[], None]) -> None:
            received.append(envelope)
            acknowledge()

        await work.pull.listen_for_polls("r1", poll)
        await polls.poll(version_id, "r1", b"a poll", PATIENCE_S)
        assert received == [b"a poll"]
        with pytest.raises(NoResponder):
            await polls.poll(version_id, "r2", b"nobody's", PATIENCE_S)
        with pytest.raises(NoResponder):
            await polls.poll(other_id, "r1", b"another version's", PATIENCE_S)
        assert heard == []


async def test_a_worker_that_wants_no_more_leaves_requests_to_others(
    guarded_nats: GuardedNats,
) -> None:
    """Pulls cross accounts: the server must still see that nobody listens to them any more."""
    version_id = new_version()
    one = await guarded_nats.worker_options(version_id, "i1")
    two = await guarded_nats.worker_options(version_id, "i2")
    url = guarded_nats.url
    async with gateway(url, options=guarded_nats.gateway_options, streams=SLOW) as queue:
        await publish(queue, version_id)
        async with worker(url, version_id, slots=8, options=one, pulls=PULLS) as tired:
            (lease,) = await tired.has(1)
            lease.ack()
            await tired.pull.drain()
            async with worker(url, version_id, slots=8, options=two, pulls=PULLS) as fresh:
                for _ in range(8):
                    await publish(queue, version_id)
                await fresh.has(8)
            assert len(tired.leases) == 1


def subjects_out_of_reach(other: str) -> list[str]:
    """Return what a worker must not publish to; ``other`` is another tenant's version."""
    stream = stream_name(REGION, other)
    consumer = f"{stream}.{consumer_name(stream)}"
    buckets = [f"KV_gateway_{bucket}" for bucket in BUCKETS]
    return [
        f"$JS.API.CONSUMER.MSG.NEXT.{consumer}",
        f"$JS.API.CONSUMER.INFO.{consumer}",
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.STREAM.PURGE.{stream}",
        f"$JS.ACK.{consumer}.1.1.1.1.0",
        request_subject(REGION, other, new_uuid()),
        cancel_subject(other),
        *(f"$JS.API.STREAM.INFO.{bucket}" for bucket in buckets),
        *(f"$JS.API.DIRECT.GET.{bucket}.$KV.x" for bucket in buckets),
        *(f"$JS.API.CONSUMER.CREATE.{bucket}" for bucket in buckets),
        *(f"$KV.{bucket.removeprefix('KV_')}.k1" for bucket in buckets),
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.SERVER.PING",
        f"nvcf.ended.{other}",
        "nvcf.presence.test",
        "_INBOX.somebody",
    ]


def subjects_out_of_hearing(version_id: str, other: str) -> list[str]:
    """Return what a worker must not listen to."""
    return [
        ">",
        "*.>",
        "_INBOX.>",
        f"_INBOX.{version_id}.>",
        f"{worker_inbox(version_id, 'i2')}.>",
        f"{worker_inbox(other, 'i1')}.>",
        queue_subjects(REGION, other),
        queue_subjects(REGION, version_id),
        cancel_subject(other),
        cancel_subject("*"),
        f"$KV.gateway_{KEYS}.>",
        "$JS.>",
        "$SYS.>",
        "nvcf.>",
    ]


async def test_everything_else_is_refused(guarded_nats: GuardedNats, store: Store) -> None:
    version_id, other = new_version(), new_version()
    await guarded_nats.issue(other)
    async with connected(guarded_nats.url, guarded_nats.gateway_options) as own:
        await JetStream(own).ensure(REGION, other, STREAMS)
    async with connected(
        guarded_nats.url, await guarded_nats.worker_options(version_id)
    ) as connection:
        told = Told()
        connection.add_listener(told, told.denied)
        to, of = subjects_out_of_reach(other), subjects_out_of_hearing(version_id, other)
        for subject in to:
            connection.publish(subject.encode(), b"{}", connection.inbox())
        for subject in of:
            connection.subscribe(subject.encode(), told.write)
        await connection.flush()
        assert [entry[1] for entry in told.entries if entry[0] == "denied"] == to + of


async def test_the_server_does_nothing_for_a_worker_that_it_may_not_do_itself(
    guarded_nats: GuardedNats, store: Store
) -> None:
    """JetStream answers as the server, to the reply subject that the asker names."""
    version_id, other = new_version(), new_version()
    options = await guarded_nats.worker_options(version_id)
    stolen = Diary()
    async with (
        gateway(guarded_nats.url, options=guarded_nats.gateway_options, streams=SLOW) as queue,
        connected(guarded_nats.url, guarded_nats.gateway_options) as own,
    ):
        own.subscribe(b"nvcf.ended.*", stolen.write)
        own.subscribe(cancel_subject(other).encode(), stolen.write)
        waiting, _ = await publish(queue, other)
        replies = [
            f"nvcf.ended.{other}",
            cancel_subject(other),
            request_subject(REGION, other, new_uuid()),
            f"$KV.gateway_{KEYS}.k1",
            f"$JS.API.STREAM.DELETE.KV_gateway_{KEYS}",
            f"$JS.API.STREAM.PURGE.{stream_name(REGION, other)}",
            f"$JS.ACK.{stream_name(REGION, other)}.{consumer_name(stream_name(REGION, other))}"
            ".1.1.1.1.0",
        ]
        for _ in range(2 * len(replies)):
            await publish(queue, version_id)
        async with worker(
            guarded_nats.url, version_id, slots=1, options=options, pulls=PULLS
        ) as work:
            for reply in replies:
                await ask_everything(work, stream_name(REGION, version_id), reply.encode())
            await work.connection.flush()
        await own.flush()
        assert await in_queue(guarded_nats, other) == 1
        await until_depth(queue, other, 1)
        assert await queue.position(other, waiting) == 1
    assert await store.get_raw(KEYS, "k1") == (b"{}", 1)
    assert stolen.entries == []


async def ask_everything(work: Worker, stream: str, reply: bytes) -> None:
    """Do all a worker may, with ``reply`` as the reply subject: this takes two requests."""
    raw = work.connection
    count = len(work.leases)
    work.pull.want(1)
    lease = (await work.has(count + 1))[-1]
    assert isinstance(lease, PulledLease)
    next_subject = next_message_subject(stream, WORKER_API)
    raw.publish(next_subject, b'{"batch":1,"no_wait":true}', reply)
    raw.publish(next_subject.replace(b"MSG.NEXT", b"INFO"), b"", reply)
    raw.publish(lease.ack_subject, b"+ACK", reply)
    # Answered when the server has dealt with what was sent before.
    assert await JetStream(raw, api=WORKER_API).consumer_state(stream) is not None


async def test_expired_credentials_are_refused(guarded_nats: GuardedNats) -> None:
    version_id = new_version()
    options = await guarded_nats.worker_options(version_id, lifetime_s=-1.0)
    connection = NatsConnection(replace(options, servers=(guarded_nats.url,)))
    connection.start()
    await guarded_nats.server.logged("authentication error")
    await until(lambda: "authorization" in connection.last_error.lower())
    assert connection.connects == 0
    await connection.close()


async def test_a_connection_ends_with_its_credentials(guarded_nats: GuardedNats) -> None:
    options = await guarded_nats.worker_options(new_version(), lifetime_s=2.0)
    told = Told()
    async with connected(guarded_nats.url, options) as connection:
        connection.add_listener(told)
        await told.until(lambda: ("disconnected",) in told.entries)
        assert connection.refusals == 1


async def test_a_renewed_login_takes_over_without_dropping_a_lease(
    guarded_nats: GuardedNats,
) -> None:
    version_id = new_version()
    logins = [await guarded_nats.issue(version_id, lifetime_s=3.0)]
    options = replace(
        options_of(logins[0], version_id),
        login=Login(credentials=lambda: (logins[-1].jwt, logins[-1].seed)),
    )
    url = guarded_nats.url
    async with (
        gateway(url, options=guarded_nats.gateway_options, streams=SLOW) as queue,
        worker(url, version_id, slots=4, options=options, pulls=PULLS) as work,
    ):
        await publish(queue, version_id)
        (lease,) = await work.has(1)
        logins.append(await guarded_nats.issue(version_id))
        assert await work.connection.renew()
        await publish(queue, version_id)
        await work.has(2)
        for one in work.leases:
            one.ack()
        await work.connection.flush()
        assert lease.deliveries == 1
        assert await in_queue(guarded_nats, version_id) == 0
        assert work.connection.losses == 0


async def test_a_worker_that_is_refused_asks_for_another_login(guarded_nats: GuardedNats) -> None:
    """As when a rotation of the operator's key ends, in which the worker was not restarted."""
    version_id = new_version()
    expired, valid = [
        NatsLogin((guarded_nats.url,), login.jwt, login.seed, WORKER_API)
        for login in [await guarded_nats.issue(version_id, lifetime_s=s) for s in (-1.0, 600.0)]
    ]
    logins, told = [expired], Told()
    broker = NatsWorkerBroker(
        WorkerNatsSettings(), version_id, "i1", MetricRegistry(), lambda: logins[-1]
    )
    broker.add_listener(told)
    broker.start()
    try:
        await told.until(lambda: told.entries == [("refused",)])
        logins.append(valid)
        await told.until(lambda: ("connected",) in told.entries)
        # A renewal that fails is no loss: the present link goes on.
        told.entries.clear()
        logins.append(expired)
        assert not await broker.renew()
        assert broker.is_connected()
        assert told.entries == []
    finally:
        await broker.close()


async def test_a_removed_account_takes_its_workers_connections_along(
    guarded_nats: GuardedNats,
) -> None:
    version_id = new_version()
    options = await guarded_nats.worker_options(version_id)
    told = Told()
    async with connected(guarded_nats.url, options) as connection:
        connection.add_listener(told)
        async with guarded_nats.accounts() as accounts:
            await accounts.remove([version_id, new_version()])
        await told.until(lambda: ("disconnected",) in told.entries)


async def test_the_account_of_a_version_that_is_deployed_again_opens_again(
    guarded_nats: GuardedNats,
) -> None:
    version_id = new_version()
    for deployment_id in ("d1", "d2", "d3"):
        options = await guarded_nats.worker_options(version_id, deployment_id=deployment_id)
        async with (
            gateway(guarded_nats.url, options=guarded_nats.gateway_options) as queue,
            worker(guarded_nats.url, version_id, options=options, pulls=PULLS) as work,
        ):
            await publish(queue, version_id)
            (lease,) = await work.has(1)
            lease.ack()
        async with guarded_nats.accounts() as accounts:
            await accounts.remove([version_id])
    accounts_folder = guarded_nats.logins.server_config.parent / "accounts"
    assert accounts_folder.is_dir()
    assert not list(accounts_folder.glob("*.deleted"))


async def test_accounts_and_buckets_survive_the_servers_end(
    guarded_nats: GuardedNats, store: Store
) -> None:
    version_id = new_version()
    options = await guarded_nats.worker_options(version_id)
    await guarded_nats.server.kill()
    await guarded_nats.server.start()
    async with connected(guarded_nats.url, options) as own:
        assert own.is_connected()
    async with connected(guarded_nats.url, guarded_nats.gateway_options) as own:
        for bucket in set(BUCKETS) - IN_MEMORY:
            info = await JetStream(own).call(f"STREAM.INFO.KV_gateway_{bucket}", {})
            assert info["state"]["messages"] == (1 if bucket == KEYS else 0)


async def test_nobody_gets_in_without_a_login(guarded_nats: GuardedNats) -> None:
    connection = NatsConnection(replace(OPTIONS, servers=(guarded_nats.url,)))
    connection.start()
    await guarded_nats.server.logged("authentication error")
    assert connection.connects == 0
    await connection.close()


async def in_queue(nats: GuardedNats, version_id: str) -> int:
    async with connected(nats.url, nats.gateway_options) as own:
        stream = stream_name(REGION, version_id)
        answer = await JetStream(own).call(f"STREAM.INFO.{stream}", {})
        return int(answer["state"]["messages"])
