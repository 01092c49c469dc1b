import asyncio
import ssl
import subprocess
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from queueing.nats.connection import Denied, NatsConnection, NoResponders, NoResponse, NotConnected
from queueing.nats.login import ConnectionOptions, Login, parse_server
from queueing.nats.transport import Link, open_link
from runtime.tasks import spawn
from tests.support.nats_server import NatsServer, running_nats_server
from tests.support.queue_harness import (
    OPTIONS,
    Diary,
    connected,
    counted,
    gateway,
    new_version,
    publish,
    worker,
)
from tests.support.waiting import PATIENCE_S, until

WORKER_MAY = """
  "rq.*.{version}.>", "nvcf.cancel.{version}", "$JS.API.CONSUMER.INFO.>",
  "$JS.API.CONSUMER.MSG.NEXT.*.*", "$JS.ACK.>", "_INBOX.>"
"""


class Owner:
    """What a link reports to, of which only its loss matters."""

    def __init__(self) -> None:
        self.is_lost = asyncio.Event()

    def link_info(self, link: Link) -> None: ...

    def link_refused(self, link: Link, text: str) -> None: ...

    def link_failed(self) -> None: ...

    def link_lost(self, link: Link, reason: str) -> None:
        self.is_lost.set()


class Watch(Diary):
    """A `ConnectionListener` that writes down what it is told."""

    def connected(self) -> None:
        self.write("connected")

    def disconnected(self) -> None:
        self.write("disconnected")

    def denied(self, subject: bytes) -> None:
        self.write("denied", subject)

    async def sees(self, *entry: object) -> None:
        await self.until(lambda: entry in self.entries)


