"""Clients of the gateway processes, by address, with the connections to each.

A client uses one pipeline at a time for complete small responses. Streamed responses and the rests
of request bodies each have a connection of their own while they last.
"""

import asyncio
import ssl
from collections import deque
from contextlib import suppress
from urllib.parse import urlsplit

from http1.client.connection import SMALL_BODY_BYTES, ClientConnection
from http1.client.pipeline import Pipeline
from http1.client.pool import Connect, Pool
from http1.stream import NO_TRAILERS
from queueing.interface import RunDecision
from runtime.tasks import spawn
from runtime.timeouts import silence_limit
from wire.decoded_envelope import Envelope
from wire.headers import (
    NVCF_BROKEN_OFF,
    NVCF_CHANNEL_CALL,
    NVCF_DELIVERIES,
    NVCF_FAULT,
    NVCF_INSTANCE_ID,
    NVCF_LATE,
    NVCF_LEASED_US,
    NVCF_REQID,
    NVCF_RUNNING,
    NVCF_UNRUN,
    NVCF_UPGRADED,
)
from wire.http1 import parse_trailers
from wire.websocket import WEBSOCKET
from wire.worker_api import ATTACH_PATH, RUN_PATH
from worker_agent.attach.channels import AgentChannels
from worker_agent.attach.stream import RestOfBody, StreamedPost
from worker_agent.job.context import Delivery
from worker_agent.job.machine import Job
from worker_agent.job.websocket import SWITCHING

REST_HEAD_S = 5.0
"""How long a GET may wait for the first byte of its response (``docs/wire.md`` §5.2)."""
RUN_TIMEOUT_S = 5.0
"""How long the response to a question or report about one request may take, with connecting."""
FORGET_S = 60.0
"""How long the client of a gateway process is kept without connections."""


_UPGRADED_LINE = b"%b: %b\r\n" % (NVCF_UPGRADED, WEBSOCKET)
_DECISIONS = {
    200: RunDecision.RERUNNABLE,
    204: RunDecision.RUN,
    409: RunDecision.LATER,
    410: RunDecision.NEVER,
}


class AttachLimits:
    """Bounds of the connections to one gateway process.

    ``idle_s`` must be shorter than the time for which the gateway keeps idle connections, which is
    3605 s on its attach listener (`wire.deadlines.MAX_INVOCATION_S`).
    """

    __slots__ = ("connect_timeout_s", "idle_s", "max_idle", "vanished_s")

    def __init__(
        self, *, idle_s: float, max_idle: int, connect_timeout_s: float, vanished_s: float
    ) -> None:
        self.idle_s = idle_s
        self.max_idle = max_idle
        self.connect_timeout_s = connect_timeout_s
        self.vanished_s = vanished_s


