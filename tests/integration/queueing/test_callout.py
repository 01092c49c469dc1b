"""NVIDIA's worker at a real nats-server with our auth callout: what its token lets it do."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from time import time

import pytest

from queueing.interface import TokenRefused, WorkerLogin
from queueing.nats.accounts.callout import NatsCallout
from queueing.nats.accounts.callout_documents import CalloutAccount
from queueing.nats.accounts.credentials import LoginFiles
from queueing.nats.admin import JetStreamAdmin
from queueing.nats.polls import NatsPolls
from runtime.metrics import MetricRegistry
from runtime.tasks import spawn
from tests.support.nats_logins import GuardedNats, guarded_nats
from tests.support.nvcf_nats import LoginError, NvcfNats, nvcf_nats, nvcf_token
from tests.support.queue_harness import (
    OPTIONS,
    REGION,
    STREAMS,
    connected,
    gateway,
    new_version,
    publish,
)
from tests.support.waiting import PATIENCE_S, until
from wire.subjects import cancel_subject, consumer_name, stream_name

__all__ = ["guarded_nats"]


class Tokens:
    """A `LoginCheck`: what each token admits to."""

    def __init__(self) -> None:
        self.logins: dict[str, WorkerLogin] = {}

    def admit(self, version_id: str, token: str = "good", lifetime_s: float = 600.0) -> None:
        self.logins[token] = WorkerLogin(version_id, "d1", "worker", time() + lifetime_s)

    def check(self, token: str) -> WorkerLogin:
        if token not in self.logins:
            raise TokenRefused("unknown token")
        return self.logins[token]


@pytest.fixture
async def tokens(guarded_nats: GuardedNats) -> AsyncIterator[Tokens]:
    """The callout, with the servers' configuration that it needs."""
    files = guarded_nats.logins
    sentinel = CalloutAccount(files.operator_seed.read_text()).server_config()
    await guarded_nats.server.kill()
    guarded_nats.server.config += f"{sentinel}authorization {{ timeout: 5 }}\n"
    await guarded_nats.server.start()
    tokens = Tokens()
    callout = NatsCallout(
        LoginFiles(files.operator_seed, files.system_credentials, files.gateway_credentials),
        replace(OPTIONS, servers=(guarded_nats.url,)),
        [REGION],
        tokens.check,
        MetricRegistry(with_process=False),
    )
    callout.start()
    async with asyncio.timeout(PATIENCE_S):
        await callout.wait_ready()
    yield tokens
    await callout.close()


def worker(url: str, token: str = "good") -> AbstractAsyncContextManager[NvcfNats]:
    return nvcf_nats(url, nvcf_token(token))


def queue_of(version_id: str) -> str:
    stream = stream_name(REGION, version_id)
    return f"{stream}.{consumer_name(stream)}"


async def test_its_library_finds_the_consumer_pulls_acknowledges_and_hears_polls_and_cancels(
    guarded_nats: GuardedNats, tokens: Tokens
) -> None:
    version_id, url = new_version(), guarded_nats.url
    tokens.admit(version_id)
    async with (
        connected(url, guarded_nats.gateway_options) as data,
        gateway(url, options=guarded_nats.gateway_options) as queue,
        worker(url) as work,
    ):
        await JetStreamAdmin(data, [REGION], STREAMS).ensure(version_id)
        info = await work.request(f"$JS.API.CONSUMER.INFO.{queue_of(version_id)}")
        assert json.loads(info)["name"] == f"rq_{REGION}_{version_id}_workers"
        work.subscribe(cancel_subject(version_id))
        work.subscribe("rq_polling.r1")
        inbox = work.new_inbox()
        pull = json.dumps({"expires": 10**10, "batch": 1, "idle_heartbeat": 10**9}).encode()
        work.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue_of(version_id)}", pull, inbox)
        assert await work.flush() == []
        request_id, _ = await publish(queue, version_id, b"envelope")
        message = await work.next()
        assert message.payload == b"envelope"
        queue.withdraw(version_id, request_id)
        assert (await work.next(cancel_subject(version_id))).payload == request_id.encode()
        polls = NatsPolls(data)
        polling = spawn(polls.poll(version_id, "r1", b"poll", PATIENCE_S), "poll")
        poll = await work.next("rq_polling.r1")
        assert poll.payload == b"poll"
        work.publish(poll.reply)
        await polling
        work.publish(message.reply, b"+ACK")

        async def leased() -> int:
            subject = f"$JS.API.CONSUMER.INFO.{queue_of(version_id)}"
            found: int = json.loads((await data.request(subject.encode(), b"")).payload)[
                "num_ack_pending"
            ]
            return found

        await until(leased, lambda count: count == 0)
        assert await work.flush() == []


