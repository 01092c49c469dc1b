"""Webhooks on their way from the store of each backend to real receivers."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks.webhooks import Webhook

from gateway.auth.sealing import SecretBox
from gateway.store.follower import BucketFollower
from gateway.store.names import META, WEBHOOKS
from gateway.store.records import Store
from gateway.webhooks.addresses import WebhookRules
from gateway.webhooks.deliverer import LEASE_S, MAX_PER_HOST, WebhookClocks, WebhookDeliverer
from gateway.webhooks.outbox import WebhookOutbox
from gateway.webhooks.secrets import OVERLAP_S, WebhookSecrets
from gateway.webhooks.sender import WebhookSender
from runtime.ids import new_uuid
from runtime.metrics import MetricRegistry
from tests.support.followed_store import opened
from tests.support.free_ports import free_port
from tests.support.nats_server import NatsServer, nats_server, shared_nats_server
from tests.support.redis_server import running_redis_server
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhooks import WebhookReceiver, webhook_receiver

__all__ = ["nats_server", "shared_nats_server"]

LOOPBACK = (ip_network("127.0.0.0/8"),)
RULES = WebhookRules(private_networks=LOOPBACK, allows_http=True)
KEY = os.urandom(32)
KEEP_S = 3600.0


class Time:
    """Both clocks, which only the test moves on."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.elapsed = 0.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds


class Names(AbstractResolver):
    """A resolver that knows what a test says."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses[host]
        ]

    async def close(self) -> None:
        pass


class Site:
    """A store, and the deliverers that a test starts on it."""

    def __init__(self, store: Store, stack: AsyncExitStack) -> None:
        self.store = store
        self.time = Time()
        self.account = f"acme-{new_uuid()}"
        self.secrets = WebhookSecrets(store, SecretBox(KEY), lambda: self.time.wall, os.urandom)
        self.outbox = WebhookOutbox(store, RULES, MetricRegistry(), lambda: self.time.wall)
        self._stack = stack

    async def start(
        self, resolver: AbstractResolver | None = None, rules: WebhookRules = RULES
    ) -> WebhookDeliverer:
        """Start another process's deliverer, and wait until it has read the store."""
        loaded = asyncio.Event()
        deliverer = WebhookDeliverer(
            self.store,
            self.secrets,
            WebhookSender(rules, resolver),
            WebhookClocks(lambda: self.time.wall, lambda: self.time.elapsed, lambda: 0.5),
            new_uuid(),
            KEEP_S,
        )
        follower = BucketFollower(WEBHOOKS, self.store, deliverer, loaded.set)
        follower.start()
        self._stack.push_async_callback(deliverer.stop)
        self._stack.push_async_callback(follower.stop)
        async with asyncio.timeout(PATIENCE_S):
            await loaded.wait()
        return deliverer

    async def keep(self, url: str, **view: Any) -> str:
        request_id = new_uuid()
        assert await self.outbox.keep(request_id, self.account, url, "done", view)
        return request_id

    async def becomes(
        self, request_id: str, deliverer: WebhookDeliverer, **expected: object
    ) -> dict[str, object]:
        """Tick, with a second between two ticks, until a webhook is shown so."""

        async def look() -> dict[str, object]:
            self.time.advance(0.05)
            deliverer.tick()
            return await self.outbox.view(request_id)

        return await until(look, lambda view: expected.items() <= view.items(), what=str(expected))


@asynccontextmanager
async def site_on(url: str) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(url))
        await store.prepare(META, WEBHOOKS)
        yield Site(store, stack)


@pytest.fixture
async def site(shared_nats_server: NatsServer) -> AsyncIterator[Site]:
    async with site_on(shared_nats_server.url) as site:
        yield site


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as receiver:
        yield receiver