class GatewayPool:
    """Implements `worker_agent.job.context.Attach`: a client for each address in an envelope."""

    __slots__ = ("_by_uri", "_channels", "_instance_id", "_limits", "_loop")

    def __init__(
        self, limits: AttachLimits, channels: AgentChannels, instance_id: str = ""
    ) -> None:
        """``instance_id`` is told to the gateways with each response, unless it is empty."""
        self._limits = limits
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        self._instance_id = instance_id.encode()
        self._by_uri: dict[bytes, GatewayClient] = {}

    def deliver(self, job: Delivery) -> None:
        """Send a complete response over a channel if it is small, else POST it."""
        uri = job.envelope.target_uri
        channel = self._channels.to(uri)
        if channel is not None and channel.takes(job):
            channel.used_at = now = self._loop.time()
            channel.respond(job, int((now - job.leased_at) * 1_000_000))
            return
        (self._by_uri.get(uri) or self._client_of(uri)).deliver(job)

    def stream(self, job: Job, head: bytes, total_bytes: int | None) -> StreamedPost:
        """POST a response that begins with ``head``."""
        return self._client(job).stream(job, head, total_bytes)

    def fetch(self, job: Job) -> RestOfBody:
        """GET the rest of the request's body."""
        return self._client(job).fetch(job)

    async def may_run(
        self, envelope: Envelope, deliveries: int, *, is_running: bool
    ) -> RunDecision | None:
        """Ask the gateway process that holds the client."""
        client = self._client_of(envelope.target_uri)
        return await client.may_run(envelope, deliveries, is_running=is_running)

    async def dropped_late(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway process that holds the client, if it responds."""
        await self._client_of(envelope.target_uri).tell(envelope, deliveries, NVCF_LATE)

    async def gave_back(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway process that holds the client, if it responds."""
        await self._client_of(envelope.target_uri).tell(envelope, deliveries, NVCF_UNRUN)

    async def broke_off(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway process that holds the client, if it responds."""
        await self._client_of(envelope.target_uri).tell(envelope, deliveries, NVCF_BROKEN_OFF)

    def sweep(self) -> None:
        """Close connections idle for too long; to be called about once a second."""
        for uri, client in list(self._by_uri.items()):
            if not client.sweep():
                del self._by_uri[uri]

    def close(self) -> None:
        """Close every connection."""
        for client in self._by_uri.values():
            client.close()

    def _client(self, job: Job) -> "GatewayClient":
        return self._client_of(job.envelope.target_uri)

    def _client_of(self, uri: bytes) -> "GatewayClient":
        client = self._by_uri.get(uri)
        if client is None:
            client = self._by_uri[uri] = GatewayClient(uri, self._limits, self._instance_id)
        return client


def is_target(uri: bytes) -> bool:
    """Whether ``uri`` is the address of an HTTP server."""
    try:
        parts = urlsplit(uri.decode("ascii"))
        # The encoding that connecting uses: a label that is too long must not fail there.
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in {"http", "https"} and bool(host) and parts.port != 0
    except ValueError:
        return False


class GatewayClient:
    """The client of one gateway process; ``uri`` is its scheme and authority."""

    __slots__ = (
        "_connect",
        "_get_head",
        "_is_connecting",
        "_limits",
        "_loop",
        "_pipeline",
        "_pipelines",
        "_pool",
        "_post_head",
        "_rests",
        "_run_head",
        "_used_at",
        "_waiting",
    )

    def __init__(self, uri: bytes, limits: AttachLimits, instance_id: bytes) -> None:
        """Connections are opened when the first job needs one."""
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._connect = connector(uri, self._loop)
        self._pool = Pool(
            self._connect,
            idle_s=limits.idle_s,
            max_idle=limits.max_idle,
            connect_timeout_s=limits.connect_timeout_s,
            vanished_s=limits.vanished_s,
        )
        authority = uri.partition(b"://")[2].rstrip(b"/")
        instance = b"%b: %b\r\n" % (NVCF_INSTANCE_ID, instance_id) if instance_id else b""
        self._post_head = (
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/octet-stream+h1\r\n"
            b"%bauthorization: Bearer " % (ATTACH_PATH, authority, instance)
        )
        self._get_head = (
            b"GET %b HTTP/1.1\r\nhost: %b\r\naccept: application/octet-stream\r\n"
            b"authorization: Bearer " % (ATTACH_PATH, authority)
        )
        self._run_head = b"POST %b HTTP/1.1\r\nhost: %b\r\nauthorization: Bearer " % (
            RUN_PATH,
            authority,
        )
        self._pipeline: Pipeline | None = None
        self._pipelines: set[Pipeline] = set()
        self._waiting: deque[Delivery] = deque()
        self._is_connecting = False
        self._rests: dict[RestOfBody, float] = {}
        self._used_at = self._loop.time()

    def deliver(self, job: Delivery) -> None:
        """POST `Job.response`, pipelined when it is small."""
        response = job.response
        if not response:
            # The job ended before a connection was open.
            return
        if job.trailers:
            # Only a chunked POST has a place for them.
            self.stream(job, response, None).send_end(parse_trailers(job.trailers))
            return
        if len(response) > 2 * SMALL_BODY_BYTES:
            post = self.stream(job, response, len(response))
            post.send_end(NO_TRAILERS)
            return
        now = self._loop.time()
        pipeline = self._pipeline
        if pipeline is not None and pipeline.has_room(now):
            pipeline.post(job, self._post_message(job, response, now), now)
            return
        for pipeline in self._pipelines:
            if pipeline.has_room(now):
                self._pipeline = pipeline
                pipeline.post(job, self._post_message(job, response, now), now)
                return
        self._waiting.append(job)
        if not self._is_connecting:
            self._is_connecting = True
            spawn(self._open_pipeline(), "attach.connect")

    def stream(self, job: Delivery, head: bytes, total_bytes: int | None) -> StreamedPost:
        """POST a response that begins with ``head`` on a connection of its own."""
        post = StreamedPost(self._pool, job)
        connection = self._pool.take()
        if connection is not None:
            self._start_post(post, connection, job, head, total_bytes)
        else:
            spawn(self._open_post(post, job, head, total_bytes), "attach.connect")
        return post

    def fetch(self, job: Job) -> RestOfBody:
        """GET the rest of the request's body on a connection of its own."""
        rest = RestOfBody(job)
        self._rests[rest] = self._loop.time()
        connection = self._pool.take()
        if connection is not None:
            self._start_get(rest, connection, job)
        else:
            spawn(self._open_get(rest, job), "attach.connect")
        return rest

    async def may_run(
        self, envelope: Envelope, deliveries: int, *, is_running: bool
    ) -> RunDecision | None:
        """Ask whether to run a request that was delivered again (``docs/wire.md`` §5.5).

        A gateway that does not know the question lets it run. One that refuses the connection is
        gone, and its clients with it. ``None``: it does not respond, or cannot just now.
        """
        running = b"%b: 1\r\n" % NVCF_RUNNING if is_running else b""
        try:
            message = self._run_message(envelope, deliveries, running)
            status = await self._pool.status_of(message, RUN_TIMEOUT_S)
        except ConnectionRefusedError:
            return None if is_running else RunDecision.NEVER
        except OSError:
            return None
        if status >= 500:
            return None
        return _DECISIONS.get(status, RunDecision.RUN)

    async def tell(self, envelope: Envelope, deliveries: int, news: bytes) -> None:
        """Tell what became of a request: the header ``news`` says what."""
        with suppress(OSError):
            message = self._run_message(envelope, deliveries, b"%b: 1\r\n" % news)
            await self._pool.status_of(message, RUN_TIMEOUT_S)

    def _run_message(self, envelope: Envelope, deliveries: int, more: bytes) -> bytes:
        return b"%b%b\r\n%b: %b\r\n%b: %d\r\n%bcontent-length: 0\r\n\r\n" % (
            self._run_head,
            envelope.response_token.encode(),
            NVCF_REQID,
            envelope.request_id.encode(),
            NVCF_DELIVERIES,
            deliveries,
            more,
        )

    def sweep(self) -> bool:
        """Close connections idle for too long, and those whose gateway process has vanished.

        Returns ``False`` if the client may be discarded.
        """
        now = self._loop.time()
        limits = self._limits
        self._pool.sweep()
        for pipeline in list(self._pipelines):
            is_unused = pipeline.is_idle() and now - pipeline.idle_since > limits.idle_s
            if is_unused or pipeline.silent_s(now) > limits.vanished_s:
                pipeline.close()
        for rest, since in list(self._rests.items()):
            if not rest.is_waiting():
                del self._rests[rest]
            elif now - since > REST_HEAD_S:
                del self._rests[rest]
                rest.unreachable()
        if self._pipelines or self._waiting or self._rests or self._pool.open_count:
            self._used_at = now
        return now - self._used_at < FORGET_S

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()
        for pipeline in list(self._pipelines):
            pipeline.close()

    def pipeline_lost(self, pipeline: Pipeline) -> None:
        """Forget a closed pipeline."""
        self._pipelines.discard(pipeline)
        if self._pipeline is pipeline:
            self._pipeline = None

    async def _open_pipeline(self) -> None:
        pipeline = Pipeline(self, self._loop)
        try:
            async with silence_limit(self._limits.connect_timeout_s):
                await self._connect(lambda: pipeline)
            pipeline.keep_alive(self._limits.vanished_s)
        except OSError:
            self._is_connecting = False
            waiting, self._waiting = self._waiting, deque()
            for job in waiting:
                job.post_broken()
            return
        self._is_connecting = False
        self._pipelines.add(pipeline)
        self._pipeline = pipeline
        # Jobs for which this pipeline has no room wait again, and the next one is opened.
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            self.deliver(job)

    async def _open_post(
        self, post: StreamedPost, job: Delivery, head: bytes, total_bytes: int | None
    ) -> None:
        try:
            connection = await self._pool.connect()
        except OSError:
            post.unreachable()
        else:
            self._start_post(post, connection, job, head, total_bytes)

    async def _open_get(self, rest: RestOfBody, job: Job) -> None:
        try:
            connection = await self._pool.connect()
        except OSError:
            rest.unreachable()
        else:
            self._start_get(rest, connection, job)

    def _start_post(
        self,
        post: StreamedPost,
        connection: ClientConnection,
        job: Delivery,
        head: bytes,
        total_bytes: int | None,
    ) -> None:
        framing = (
            b"transfer-encoding: chunked"
            if total_bytes is None
            else b"content-length: %d" % total_bytes
        )
        post_head = self._head_of(job, framing, self._loop.time())
        if not post.opened(connection, post_head, head, is_chunked=total_bytes is None):
            self._pool.released(connection)

    def _start_get(self, rest: RestOfBody, connection: ClientConnection, job: Job) -> None:
        token = (job.envelope.request_token or "").encode()
        call = _call_line(job.envelope)
        if job.status == SWITCHING:
            call += _UPGRADED_LINE
        if not rest.opened(connection, b"%b%b\r\n%b\r\n" % (self._get_head, token, call)):
            self._pool.released(connection)

    def _post_message(self, job: Delivery, response: bytes, now: float) -> bytes:
        return self._head_of(job, b"content-length: %d" % len(response), now) + response

    def _head_of(self, job: Delivery, framing: bytes, now: float) -> bytes:
        if job.fault:
            framing = b"%b: %b\r\n%b" % (NVCF_FAULT, job.fault, framing)
        return b"%b%b\r\n%b: %d\r\n%b%b\r\n\r\n" % (
            self._post_head,
            job.envelope.response_token.encode(),
            NVCF_LEASED_US,
            int((now - job.leased_at) * 1_000_000),
            _call_line(job.envelope),
            framing,
        )


def _call_line(envelope: Envelope) -> bytes:
    """Return the header line that names a call which came over a channel."""
    number = envelope.channel_call
    return b"%b: %d\r\n" % (NVCF_CHANNEL_CALL, number) if number else b""


def connector(uri: bytes, loop: asyncio.AbstractEventLoop) -> Connect:
    """Return what opens a connection to a gateway process."""
    parts = urlsplit(uri.decode("ascii"))
    is_tls = parts.scheme == "https"
    context = ssl.create_default_context() if is_tls else None
    host = parts.hostname or ""
    port = parts.port or (443 if is_tls else 80)

    return lambda factory: loop.create_connection(factory, host, port, ssl=context)
