"""`gateway nats check`: looks at NATS servers with the gateway's settings, and tries what it needs.

It makes a queue, a stream like those of the store, and the account of a version, all with new
names, logs in as a worker, lets a request pass through, and removes all that again. What a login
may not do is found by trying.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from queueing.interface import CredentialsError, QueueUnavailable
from queueing.nats.accounts.callout_documents import CalloutAccount
from queueing.nats.accounts.credentials import NatsAccounts
from queueing.nats.accounts.jwt import Signer, account_of, read_claims
from queueing.nats.accounts.users import QueueSubjects, WorkerUsers
from queueing.nats.connection import Denied, NatsConnection, NatsError
from queueing.nats.gateway import connection_options, stream_settings
from queueing.nats.jetstream import (
    CLUSTER_REPLICAS,
    JetStream,
    JetStreamError,
    StreamSettings,
    delete_message_subject,
    max_deliveries_subject,
    naks_subject,
    purge_subject,
)
from queueing.nats.login import ConnectionOptions, Login, LoginError, read_credentials
from queueing.nats.settings import GatewayNatsSettings
from queueing.nats.setup.callout_trial import CalloutTrial
from queueing.nats.setup.findings import (
    Finding,
    StoreBuckets,
    error,
    judge_account,
    judge_clock,
    judge_cluster,
    judge_login,
    judge_operator,
    judge_queue,
    judge_refusal,
    judge_server,
    judge_streams,
    warning,
)
from queueing.nats.setup.servers import ServersError, connected_to, server_settings
from queueing.settings import QueueSettings
from runtime.ids import new_uuid
from wire.subjects import (
    cancel_subject,
    direct_subject,
    holder_subject,
    locate_subject,
    polled_subject,
    polling_subject,
    position_subject,
    presence_subject,
    scoped_polling_subject,
    stream_name,
    worker_inbox,
)

_RESPONSE_S = 3.0
_ARRIVAL_S = 2.0
_LOGIN_S = 300
_ONE_MESSAGE = b'{"batch":1,"expires":1000000000}'
_INSTANCE = "check"
_PROCESS = 0xFFFF
"""Of no gateway that runs in a region of a check."""


class Checked(NamedTuple):
    """What was found, and the names of the servers that responded with their versions."""

    servers: dict[str, str]
    findings: list[Finding]


class NatsCheck:
    """One check. ``queue`` and ``store`` are what is kept on NATS."""

    def __init__(
        self, nats: GatewayNatsSettings, queue: QueueSettings | None, store: StoreBuckets | None
    ) -> None:
        self._nats = nats
        self._queue = queue
        self._store = store
        self._servers: dict[str, str] = {}
        self._findings: list[Finding] = []
        # Of no version and no deployment: what is left behind by a check that is killed is a queue
        # that nobody uses.
        self._version_id = new_uuid()

    async def run(self) -> Checked:
        """Look at everything and return what was found."""
        try:
            options = replace(connection_options(self._nats), name="gateway-check")
        except OSError as failure:
            self._add(
                error(
                    "nats.ca_file",
                    f"it cannot be read: {failure.strerror or failure}",
                    "give a PEM file",
                )
            )
            return self._checked()
        usable = await self._look_at_urls(options)
        if usable is not None:
            self._judge_credentials()
            await self._look_at_all_servers(options)
            await self._try_anonymous(usable)
            await self._try_gateway(usable)
        return self._checked()

    def _add(self, *findings: Finding) -> None:
        self._findings += [one for one in findings if one not in self._findings]

    def _checked(self) -> Checked:
        return Checked(self._servers, self._findings)

    async def _look_at_urls(self, options: ConnectionOptions) -> ConnectionOptions | None:
        """Connect to each server in the settings; return options for those that can be reached."""
        usable: list[str] = []
        for url in self._nats.urls:
            try:
                async with connected_to(replace(options, servers=(url,))) as connection:
                    info = connection.server_info
                    self._servers[str(info.get("server_name", url))] = str(info.get("version", ""))
                    self._add(*judge_server(info, time.time()))
                    usable.append(url)
            except ServersError as failure:
                self._add(
                    error(
                        _without_login(url),
                        f"no connection: {failure}",
                        "start the server, or correct nats.urls, the login, nats.ca_file or the "
                        "server's certificate",
                    )
                )
        return replace(options, servers=tuple(usable)) if usable else None

    def _judge_credentials(self) -> None:
        if self._nats.credentials_file is None:
            return
        with suppress(LoginError, ValueError):
            jwt, _ = read_credentials(self._nats.credentials_file)
            self._add(*judge_login(read_claims(jwt).get("exp"), time.time()))

    # All servers, over the system account

    async def _look_at_all_servers(self, options: ConnectionOptions) -> None:
        if self._nats.system_credentials_file is None:
            return
        login = Login(credentials_file=self._nats.system_credentials_file)
        try:
            async with connected_to(replace(options, login=login)) as system:
                responses = await server_settings(system)
        except ServersError as failure:
            self._add(
                error(
                    "nats.system_credentials_file",
                    f"the servers cannot be asked: {failure}",
                    "make a new login ('gateway nats rotate DIR system-user'), or one to the "
                    "system account with permission to publish to $SYS.REQ.SERVER.PING.VARZ, "
                    "$SYS.REQ.CLAIMS.UPDATE and $SYS.REQ.CLAIMS.DELETE",
                )
            )
            return
        for response in responses:
            server = response.document
            self._servers[str(server.get("server_name", "?"))] = str(server.get("version", ""))
            self._add(*judge_server(server, response.at_s))
        servers = [response.document for response in responses]
        self._add(*judge_cluster(servers, len(self._nats.urls), self._store))
        if self._nats.operator_seed_file is not None:
            with suppress(OSError, ValueError):
                signer = Signer(self._nats.operator_seed_file.read_text())
                self._add(*judge_operator(servers, signer.public))

    async def _try_anonymous(self, options: ConnectionOptions) -> None:
        if not self._has_login():
            self._add(
                warning(
                    "settings",
                    "the gateway has no login: whoever reaches the servers reads all queues and "
                    "the store",
                    "set up logins ('gateway nats init') and nats.credentials_file",
                )
            )
            return
        with suppress(ServersError):
            without_login = replace(
                options, login=Login(), servers=tuple(map(_without_login, options.servers))
            )
            async with connected_to(without_login) as connection:
                self._add(
                    error(
                        connection.server,
                        "a client without a login is let in",
                        "remove no_auth_user from its configuration, and default_sentinel unless "
                        "it is the line that 'gateway config nats-callout' prints",
                    )
                )

    def _has_login(self) -> bool:
        nats = self._nats
        has_own = nats.credentials_file or nats.token or nats.user
        return bool(has_own) or any("@" in url for url in nats.urls)

    # The gateway's account

    async def _try_gateway(self, options: ConnectionOptions) -> None:
        async with _tolerant(options, self._add) as connection:
            if connection is None:
                return
            jetstream = JetStream(connection, _RESPONSE_S)
            try:
                self._add(*judge_account(await jetstream.call("INFO", {})))
            except JetStreamError as refusal:
                self._add(judge_refusal("anything", 0, refusal))
                return
            except NatsError as failure:
                self._add(
                    error(
                        "gateway's account",
                        f"JetStream does not respond: {failure}",
                        "turn JetStream on in servers and account, and let the gateway's login "
                        "publish to $JS.API.> and subscribe to _INBOX.>",
                    )
                )
                return
            await self._look_at_streams(jetstream, is_clustered=connection.is_clustered())
            await self._try_subjects(connection)
            if self._store is not None:
                await self._try_store(jetstream, connection, self._store)
            if self._queue is not None:
                await self._try_queue(jetstream, connection, self._queue, options)

    async def _look_at_streams(self, jetstream: JetStream, *, is_clustered: bool) -> None:
        streams: list[dict[str, Any]] = []
        try:
            while True:
                page = await jetstream.call("STREAM.LIST", {"offset": len(streams)})
                found = page.get("streams") or []
                streams += found
                if not found or len(streams) >= int(page.get("total", 0)):
                    break
        except (JetStreamError, NatsError) as failure:
            self._add(
                error("gateway's account", f"streams cannot be listed: {failure}", _why(failure))
            )
            return
        replicas = self._queue.replicas if self._queue is not None else 1
        if not replicas:
            replicas = CLUSTER_REPLICAS if is_clustered else 1
        self._add(*judge_streams(streams, self._store, replicas))

    async def _try_subjects(self, connection: NatsConnection) -> None:
        """Subscribe and publish where the gateway does; the subjects are those of nobody."""
        version_id = region = self._version_id
        denied = _DeniedSubjects()
        connection.add_listener(denied, denied.denied)
        subjects = [
            position_subject(version_id),
            presence_subject(region),
            locate_subject(region, _PROCESS),
            holder_subject(region, _PROCESS),
            direct_subject(region),
            cancel_subject(version_id),
            polling_subject(version_id),
            scoped_polling_subject(version_id, version_id),
            polled_subject(version_id, version_id),
            f"nvcf.ended.{version_id}",
            f"nvcf.wanted.{version_id}",
        ]
        only_heard = [max_deliveries_subject().decode(), naks_subject().decode()]
        subscriptions = [
            connection.subscribe(subject.encode(), lambda *_: None)
            for subject in (*subjects, *only_heard)
        ]
        for subject in subjects:
            connection.publish(subject.encode(), b"")
        await connection.flush()
        for subscription in subscriptions:
            connection.unsubscribe(subscription)
        connection.remove_listener(denied)
        for subject in sorted(denied.subjects):
            self._add(
                error(
                    "gateway's login",
                    f"it may not use {subject.replace(version_id, '*')}",
                    _ALLOW,
                )
            )

    async def _try_store(
        self, jetstream: JetStream, connection: NatsConnection, store: StoreBuckets
    ) -> None:
        bucket = f"{store.prefix}_check_{self._version_id}"
        config = {
            "name": f"KV_{bucket}",
            "subjects": [f"$KV.{bucket}.>"],
            "storage": "file",
            "num_replicas": store.replicas,
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        }
        async with _made(jetstream, config, self._add) as is_made:
            if is_made:
                await self._try_publish(connection, f"$KV.{bucket}.name", "the store")

    async def _try_publish(self, connection: NatsConnection, subject: str, what: str) -> bool:
        try:
            reply = await connection.request(subject.encode(), b"{}", _RESPONSE_S)
            if b'"error"' not in reply.payload:
                return True
            cause, change = reply.payload.decode(errors="replace"), "see the message of the server"
        except NatsError as failure:
            cause, change = str(failure), _why(failure)
        self._add(error("gateway's login", f"a message for {what} is not stored: {cause}", change))
        return False

    async def _try_queue(
        self,
        jetstream: JetStream,
        connection: NatsConnection,
        queue: QueueSettings,
        options: ConnectionOptions,
    ) -> None:
        settings = stream_settings(queue, self._nats.region_tag)
        stream = stream_name(queue.region, self._version_id)
        try:
            copies = await jetstream.ensure(queue.region, self._version_id, settings)
            if not queue.replicas and connection.is_clustered() and copies < CLUSTER_REPLICAS:
                self._add(
                    warning(
                        "JetStream",
                        f"queues get {copies} copy: the restart of its server loses a queue",
                        f"run {CLUSTER_REPLICAS} servers with JetStream and room for the queues",
                    )
                )
            found = await jetstream.call(f"STREAM.INFO.{stream}", {})
            if "ts" in found:
                self._add(*judge_clock("JetStream", str(found["ts"]), time.time()))
            await self._try_workers(connection, queue.region, options)
            await self._try_removal(connection, stream)
            for region in queue.other_regions:
                await self._try_region(jetstream, region, settings)
        except JetStreamError as refusal:
            self._add(judge_queue(queue.region, settings, refusal))
        except NatsError as failure:
            self._add(error("gateway's login", f"a queue cannot be made: {failure}", _why(failure)))
        finally:
            with suppress(JetStreamError, NatsError):
                await jetstream.call(f"STREAM.DELETE.{stream}", {})

    async def _try_region(
        self, jetstream: JetStream, region: str, settings: StreamSettings
    ) -> None:
        try:
            await jetstream.ensure(region, self._version_id, settings)
        except JetStreamError as refusal:
            self._add(judge_queue(region, settings, refusal))
        finally:
            with suppress(JetStreamError, NatsError):
                stream = stream_name(region, self._version_id)
                await jetstream.call(f"STREAM.DELETE.{stream}", {})

    async def _try_removal(self, connection: NatsConnection, stream: str) -> None:
        """Withdraw as the gateway does."""
        for subject in (purge_subject(stream), delete_message_subject(stream)):
            try:
                await connection.request(subject, b'{"seq":1}', _RESPONSE_S)
            except Denied:
                allowed = subject.decode().rpartition(".")[0]
                self._add(error("gateway's login", f"it may not use {allowed}.*", _ALLOW))

    # Workers

    async def _try_workers(
        self, connection: NatsConnection, region: str, options: ConnectionOptions
    ) -> None:
        nats = self._nats
        if not (nats.operator_seed_file and nats.system_credentials_file and nats.credentials_file):
            self._add(
                warning(
                    "settings",
                    "workers get no logins of their own: they need one that reaches the queues of "
                    "all versions",
                    "set nats.operator_seed_file and nats.system_credentials_file, which 'gateway "
                    "nats init' makes",
                )
            )
            return
        try:
            jwt, _ = read_credentials(nats.credentials_file)
            users = WorkerUsers(nats.operator_seed_file.read_text(), account_of(jwt), [region])
        except (OSError, ValueError, LoginError) as failure:
            self._add(
                error(
                    "nats.operator_seed_file",
                    f"workers' logins cannot be made: {failure}",
                    "give the seed of the operator, or of one of its signing keys (SO…)",
                )
            )
            return
        login = Login(credentials_file=nats.system_credentials_file)
        with suppress(ServersError):  # which was found before
            async with connected_to(replace(options, login=login)) as system:
                accounts = NatsAccounts(users, system)
                await self._try_worker(connection, accounts, region, options)
                if nats.callout:
                    callout = CalloutAccount(nats.operator_seed_file.read_text())
                    self._add(*await CalloutTrial(system, callout, options).run())

    async def _try_worker(
        self,
        connection: NatsConnection,
        accounts: NatsAccounts,
        region: str,
        options: ConnectionOptions,
    ) -> None:
        expires_at = time.time() + _LOGIN_S
        try:
            login = await accounts.issue(self._version_id, _INSTANCE, _INSTANCE, expires_at)
        except (QueueUnavailable, CredentialsError) as failure:
            self._add(
                error(
                    "resolver",
                    f"accounts of versions cannot be made: {failure}",
                    "give the servers the resolver 'full' with a limit above the number of "
                    "versions, and the gateways an operator's signing key that they trust",
                )
            )
            return
        own = replace(
            options,
            login=Login(credentials=lambda: (login.jwt, login.seed)),
            inbox_prefix=worker_inbox(self._version_id, _INSTANCE),
        )
        try:
            async with connected_to(own) as worker:
                trial = _WorkerTrial(connection, worker, region, self._version_id)
                self._add(*await trial.run(self._try_publish))
        except ServersError as failure:
            self._add(
                error(
                    "workers' logins",
                    f"a worker is not let in: {failure}",
                    "give the servers the resolver 'full', and the gateways an operator's signing "
                    "key that they trust",
                )
            )
        try:
            await accounts.remove([self._version_id])
        except QueueUnavailable as failure:
            self._add(
                error(
                    "resolver",
                    f"accounts of versions cannot be removed: {failure}",
                    "set allow_delete: true (and hard_delete: true) in the servers' resolver",
                )
            )


_ALLOW = "let the gateway's login publish and subscribe to everything in its account"


def _why(failure: Exception) -> str:
    """Return what to do about a request that failed."""
    if isinstance(failure, Denied):
        return _ALLOW
    return (
        "check again in a few seconds: when a server has gone, leaders are elected anew; after "
        f"that see the servers' logs, or {_ALLOW}"
    )


class _WorkerTrial:
    """What a worker of a version can do, and cannot."""

    def __init__(
        self, gateway: NatsConnection, worker: NatsConnection, region: str, version_id: str
    ) -> None:
        self._gateway = gateway
        self._worker = worker
        self._version_id = version_id
        self._region = region
        self._subjects = QueueSubjects.of(region, version_id)

    async def run(
        self, publish: Callable[[NatsConnection, str, str], Awaitable[bool]]
    ) -> list[Finding]:
        """Let one request pass through; return what does not work."""
        version_id = self._version_id
        missing: list[str] = []
        if not await self._responds(self._subjects.info):
            missing.append("$JS.API.CONSUMER.INFO.> (service)")
        if await publish(self._gateway, f"rq.{self._region}.{version_id}.check", "a queue"):
            missing += await self._lease()
        for subject, exported in (
            (cancel_subject(version_id), "nvcf.cancel.* (stream)"),
            (scoped_polling_subject(version_id, version_id), "nvcf.polling.*.* (stream)"),
        ):
            if not await _arrives(self._gateway, self._worker, subject):
                missing.append(exported)
        if not await _arrives(self._worker, self._gateway, polled_subject(version_id, "check")):
            missing.append("nvcf.polled.*.> (service)")
        findings = [
            error(
                "gateway's account",
                f"workers do not reach {exported}",
                "export it in the account's document ('gateway nats push DIR' gives the servers "
                "the present one), and let the gateway's login use it",
            )
            for exported in missing
        ]
        if await self._responds("$JS.API.STREAM.NAMES"):
            findings.append(
                error(
                    "workers' logins",
                    "a worker reaches the API of JetStream, and with it the queues of others",
                    "export only what docs/nats.md lists",
                )
            )
        return findings

    async def _lease(self) -> list[str]:
        leased: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_message(_to: bytes, reply: bytes, _headers: bytes, _data: bytes) -> None:
            if reply and not leased.done():
                leased.set_result(reply)

        inbox = self._worker.inbox()
        subscription = self._worker.subscribe(inbox, on_message)
        try:
            self._worker.publish(
                self._subjects.next.encode(), b'{"batch":1,"expires":1000000000}', inbox
            )
            async with asyncio.timeout(_ARRIVAL_S):
                ack = await leased
        except TimeoutError:
            return ["$JS.API.CONSUMER.MSG.NEXT.> (service)"]
        finally:
            self._worker.unsubscribe(subscription)
        return [] if await self._responds(ack.decode(), b"+ACK") else ["$JS.ACK.> (service)"]

    async def _responds(self, subject: str, payload: bytes = b"") -> bool:
        try:
            await self._worker.request(subject.encode(), payload, _ARRIVAL_S)
        except NatsError:
            return False
        return True


class _DeniedSubjects:
    """A `queueing.interface.ConnectionListener` that collects denials."""

    def __init__(self) -> None:
        self.subjects: set[str] = set()

    def connected(self) -> None:
        """Nothing: only denials matter."""

    def disconnected(self) -> None:
        """Nothing: requests fail by themselves."""

    def denied(self, subject: bytes) -> None:
        self.subjects.add(subject.decode())


@asynccontextmanager
async def _tolerant(
    options: ConnectionOptions, add: Callable[[Finding], None]
) -> AsyncIterator[NatsConnection | None]:
    try:
        async with connected_to(options) as connection:
            yield connection
    except ServersError as failure:
        add(error("servers", f"the connection was lost: {failure}", "see the servers' logs"))


@asynccontextmanager
async def _made(
    jetstream: JetStream, config: dict[str, Any], add: Callable[[Finding], None]
) -> AsyncIterator[bool]:
    """Make a stream while the block runs; yield whether that could be done."""
    name, is_made = config["name"], False
    try:
        await jetstream.call(f"STREAM.CREATE.{name}", config)
        is_made = True
    except JetStreamError as refusal:
        add(judge_refusal("a bucket of the store", config["num_replicas"], refusal))
    except NatsError as failure:
        add(error("gateway's login", f"a bucket cannot be made: {failure}", _why(failure)))
    try:
        yield is_made
    finally:
        if is_made:
            with suppress(JetStreamError, NatsError):
                await jetstream.call(f"STREAM.DELETE.{name}", {})


async def _arrives(sender: NatsConnection, receiver: NatsConnection, subject: str) -> bool:
    """Return whether a message from one account gets to the other.

    It is sent again and again for a while: servers tell each other of subscriptions.
    """
    arrived = asyncio.Event()
    subscription = receiver.subscribe(subject.encode(), lambda *_: arrived.set())
    try:
        await receiver.flush()
        async with asyncio.timeout(_ARRIVAL_S):
            while True:
                sender.publish(subject.encode(), b"")
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ARRIVAL_S / 10):
                        await arrived.wait()
                        return True
    except TimeoutError:
        return False
    finally:
        receiver.unsubscribe(subscription)


def _without_login(url: str) -> str:
    """Return ``url`` without user and password."""
    scheme, slashes, authority = url.rpartition("//")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}"