async def delivers(site: Site, receiver: WebhookReceiver) -> None:
    """Deliver a webhook and look at it, then let it be forgotten."""
    deliverer = await site.start()
    request_id = await site.keep(f"{receiver.url}?a=%20b", status=200)
    await site.becomes(request_id, deliverer, state="delivered", attempts=1, lastStatus=204)
    (got,) = receiver.received
    assert got.path == "/hook?a=%20b"
    assert got.headers["webhook-id"] == f"msg_{request_id}"
    assert got.headers["content-type"] == "application/json"
    assert not {"authorization", "cookie", "accept-encoding"} & set(got.headers)
    assert got.event["type"] == "request.done"
    assert got.event["data"]["status"] == 200
    secret = await site.secrets.of(site.account)
    # Not with the library's verify: it accepts no other time than now.
    sent_at = datetime.fromtimestamp(int(got.headers["webhook-timestamp"]), UTC)
    signature = Webhook(secret.value).sign(got.headers["webhook-id"], sent_at, got.body.decode())
    assert got.headers["webhook-signature"] == signature
    site.time.advance(KEEP_S + 1)
    await site.becomes(request_id, deliverer, state="unknown")


async def test_a_webhook_is_delivered_with_the_store_on_nats(
    site: Site, receiver: WebhookReceiver
) -> None:
    await delivers(site, receiver)


async def test_a_webhook_is_delivered_with_the_store_on_valkey(receiver: WebhookReceiver) -> None:
    async with running_redis_server() as server, site_on(server.url) as site:
        await delivers(site, receiver)


async def test_what_fails_is_tried_again_later_with_the_same_id(
    site: Site, receiver: WebhookReceiver
) -> None:
    deliverer = await site.start()
    receiver.answers.extend([(500, {}), (503, {"retry-after": "100"}), (200, {})])
    request_id = await site.keep(receiver.url)
    await site.becomes(request_id, deliverer, attempts=1, lastStatus=500)
    site.time.advance(6)
    await site.becomes(request_id, deliverer, attempts=2, lastStatus=503)
    site.time.advance(40)
    deliverer.tick()
    site.time.advance(55)
    await site.becomes(request_id, deliverer, state="delivered", attempts=3, lastStatus=200)
    assert {got.headers["webhook-id"] for got in receiver.received} == {f"msg_{request_id}"}
    assert len({got.headers["webhook-timestamp"] for got in receiver.received}) == 3
    assert len({got.body for got in receiver.received}) == 1

    refused = await site.keep(f"http://127.0.0.1:{free_port()}/")
    await site.becomes(refused, deliverer, state="pending", lastError="unreachable")


async def test_what_is_gone_is_given_up_and_a_day_is_enough(
    site: Site, receiver: WebhookReceiver
) -> None:
    deliverer = await site.start()
    receiver.answers.extend([(410, {}), (500, {}), (500, {})])
    gone = await site.keep(receiver.url)
    await site.becomes(gone, deliverer, state="failed", attempts=1, lastStatus=410)
    late = await site.keep(receiver.url)
    await site.becomes(late, deliverer, attempts=1, lastStatus=500)
    site.time.advance(86_400)
    await site.becomes(late, deliverer, state="failed", attempts=2, lastStatus=500)


async def test_a_redirect_is_not_followed(site: Site, receiver: WebhookReceiver) -> None:
    deliverer = await site.start()
    async with webhook_receiver() as hidden:
        receiver.answers.append((307, {"location": hidden.url}))
        request_id = await site.keep(receiver.url)
        await site.becomes(request_id, deliverer, attempts=1, lastStatus=307, state="pending")
        assert hidden.received == []


async def test_a_name_whose_address_is_not_public_is_not_reached(
    site: Site, receiver: WebhookReceiver
) -> None:
    """Only what the rules permit is connected to, also of a name that has other addresses too."""
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    names = Names(
        private_example=["10.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"],
        mixed_example=["::1", "127.0.0.1"],
    )
    deliverer = await site.start(names)
    private = await site.keep(f"http://private.example:{port}/")
    await site.becomes(private, deliverer, lastError="address_refused", state="pending")
    mixed = await site.keep(f"http://mixed.example:{port}/")
    await site.becomes(mixed, deliverer, state="delivered")
    assert [got.headers["host"] for got in receiver.received] == [f"mixed.example:{port}"]
    # Asked once: what was checked is what was connected to.
    assert names.asked == ["private.example", "mixed.example"]