async def test_it_reaches_nothing_but_the_queue_of_its_version(
    guarded_nats: GuardedNats, tokens: Tokens
) -> None:
    version_id, other_id, url = new_version(), new_version(), guarded_nats.url
    tokens.admit(version_id)
    async with connected(url, guarded_nats.gateway_options) as data, worker(url) as work:
        admin = JetStreamAdmin(data, [REGION], STREAMS)
        await admin.ensure(version_id)
        await admin.ensure(other_id)
        stream, other = stream_name(REGION, version_id), queue_of(other_id)
        for subject in (
            f"$JS.API.CONSUMER.MSG.NEXT.{other}",
            f"$JS.API.CONSUMER.INFO.{other}",
            f"$JS.ACK.{other}.1.1.1.1.1",
            f"nvcf.js.CONSUMER.MSG.NEXT.{other}",
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.STREAM.PURGE.{stream}",
            f"$JS.API.STREAM.DELETE.{stream}",
            f"$JS.API.CONSUMER.DELETE.{queue_of(version_id)}",
            f"$JS.API.DIRECT.GET.{stream}",
            "$JS.API.INFO",
            f"rq.{REGION}.{version_id}.x",
            f"nvcf.polled.{other_id}.x",
            cancel_subject(version_id),
            "$SYS.REQ.USER.AUTH",
            "$KV.keys.x",
        ):
            work.publish(subject, reply="_INBOX.x")
            (error,) = await work.flush()
            assert "Publish" in error, subject
        for subject in (
            cancel_subject(other_id),
            cancel_subject("*"),
            f"nvcf.polling.{other_id}.*",
            f"rq.{REGION}.{version_id}.>",
            "$SYS.>",
            ">",
        ):
            work.subscribe(subject)
            (error,) = await work.flush()
            assert "Subscription" in error, subject
        # What it may subscribe to is in an account of its own.
        work.subscribe("rq_polling.*")
        assert await work.flush() == []
        data.publish(b"rq_polling.r1", b"a client's token")
        data.publish(f"nvcf.cancel.{other_id}".encode(), b"r1")
        data.publish(f"nvcf.polling.{other_id}.r1".encode(), b"a client's token")
        await data.flush()
        await work.flush()
        assert work.unread == []


@pytest.mark.parametrize(
    "sent",
    [
        nvcf_token("revoked"),
        nvcf_token(""),
        "good",
        "",
        "eyJwYXlsb2FkIjoiZ29vZCJ9",
        nvcf_token("good").swapcase(),
    ],
)
async def test_a_login_without_a_good_token_is_refused(
    guarded_nats: GuardedNats, tokens: Tokens, sent: str
) -> None:
    tokens.admit(new_version())
    with pytest.raises(LoginError, match="Authorization Violation"):
        async with nvcf_nats(guarded_nats.url, sent):
            pass


async def test_a_login_ends_with_its_token(guarded_nats: GuardedNats, tokens: Tokens) -> None:
    tokens.admit(new_version(), lifetime_s=2.0)
    async with worker(guarded_nats.url) as work:
        await work.ended()


async def test_removing_a_version_ends_its_workers_connections(
    guarded_nats: GuardedNats, tokens: Tokens
) -> None:
    version_id, other_id = new_version(), new_version()
    tokens.admit(version_id)
    tokens.admit(other_id, "other")
    async with (
        guarded_nats.accounts() as accounts,
        worker(guarded_nats.url) as work,
        worker(guarded_nats.url, "other") as other,
    ):
        await accounts.remove([version_id])
        await work.ended()
        assert await other.flush() == []


async def test_the_callout_survives_a_server_that_forgets_its_accounts(
    guarded_nats: GuardedNats, tokens: Tokens
) -> None:
    tokens.admit(new_version())
    server = guarded_nats.server
    await server.kill()
    for document in (guarded_nats.logins.operator_seed.parent / "accounts").iterdir():
        document.unlink()
    await server.start()

    async def logs_in() -> bool:
        try:
            async with worker(guarded_nats.url):
                return True
        except (LoginError, OSError):
            return False

    await until(logs_in)