async def echo(connection: NatsConnection, subject: bytes) -> None:
    def answer(_subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        connection.publish(reply, payload)

    connection.subscribe(subject, answer)
    await connection.flush()


async def test_requests_find_their_own_answers(shared_nats_server: NatsServer) -> None:
    async with connected(shared_nats_server.url) as one, connected(shared_nats_server.url) as two:
        await echo(two, b"echo")
        texts = [b"%d" % number * 1000 for number in range(200)]
        replies = await asyncio.gather(*[one.request(b"echo", text) for text in texts])
        assert [reply.payload for reply in replies] == texts


async def test_a_request_without_answer_says_why(shared_nats_server: NatsServer) -> None:
    async with connected(shared_nats_server.url) as connection:
        with pytest.raises(NoResponders):
            await connection.request(b"nobody", b"")
        connection.subscribe(b"silence", lambda *_: None)
        with pytest.raises(NoResponse):
            await connection.request(b"silence", b"", timeout_s=0.05)


async def test_a_handler_that_fails_costs_no_other_message(
    shared_nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[bytes] = []

    def fails_once(_subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        got.append(payload)
        if payload == b"1":
            raise RuntimeError("a bug")

    async with connected(shared_nats_server.url) as connection:
        connection.subscribe(b"some", fails_once)
        for payload in (b"1", b"2", b"3"):
            connection.publish(b"some", payload)
        await connection.flush()
        assert got == [b"1", b"2", b"3"]
        assert (connection.failures, connection.refusals) == (1, 0)
    assert "nats.handler_failed" in caplog.text


async def test_subscriptions_outlive_the_server(nats_server: NatsServer) -> None:
    async with connected(nats_server.url) as one, connected(nats_server.url) as two:
        watches = [Watch(), Watch()]
        for side, watch in zip((one, two), watches, strict=True):
            side.add_listener(watch)
        await echo(two, b"echo")
        await nats_server.kill()
        for watch in watches:
            await watch.sees("disconnected")
        assert not one.publish(b"echo", b"lost")
        with pytest.raises(NotConnected):
            await one.request(b"echo", b"lost")
        await nats_server.start()
        for watch in watches:
            await watch.sees("connected")
        await two.flush()
        assert (await one.request(b"echo", b"again")).payload == b"again"


async def test_an_end_that_we_asked_for_is_no_loss(
    shared_nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with connected(shared_nats_server.url) as connection:
        connection.subscribe(b"silence", lambda *_: None)
        asking = asyncio.gather(connection.request(b"silence", b"", 60.0))
        await connection.flush()
    with pytest.raises(NotConnected):
        await asking
    assert connection.losses == 0
    assert [record.levelname for record in caplog.records] == ["INFO"] * len(caplog.records)
    assert caplog.records[-1].message == "nats.closed"


async def test_a_pending_request_fails_with_its_link(nats_server: NatsServer) -> None:
    async with connected(nats_server.url) as connection:
        connection.subscribe(b"silence", lambda *_: None)
        asking = asyncio.gather(connection.request(b"silence", b"", 60.0))
        await connection.flush()
        await nats_server.kill()
        with pytest.raises(NotConnected):
            await asking


async def test_a_round_trip_may_be_made_while_a_new_link_takes_over(
    shared_nats_server: NatsServer,
) -> None:
    async with connected(shared_nats_server.url) as connection:
        renewing = spawn(connection.renew(), "renewal")
        trips = [await connection.flush()]
        while not renewing.done():
            trips.append(await connection.flush())
        assert await renewing
        assert all(trips)


async def test_a_link_that_is_lost_in_its_hand_over_ends_that_at_once(
    shared_nats_server: NatsServer,
) -> None:
    owner, done = Owner(), asyncio.Event()
    server = parse_server(shared_nats_server.url)
    link = await open_link(server, owner, {}, ConnectionOptions())
    link.hold()
    link.abort("expired")
    await until(owner.is_lost.is_set)
    link.send_while_held(b"", done.set)
    assert done.is_set()


async def test_the_other_server_is_taken_when_one_is_gone() -> None:
    async with running_nats_server() as one, running_nats_server() as two:
        async with connected(f"{one.url},{two.url}") as connection:
            first = connection.server
            lost = one if str(one.port) in first else two
            await lost.kill()
            await until(lambda: connection.server not in {"", first})


async def test_a_broker_that_does_not_read_bounds_what_waits(nats_server: NatsServer) -> None:
    options = replace(OPTIONS, buffer_bytes=1 << 20)
    async with connected(nats_server.url, options) as connection:
        nats_server.pause()
        sent = 0
        while connection.publish(b"flood", bytes(64 << 10)):
            sent += 1
            assert sent < 1000
            await asyncio.sleep(0)
        assert sent >= 16
        nats_server.resume()
        await connection.flush()
        assert connection.publish(b"flood", b"")


@pytest.mark.parametrize(
    ("config", "login"),
    [
        ('authorization { token: "secret" }', Login(token=lambda: "secret")),
        ('authorization { user: "me", password: "secret" }', Login(user="me", password="secret")),
    ],
)
async def test_logs_in(config: str, login: Login) -> None:
    async with running_nats_server(config) as server:
        async with connected(server.url, replace(OPTIONS, login=login)) as connection:
            await connection.flush()
            assert connection.is_connected()
        stranger = NatsConnection(replace(OPTIONS, servers=(server.url,)))
        stranger.start()
        await until(lambda: "Authorization Violation" in stranger.last_error)
        assert not stranger.is_connected()
        assert stranger.failures >= 1
        await stranger.close()


async def test_logs_in_with_an_nkey() -> None:
    nkeys = pytest.importorskip("nkeys")
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(seed).public_key.decode()
    config = f"authorization {{ users: [ {{ nkey: {public} }} ] }}"
    options = replace(OPTIONS, login=Login(nkey_seed=seed.decode()))
    async with running_nats_server(config) as server, connected(server.url, options) as connection:
        assert connection.is_connected()


def make_certificate(directory: Path) -> tuple[Path, Path]:
    key, certificate = directory / "key.pem", directory / "cert.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    files = ["-keyout", str(key), "-out", str(certificate)]
    address = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words.split(), *files, *address], check=True, capture_output=True)
    return key, certificate


async def test_speaks_tls_when_the_server_demands_it(tmp_path: Path) -> None:
    key, certificate = await asyncio.to_thread(make_certificate, tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    async with running_nats_server(config) as server:
        async with connected(server.url, replace(OPTIONS, tls=context)) as connection:
            await echo(connection, b"echo")
            payload = bytes(100_000)
            assert (await connection.request(b"echo", payload)).payload == payload
        stranger = NatsConnection(replace(OPTIONS, servers=(server.url,)))
        stranger.start()
        await until(lambda: "certificate" in stranger.last_error.lower())
        await stranger.close()


async def test_a_worker_needs_only_the_permissions_of_a_worker() -> None:
    version = new_version()
    may = WORKER_MAY.replace("{version}", version)
    config = f"""
      authorization {{ users: [
        {{ user: gateway, password: g }}
        {{ user: worker, password: w,
           permissions: {{ publish: [{may}], subscribe: [{may}] }} }}
      ] }}
    """
    as_gateway = replace(OPTIONS, login=Login(user="gateway", password="g"))
    as_worker = replace(OPTIONS, login=Login(user="worker", password="w"))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_nats_server(config))
        queue = await stack.enter_async_context(gateway(server.url, options=as_gateway))
        work = await stack.enter_async_context(
            worker(server.url, version, slots=2, options=as_worker)
        )
        request, _ = await publish(queue, version)
        (lease,) = await work.has(1)
        lease.in_progress()
        queue.withdraw(version, request)
        await work.until(lambda: work.cancelled == [request])
        lease.ack()

        connection = await stack.enter_async_context(connected(server.url, as_worker))
        assert connection.refusals == 0
        watch = Watch()
        connection.add_listener(watch, watch.denied)
        with pytest.raises(Denied):
            await connection.request(b"$JS.API.STREAM.DELETE.rq", b"")
        connection.subscribe(b"other.>", lambda *_: None)
        await watch.sees("denied", b"other.>")
        assert connection.is_connected()


async def test_a_gateway_that_may_not_publish_is_told_at_once() -> None:
    may = 'permissions: { publish: { deny: "rq.>" } }'
    config = f"authorization {{ users: [ {{ user: g, password: g, {may} }} ] }}"
    options = replace(OPTIONS, login=Login(user="g", password="g"))
    async with (
        running_nats_server(config) as server,
        gateway(server.url, options=options) as queue,
    ):
        version = new_version()
        _, client = await publish(queue, version)
        assert client.entries == [("publish_failed", "QueueUnavailable")]
        assert str(client.error) == "The broker denies publishing"
        assert counted(queue, version) == {"Ok": 0, "Denied": 1}


async def test_a_server_that_announces_its_end_is_left_without_losing_an_answer() -> None:
    """Two servers of one cluster; the requester's goes into lame-duck mode under load."""
    cluster = 'cluster {{ name: duck, listen: "127.0.0.1:{port}", routes: [{routes}] }}'
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            running_nats_server(
                "server_name: first\n" + cluster.format(port=-1, routes=""), jetstream=False
            )
        )
        route = f'"nats-route://127.0.0.1:{first.cluster_port}"'
        second = await stack.enter_async_context(
            running_nats_server(
                "server_name: second\n" + cluster.format(port=-1, routes=route), jetstream=False
            )
        )
        answering = await stack.enter_async_context(connected(second.url))
        await echo(answering, b"echo")
        # It knows the other server only from the cluster.
        asking = await stack.enter_async_context(connected(first.url))
        watch = Watch()
        asking.add_listener(watch)

        async def is_answered() -> bool:
            try:
                await asking.request(b"echo", b"", 0.5)
            except (NoResponders, NoResponse):
                return False
            return True

        await until(is_answered, what="the route to forward the subscription")
        first.lame_duck()
        asked = 0
        async with asyncio.timeout(PATIENCE_S):
            while ("connected",) not in watch.entries:
                await asking.request(b"echo", b"%d" % asked)
                asked += 1
        await asking.request(b"echo", b"on the other")
        assert asking.server.endswith(str(second.port))
        assert (asking.lame_ducks, asking.losses) == (1, 0)
        assert asked


async def test_without_another_server_the_lame_duck_is_used_to_the_end(
    nats_server: NatsServer,
) -> None:
    async with connected(nats_server.url) as connection:
        await echo(connection, b"echo")
        nats_server.lame_duck()
        await until(lambda: connection.lame_ducks == 1)
        assert (await connection.request(b"echo", b"still")).payload == b"still"


async def test_what_a_server_says_at_the_end_is_counted() -> None:
    """Not nats-server's, which tells a slow consumer nothing."""
    last_words = [b"-ERR 'Slow Consumer'\r\n", b"nonsense\r\n"]
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO {}\r\n")
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await reader.readuntil(b"PING\r\n")
        writer.write(last_words.pop(0))
        if not last_words:
            server.close()
        writer.close()
        await writer.wait_closed()
        if not last_words:
            over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        watch = Watch()
        async with connected(f"nats://127.0.0.1:{port}") as connection:
            connection.add_listener(watch)
            await connection.flush()
            await watch.sees("disconnected")
            assert connection.losses == 1
            assert (connection.refusals, connection.slow_consumers) == (1, 1)
            assert connection.failures == 0
            await watch.sees("connected")
            await connection.flush()
            await watch.until(lambda: connection.losses == 2)
            # The nonsense, for which we gave the server up.
            assert (connection.refusals, connection.failures) == (1, 1)
            await over.wait()


async def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(Exception, match="no NATS address"):
        NatsConnection(ConnectionOptions(servers=("http://broker",)))