async def test_an_address_is_refused_also_if_only_the_sender_knows_the_rules(
    site: Site, receiver: WebhookReceiver
) -> None:
    deliverer = await site.start(rules=WebhookRules(allows_http=True))
    request_id = await site.keep(receiver.url)
    await site.becomes(request_id, deliverer, state="failed", lastError="url_refused")
    assert receiver.received == []


async def test_an_attempt_that_died_with_its_process_is_made_by_another(
    site: Site, receiver: WebhookReceiver
) -> None:
    first = await site.start()
    receiver.is_silent = True
    request_id = await site.keep(receiver.url)
    await site.becomes(request_id, first, attempts=1)
    await receiver.wait(1)
    await first.stop(within_s=0)
    receiver.speak()
    second = await site.start()
    site.time.advance(1)
    second.tick()
    assert (await site.outbox.view(request_id))["attempts"] == 1
    site.time.advance(LEASE_S)
    await site.becomes(request_id, second, state="delivered", attempts=2)
    assert len(receiver.received) == 2


async def test_of_several_processes_one_delivers(site: Site, receiver: WebhookReceiver) -> None:
    processes = [await site.start() for _ in range(3)]
    requests = [await site.keep(receiver.url) for _ in range(20)]

    async def states() -> set[object]:
        site.time.advance(0.05)
        for process in processes:
            process.tick()
        return {(await site.outbox.view(one))["state"] for one in requests}

    await until(states, lambda found: found == {"delivered"})
    assert len(receiver.received) == 20


async def test_a_receiver_that_does_not_respond_holds_up_only_its_own(
    site: Site, receiver: WebhookReceiver
) -> None:
    deliverer = await site.start(Names(slow_example=["127.0.0.1"], fast_example=["127.0.0.1"]))
    async with webhook_receiver() as slow:
        slow.is_silent = True
        port = slow.url.rpartition(":")[2]
        stuck = [await site.keep(f"http://slow.example:{port}") for _ in range(MAX_PER_HOST + 2)]
        await site.becomes(stuck[0], deliverer, attempts=1)
        await slow.wait(MAX_PER_HOST)
        quick = await site.keep(f"http://fast.example:{receiver.url.rpartition(':')[2]}")
        await site.becomes(quick, deliverer, state="delivered")
        assert len(slow.received) == MAX_PER_HOST
        slow.speak()
        for request_id in stuck:
            await site.becomes(request_id, deliverer, state="delivered")


async def test_after_a_rotation_both_secrets_sign_for_a_day(
    site: Site, receiver: WebhookReceiver
) -> None:
    deliverer = await site.start()
    old = await site.secrets.of(site.account)
    new = await site.secrets.rotate(site.account)
    assert new.previous == old.value
    for wait_s, signing in ((1.0, [new.value, old.value]), (OVERLAP_S, [new.value])):
        site.time.advance(wait_s)
        request_id = await site.keep(receiver.url)
        await site.becomes(request_id, deliverer, state="delivered")
        got = receiver.received[-1]
        assert len(got.headers["webhook-signature"].split()) == len(signing)
    # Sealed in the store, for this account only.
    name = f"webhook-secret.{site.account.encode().hex()}"
    stored = await site.store.get_raw(META, name)
    assert stored is not None
    assert new.value.encode() not in stored[0]


async def test_a_secret_of_another_master_key_is_a_failed_attempt_until_it_is_made_anew(
    site: Site, receiver: WebhookReceiver
) -> None:
    deliverer = await site.start()
    others = WebhookSecrets(
        site.store, SecretBox(os.urandom(32)), lambda: site.time.wall, os.urandom
    )
    await others.of(site.account)
    request_id = await site.keep(receiver.url)
    await site.becomes(request_id, deliverer, attempts=1, lastError="secret_unreadable")
    site.time.advance(6)
    await site.becomes(request_id, deliverer, attempts=2)
    await site.secrets.rotate(site.account)
    site.time.advance(40)
    await site.becomes(request_id, deliverer, state="delivered", attempts=3)
    await others.rotate(site.account)
    late = await site.keep(receiver.url)
    site.time.advance(86_400)
    await site.becomes(late, deliverer, state="failed", lastError="secret_unreadable")
