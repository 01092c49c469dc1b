"""Gateway processes, workers and a queue in memory, for tests of calls over channels.

Everything between the client and the inference server is real but for HTTP, the broker and time:
what is on its way waits until the test lets it arrive, or loses it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.attach.channels import WorkerChannels
from gateway.attach.endpoint import AttachEndpoint
from gateway.domain.model import FunctionVersion, VersionState
from gateway.errors import GatewayError
from gateway.invocation.collection import CollectionBounds, UploadSpace
from gateway.invocation.context import Context, Ticket
from gateway.invocation.machine import Invocation
from gateway.invocation.states import DONE
from gateway.routing.admission import Caller
from http1.framed import FramedConnection
from http1.stream import NO_TRAILERS, Failure, Headers, Request, RequestStream, TakeChunk
from queueing.interface import RunDecision
from tests.support.memory_wire import MemoryConnection, MemoryTransport, VirtualLoop, settle
from tests.support.recorder import RecordedResponseWriter, RecordedSpool, Script
from wire.channel import MAX_RESPONSE_BYTES
from wire.decoded_envelope import Envelope
from wire.headers import AUTHORIZATION, NVCF_CHANNEL_CALL
from wire.ids import FunctionId, VersionId
from wire.worker_api import CHANNEL_PATH
from worker_agent.attach.channels import AgentChannels
from worker_agent.job.machine import Job
from worker_agent.job.request import PlatformHeaders
from worker_agent.job.states import DONE as JOB_DONE
from worker_agent.runner import JobRunner
from worker_agent.slots import Slots

VERSION = FunctionVersion(
    FunctionId("11111111-1111-4111-8111-111111111111"),
    VersionId("22222222-2222-4222-8222-222222222222"),
    "acme",
    "echo",
    VersionState.ACTIVE,
)
MAX_RUNS = 3
LEASE_S = 30.0
STANDSTILL_S = 22.5
PLATFORM_HEADERS = PlatformHeaders("h:1", [], asset_dir="/a", large_output_dir="/o")


class StoredRequest:
    """A request in the broker; ``leased_to`` is the worker that has it, or nobody."""

    def __init__(self, request_id: str, envelope: bytes) -> None:
        self.request_id = request_id
        self.envelope = envelope
        self.deliveries = 0
        self.leased_to: ModelWorker | None = None
        self.leased_at = 0.0


class ModelBroker:
    """One queue: first come, first served; what is handed back goes to the front."""

    def __init__(self, world: "DirectWorld") -> None:
        self._world = world
        self.waiting: deque[StoredRequest] = deque()
        self.leased: dict[str, StoredRequest] = {}
        self.pulls: deque[list[Any]] = deque()

    def publish(self, request_id: str, envelope: bytes) -> None:
        self.waiting.append(StoredRequest(request_id, envelope))
        self.serve()

    def withdraw(self, request_id: str) -> None:
        self.waiting = deque(one for one in self.waiting if one.request_id != request_id)
        self.leased.pop(request_id, None)
        for worker in self._world.workers:
            worker.from_broker.append(("cancel", request_id))

    def pull(self, worker: "ModelWorker", inbox: int, batch: int) -> None:
        self.pulls.append([worker, inbox, batch])
        self.serve()

    def end_inbox(self, worker: "ModelWorker", inbox: int) -> None:
        self.pulls = deque(one for one in self.pulls if one[:2] != [worker, inbox])

    def end_worker(self, worker: "ModelWorker") -> None:
        self.pulls = deque(one for one in self.pulls if one[0] is not worker)

    def end_lease(self, request: StoredRequest, deliveries: int, *, is_ack: bool) -> None:
        if self.leased.get(request.request_id) is not request or request.deliveries != deliveries:
            return
        del self.leased[request.request_id]
        request.leased_to = None
        if not is_ack:
            self.waiting.appendleft(request)
            self._world.handed_back(request.request_id, deliveries)
            self.serve()

    def expire(self, now: float) -> None:
        for request in [r for r in self.leased.values() if now - r.leased_at > LEASE_S]:
            del self.leased[request.request_id]
            request.leased_to = None
            self.waiting.appendleft(request)
        self.serve()

    def serve(self) -> None:
        while self.waiting and self.pulls:
            pull = self.pulls[0]
            pull[2] -= 1
            if not pull[2]:
                self.pulls.popleft()
            request = self.waiting.popleft()
            request.deliveries += 1
            request.leased_to, request.leased_at = pull[0], self._world.loop.now
            self.leased[request.request_id] = request
            pull[0].from_broker.append(
                (
                    "lease",
                    pull[1],
                    request,
                    request.deliveries,
                    len(self.waiting),
                    request.leased_at,
                )
            )


class ModelLease:
    """A `queueing.interface.Lease` of the model's queue."""

    def __init__(
        self, worker: "ModelWorker", request: StoredRequest, deliveries: int, pending: int
    ) -> None:
        self._worker = worker
        self._request = request
        self._pending = pending
        self.deliveries = deliveries
        self.request_id = request.request_id
        self.envelope = request.envelope
        self.is_ended = False

    def is_over(self) -> bool:
        return False

    def followers(self) -> int:
        return self._pending

    def stored_at_ns(self) -> int:
        return 0

    def is_first_known(self) -> bool:
        return True

    def in_progress(self) -> None:
        if self._request.leased_to is self._worker:
            self._request.leased_at = self._worker.world.loop.now

    def ack(self) -> None:
        self._end(is_ack=True)

    def nak(self, delay_s: float = 0.0) -> None:
        self._end(is_ack=False)

    def term(self) -> None:
        self._end(is_ack=True)

    def _end(self, *, is_ack: bool) -> None:
        if not self.is_ended and self._worker.is_alive:
            self.is_ended = True
            self._worker.to_broker.append(
                lambda broker: broker.end_lease(self._request, self.deliveries, is_ack=is_ack)
            )


class ModelConsumer:
    """A `queueing.interface.PullConsumer`: that of NATS without binding, silence and standstill."""

    def __init__(self, worker: "ModelWorker") -> None:
        self._worker = worker
        self._free = self._asked = self._inbox = self._delivered = self._looked_delivered = 0
        self._is_scheduled = self._is_line_empty = self._has_followers = False
        self._cancelled: set[str] = set()
        self._on_line: Callable[[], None] = lambda: None
        self.leases: list[ModelLease] = []

    def watch(
        self,
        on_standstill: Callable[[], None],
        on_loss: Callable[[], None],
        on_bound: Callable[[], None],
        renew: Callable[[], None],
        on_line: Callable[[], None],
    ) -> None:
        self._on_line = on_line

    def want(self, free: int) -> None:
        self._free = free
        if free <= 0:
            if self._asked:
                self._asked = 0
                self._set_line(is_empty=False)
                inbox, self._inbox = self._inbox, self._inbox + 1
                worker = self._worker
                worker.to_broker.append(lambda broker: broker.end_inbox(worker, inbox))
        else:
            self._schedule()

    def taken(self) -> None:
        self._free -= 1

    def is_line_empty(self) -> bool:
        return self._is_line_empty

    def is_bound(self) -> bool:
        return True

    async def drain(self) -> None:
        """Nothing of it is used."""

    async def close(self) -> None:
        """Nothing of it is used."""

    def on_message(self, inbox: int, lease: ModelLease, *, is_old: bool) -> None:
        is_late = inbox != self._inbox
        if not is_late:
            self._asked = max(0, self._asked - 1)
            self._delivered += 1
            is_last = not lease.followers()
            self._has_followers = not is_last
            if is_last is not self._is_line_empty and (self._asked or not is_last):
                self._set_line(is_empty=is_last)
        if lease.request_id in self._cancelled:
            lease.ack()
        elif not is_old:
            self._free -= 1
            self.leases.append(lease)
            self._worker.runner.on_lease(lease)
        if not is_late:
            self._schedule()

    def on_cancelled(self, request_id: str) -> None:
        self._cancelled.add(request_id)
        self._worker.runner.on_cancel(request_id)

    def look(self) -> None:
        """As it looks at itself every quarter of a second."""
        if self._delivered == self._looked_delivered:
            self.on_pong(self._delivered)
        self._looked_delivered = self._delivered

    def on_pong(self, delivered: int) -> None:
        if delivered == self._delivered and self._asked:
            self._set_line(is_empty=True)

    def _schedule(self) -> None:
        if not self._is_scheduled and 2 * self._asked <= self._free:
            self._is_scheduled = True
            self._worker.world.loop.call_soon(self._refill)

    def _refill(self) -> None:
        self._is_scheduled = False
        asked, free, worker, inbox = self._asked, self._free, self._worker, self._inbox
        if free <= asked or 2 * asked > free or not worker.is_alive:
            return
        self._asked = free
        worker.to_broker.append(lambda broker: broker.pull(worker, inbox, free - asked))
        if not self._is_line_empty and not self._has_followers:
            delivered = self._delivered
            worker.to_broker.append(lambda _: worker.from_broker.append(("pong", delivered)))

    def _set_line(self, *, is_empty: bool) -> None:
        if is_empty is not self._is_line_empty:
            self._is_line_empty = is_empty
            self._on_line()


class ModelRun:
    """One run at an inference server; it is over when the server is done with it."""

    trailers = NO_TRAILERS

    def __init__(self, worker: "ModelWorker", job: Job) -> None:
        self.worker = worker
        self.job = job
        self.has_head = self.is_over = self.is_left = False

    def send_data(self, data: bytes) -> None:
        """The calls of this model have no body."""

    def send_end(self) -> None:
        """The same."""

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """They come as data."""

    def pause_reading(self) -> None:
        """Responses come as a test says."""

    def resume_reading(self) -> None:
        """The same."""

    def finish(self, way: int) -> None:
        """Respond with a whole response, a stream or its next part, or break off."""
        job = self.job
        if self.is_left:
            self.is_over = True
            job.discarded()
        elif self.has_head:
            self.is_over = True
            job.response_data(b"last")
            job.response_end()
        elif way == 1:
            self.has_head = True
            job.response_head(200, [], None)
        elif way == 2:
            self.is_over = True
            job.response_whole(200, [], MAX_RESPONSE_BYTES, bytes(MAX_RESPONSE_BYTES))
        elif way == 3:
            self.is_over = True
            job.response_broken(Failure.CLOSED, is_stale=False)
        else:
            self.is_over = True
            job.response_whole(200, [], 2, b"ok")


class ModelPost:
    """A POST attach on its way to a gateway process, on a connection of its own."""

    def __init__(self, worker: "ModelWorker", job: Job) -> None:
        envelope = job.envelope
        headers = [(AUTHORIZATION, b"Bearer " + envelope.response_token.encode())]
        if envelope.channel_call:
            headers.append((NVCF_CHANNEL_CALL, b"%d" % envelope.channel_call))
        self.worker = worker
        self.gateway = worker.world.gateway_at(envelope.target_uri)
        self.job = job
        self._headers: Headers = headers
        self.parts: deque[bytes | None] = deque()
        self._stream: RequestStream | None = None
        self.is_over = False

    def send_data(self, data: bytes) -> None:
        self.parts.append(data)

    def send_end(self, trailers: Headers) -> None:
        self.parts.append(None)

    def abort(self) -> None:
        self.lose()

    def lose(self) -> None:
        if not self.is_over:
            self.is_over = True
            if self._stream is not None and self.gateway is not None and self.gateway.is_alive:
                self._stream.request_broken()

    def is_refused(self) -> bool:
        """Whether the gateway process is gone."""
        return self.gateway is None or not self.gateway.is_alive

    def has_parts(self) -> bool:
        """Whether something is on its way."""
        return bool(self.parts) or self._stream is None

    def advance(self) -> None:
        """Let the next part arrive."""
        gateway = self.gateway
        if gateway is None or not gateway.is_alive:
            self.lose()
            self.job.post_broken()
            return
        if self._stream is None:
            request = Request(b"POST", b"/", b"", self._headers, None, 0.0)
            writer = RecordedResponseWriter(Script(), "post")
            writer.send_head = self._answered  # type: ignore[method-assign]
            writer.send_data = lambda data: None  # type: ignore[method-assign]
            writer.send_end = lambda: None  # type: ignore[method-assign]
            try:
                self._stream = gateway.endpoint.serve(request, writer)
            except GatewayError as error:
                self._answered(error.status, [], 0)
        elif self.parts:
            part = self.parts.popleft()
            if part is None:
                self._stream.request_end()
            else:
                self._stream.request_data(part)

    def _answered(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        if not self.is_over:
            self.is_over = True
            if self.worker.is_alive:
                self.job.post_answered(status)


class ModelWorker:
    """A worker: the real runner and channels, between an inference server and the model."""

    def __init__(self, world: "DirectWorld", name: str, limit: int) -> None:
        self.world = world
        self.name = name
        self.limit = limit
        self.is_alive = True
        self.is_paused = False
        self.is_blocked = False
        self.to_broker: deque[Callable[[ModelBroker], None]] = deque()
        self.from_broker: deque[tuple[Any, ...]] = deque()
        self.connections: list[MemoryConnection] = []
        self.posts: list[ModelPost] = []
        self.runs: list[ModelRun] = []
        self.begun: set[str] = set()
        self.stopped: set[str] = set()
        self.consumer = ModelConsumer(self)
        self.channels = AgentChannels(
            VERSION.version_id,
            name,
            self._connect,
            connect_timeout_s=5.0,
            vanished_s=10.0,
        )
        self.runner = JobRunner(
            Slots(limit, 64),
            PLATFORM_HEADERS,
            self,
            channels=self.channels,
            is_attachable=lambda uri: True,
            on_busy=lambda: None,
        )
        self.runner.open(self, self, self.consumer)

    async def _connect(self, uri: bytes, factory: Callable[[], asyncio.Protocol]) -> None:
        gateway = self.world.gateway_at(uri)
        if gateway is None:
            raise ConnectionRefusedError
        if self.is_blocked:
            raise OSError("no route to host")
        self.connections.append(MemoryConnection(self.world.loop, factory, ModelFront(gateway)))

    # worker_agent.runner.Telemetry

    def started(self, job: Job) -> None:
        self.begun.add(job.request_id)

    def freed(self, job: Job) -> None:
        """Not counted."""

    def ended(self, job: Job, now: float) -> None:
        """Not counted."""

    def invalid(self, defect: object) -> None:
        raise AssertionError(defect)

    def rejected(self) -> None:
        raise AssertionError("an envelope or a call was rejected")

    # worker_agent.job.context.Inference

    def open(self, request: object, job: Any, *, is_fresh: bool) -> None:
        if job.may_send(self.world.loop.now):
            run = ModelRun(self, job)
            self.runs.append(run)
            self.world.begun(self, run)
            job.sent(run, self.world.loop.now)

    def broke(self) -> None:
        """Another request may do better."""

    def discard(self, writer: Any, job: Any) -> None:
        writer.is_left = True

    # worker_agent.job.context.Attach, as in `worker_agent.attach.gateways.GatewayPool`

    def deliver(self, job: Job) -> None:
        channel = self.channels.to(job.envelope.target_uri)
        if channel is not None and channel.takes(job):
            channel.respond(job, 0)
            return
        post = ModelPost(self, job)
        post.send_data(job.response)
        post.send_end(NO_TRAILERS)
        self.posts.append(post)

    def stream(self, job: Job, head: bytes, total_bytes: int | None) -> ModelPost:
        post = ModelPost(self, job)
        post.send_data(head)
        self.posts.append(post)
        self.world.loop.call_soon(job.posted)
        return post

    def fetch(self, job: Job) -> Any:
        raise AssertionError("the calls of this model have no body")

    async def may_run(
        self, envelope: Envelope, deliveries: int, *, is_running: bool
    ) -> RunDecision | None:
        gateway = self.world.gateway_at(envelope.target_uri)
        call = None if gateway is None else gateway.endpoint.live.get(envelope.request_id)
        if call is None:
            return RunDecision.NEVER
        return call.run_requested(deliveries, is_running=is_running)

    async def gave_back(self, envelope: Envelope, deliveries: int) -> None:
        """No call here is run once."""

    async def broke_off(self, envelope: Envelope, deliveries: int) -> None:
        """The endpoint sets `was_broken_off`, and asks for it."""

    async def dropped_late(self, envelope: Envelope, deliveries: int) -> None:
        raise AssertionError("no call of this model is late")

    # The test

    def receive_from_broker(self) -> None:
        kind, *rest = self.from_broker.popleft()
        if kind == "lease":
            inbox, request, deliveries, pending, sent_at = rest
            lease = ModelLease(self, request, deliveries, pending)
            # One that may be another worker's by now is dropped.
            is_old = self.world.loop.now - sent_at >= STANDSTILL_S
            self.consumer.on_message(inbox, lease, is_old=is_old)
        elif kind == "cancel":
            self.stopped.add(rest[0])
            self.consumer.on_cancelled(rest[0])
        else:
            self.consumer.on_pong(rest[0])

    def die(self) -> None:
        """As SIGKILL does: the kernel sends what was written, and ends the connections."""
        self.is_alive = False
        self.world.broker.end_worker(self)
        self.to_broker.clear()
        self.from_broker.clear()
        self.runs.clear()
        for connection in self.connections:
            connection.client.is_mute = True
        self.channels.close()
        for connection in self.connections:
            connection.client.abort()
        for post in self.posts:
            while post.has_parts() and not post.is_over:
                post.advance()
            post.lose()

    def held(self) -> list[ModelLease]:
        """The leases of requests that wait here for a slot."""
        self.consumer.leases = [one for one in self.consumer.leases if not one.is_ended]
        return [one for one in self.consumer.leases if one.request_id not in self.begun]


class ModelFront(asyncio.Protocol):
    """The gateway's side of a new connection: reads the request for a channel."""

    def __init__(self, gateway: "ModelGateway") -> None:
        self._gateway = gateway
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self._transport = transport
        self._gateway.transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, is_whole, rest = self._held.partition(b"\r\n\r\n")
        if not is_whole:
            return
        assert not rest
        first, *lines = head.split(b"\r\n")
        pairs = [line.split(b": ", 1) for line in lines]
        headers = [(name.lower(), value) for name, value in pairs]
        method, target, _ = first.split(b" ")
        assert target.decode() == CHANNEL_PATH.decode()
        try:
            self._gateway.endpoint.serve_channel(
                Request(method, target, b"", headers, 0, 0.0),
                self,  # type: ignore[arg-type]
            )
        except GatewayError as error:
            self._transport.write(b"HTTP/1.1 %d Refused\r\n\r\n" % error.status)
            self._transport.abort()

    def hand_over(self, headers: Headers, successor: Any) -> None:
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % lines)
        self._transport.set_protocol(successor)
        successor.connection_made(self._transport)


class ModelGateway:
    """A gateway process: the real invocations, channels and attach endpoint.

    It is its own queue, of which only ``has_waiting`` and the runs are more than the broker's, and
    its own registry of live invocations.
    """

    def __init__(self, world: "DirectWorld", uri: bytes) -> None:
        self.world = world
        self.uri = uri
        self.is_alive = True
        self.endpoint = AttachEndpoint(lambda: world.loop.now)
        self.transports: list[MemoryTransport] = []
        self.to_broker: deque[Callable[[ModelBroker], None]] = deque()
        self._published: dict[str, set[int]] = {}
        self._doubtful: set[str] = set()
        self._waiting: dict[str, None] = {}
        self.channels = WorkerChannels(
            self.endpoint.live,
            self,
            lambda: world.loop.now,
            uri,
            lambda: f"{next(world.numbers):036d}",
            lambda user: FramedConnection(user, world.loop),
        )
        self.endpoint.channels = self.channels
        self._context = Context(
            queue=self,  # type: ignore[arg-type]
            channels=self.channels,
            registry=self,
            region=b"eu",
            attach_uri=uri,
            process=1,
            uploads=UploadSpace(CollectionBounds(), RecordedSpool(Script()).open),
            max_body_bytes=0,
            clock=lambda: world.loop.now,
        )

    def call(self, method: bytes) -> "ModelCall":
        request_id = f"33333333-3333-4333-8333-{next(self.world.numbers):012d}"
        client = RecordedResponseWriter(Script(), "client")
        invocation = Invocation(
            self._context,
            client,
            Request(method, b"/", b"f.example", [(b"host", b"f.example")], 0, self.world.loop.now),
            Caller(VERSION, "acme", "alice", 60),
            Ticket(request_id, 0),
        )
        self.endpoint.live[request_id] = invocation
        call = ModelCall(self, invocation, client)
        self.world.calls[request_id] = call
        invocation.request_end()
        return call

    def die(self) -> None:
        self.is_alive = False
        self.to_broker.clear()
        for transport in self.transports:
            transport.is_mute = True
            transport.abort()

    # gateway.invocation.context.LiveInvocations

    def issue_response_token(self, request_id: str) -> str:
        token = f"{next(self.world.numbers):036d}"
        self.endpoint.response_tokens.issue(token, self.endpoint.live[request_id])
        return token

    def issue_request_token(self, request_id: str) -> str:
        raise AssertionError("the calls of this model have no body")

    def renew_response_token(self, request_id: str) -> None:
        invocation = self.endpoint.live[request_id]
        self.endpoint.response_tokens.issue(invocation.response_token, invocation)

    def expired(self, request_id: str) -> None:
        raise AssertionError("no time passes for the calls of this model")

    def finished(self, request_id: str) -> None:
        invocation = self.endpoint.live.pop(request_id)
        self.endpoint.response_tokens.revoke(invocation.response_token)
        self.forget(request_id)

    # queueing.interface.FunctionQueue

    def publish(
        self,
        version_id: str,
        request_id: str,
        envelope: bytes,
        callbacks: Any,
        trace: bytes,
        *,
        runs: int = 0,
    ) -> None:
        self.world.calls[request_id].was_published = True
        if runs >= MAX_RUNS:
            self.world.loop.call_soon(callbacks.undeliverable)
            return
        self._published[request_id] = {1, *range(-runs, 0)}
        self._waiting[request_id] = None
        self.to_broker.append(lambda broker: broker.publish(request_id, envelope))

    def withdraw(self, version_id: str, request_id: str) -> None:
        self.forget(request_id)
        self.to_broker.append(lambda broker: broker.withdraw(request_id))

    def has_waiting(self, version_id: str) -> bool:
        return bool(self._waiting)

    def leased(self, request_id: str) -> None:
        self._waiting.pop(request_id, None)

    def answered(self, request_id: str) -> None:
        self.forget(request_id)

    def forget(self, request_id: str) -> None:
        self._published.pop(request_id, None)
        self._waiting.pop(request_id, None)

    def may_run(self, request_id: str, deliveries: int) -> RunDecision:
        runs = self._published[request_id]
        if deliveries not in runs and len(runs) >= MAX_RUNS:
            if request_id not in self._doubtful:
                self._doubtful.add(request_id)
                return RunDecision.LATER
            self.endpoint.live[request_id].undeliverable()
            return RunDecision.NEVER
        runs.add(deliveries)
        return RunDecision.RUN

    def started(self, request_id: str) -> None:
        """Nothing is lost by the queue of this model."""

    def handed_back(self, request_id: str, deliveries: int) -> None:
        self._published.get(request_id, set()).discard(deliveries)


class ModelCall:
    """A client's call. ``runs`` counts how often an inference server began with it."""

    def __init__(
        self, gateway: ModelGateway, invocation: Invocation, client: RecordedResponseWriter
    ) -> None:
        self.gateway = gateway
        self.invocation = invocation
        self.client = client
        self.runs = 0
        self.was_published = False

    @property
    def is_over(self) -> bool:
        return self.invocation.state is DONE or not self.gateway.is_alive

    def leave(self) -> None:
        if not self.is_over:
            self.invocation.request_broken()


class DirectWorld:
    """All of it. ``losses`` counts what can cost a call a run: breaks, deaths, broken runs."""

    def __init__(self, loop: VirtualLoop, limits: list[int], gateways: int) -> None:
        self.loop = loop
        self.numbers = iter(range(1, 1 << 30))
        self.losses = 0
        self.calls: dict[str, ModelCall] = {}
        self.broker = ModelBroker(self)
        self.gateways = [ModelGateway(self, b"http://10.0.0.%d" % n) for n in range(gateways)]
        self.workers = [ModelWorker(self, f"w{n}", limit) for n, limit in enumerate(limits)]

    def gateway_at(self, uri: bytes) -> ModelGateway | None:
        return next((one for one in self.gateways if one.uri == uri and one.is_alive), None)

    def handed_back(self, request_id: str, deliveries: int) -> None:
        for gateway in self.gateways:
            gateway.handed_back(request_id, deliveries)

    def begun(self, worker: ModelWorker, run: ModelRun) -> None:
        """Check that a run may begin."""
        request_id = run.job.request_id
        call = self.calls[request_id]
        call.runs += 1
        if call.gateway.is_alive:
            assert call.invocation.head_at == 0.0, "run after its response head"
        assert request_id not in worker.stopped, "run after the worker heard of its end"
        at_work = [one for one in worker.runs if not one.is_over]
        assert len(at_work) <= worker.limit, "more runs than the worker takes"
        own = [one for one in at_work if one.job.request_id == request_id and not one.is_left]
        assert len(own) == 1, "run twice at one worker"

    def check(self) -> None:
        """Check what holds at every moment."""
        for worker in self.workers:
            if worker.held() or not worker.consumer.is_line_empty():
                assert worker.runner.offered() == 0, "slots offered while a request waits"

    # What happens

    def replace_worker(self, number: int) -> None:
        old = self.workers[number]
        old.die()
        self.losses += 1
        self.workers[number] = ModelWorker(self, old.name + "'", old.limit)

    def replace_gateway(self, number: int, *, keeps_address: bool) -> None:
        old = self.gateways[number]
        old.die()
        self.losses += 1
        uri = old.uri if keeps_address else old.uri + b"0"
        for transport in old.transports:
            # Workers notice before the queue brings them a request of the next process.
            transport.lose()
            if transport.peer is not None:
                transport.peer.lose()
        self.gateways[number] = ModelGateway(self, uri)

    def cut(self, worker: ModelWorker) -> None:
        self.losses += 1
        for connection in worker.connections:
            connection.cut()

    def pass_time(self, seconds: float) -> None:
        now = self.loop.now = self.loop.now + seconds
        for gateway in self.gateways:
            gateway.channels.tick()
        for worker in self.workers:
            if not worker.is_paused:
                worker.runner.sweep()
                worker.runner.renew()
                if seconds > 0.2:
                    worker.consumer.look()
                worker.channels.sweep()
        self.broker.expire(now)

    def moves(self) -> list[Callable[[], None]]:
        """Return every arrival that is possible now."""
        found: list[Callable[[], None]] = []
        for gateway in self.gateways:
            if gateway.to_broker:
                found.append(lambda gateway=gateway: gateway.to_broker.popleft()(self.broker))
            gateway.transports = [one for one in gateway.transports if not one.is_over]
            found.extend(one.receive for one in gateway.transports if one.inbox)
        for worker in self.workers:
            if worker.is_paused:
                continue
            if worker.to_broker:
                found.append(lambda worker=worker: worker.to_broker.popleft()(self.broker))
            if worker.from_broker:
                found.append(worker.receive_from_broker)
            worker.connections = [one for one in worker.connections if not one.is_over]
            found.extend(one.client.receive for one in worker.connections if one.client.inbox)
            worker.posts = [one for one in worker.posts if not one.is_over]
            if not worker.is_blocked:
                found.extend(
                    one.advance for one in worker.posts if one.has_parts() or one.is_refused()
                )
        return found

    def runs(self) -> list[ModelRun]:
        for worker in self.workers:
            worker.runs = [one for one in worker.runs if not one.is_over]
        return [one for w in self.workers if not w.is_paused for one in w.runs]

    async def warm_up(self) -> None:
        """Open the channels between all gateway processes and workers, and let them tell slots."""
        wanted = len(self.gateways) * len(self.workers)
        for _ in range(20):
            if sum(len(gateway.channels) for gateway in self.gateways) == wanted:
                break
            for gateway in self.gateways:
                for _ in range(sum(worker.limit for worker in self.workers)):
                    gateway.call(b"POST")
            await self.run_out()
        for _ in range(10):
            self.pass_time(0.5)
            await settle()
            for move in self.moves():
                move()
        self.calls.clear()

    async def run_out(self) -> None:
        """Heal everything, and let all go on until every call is over, or nothing moves."""
        for worker in self.workers:
            worker.is_paused = worker.is_blocked = False
        for _ in range(400):
            await settle()
            self.check()
            if all(call.is_over for call in self.calls.values()):
                return
            moves = self.moves()
            runs = self.runs()
            if moves:
                for move in moves:
                    move()
            elif runs:
                runs[0].finish(0)
            else:
                self.pass_time(0.5)

    async def check_recovered(self) -> None:
        """Check that calls get to every gateway process's workers without the queue again."""
        for call in self.calls.values():
            call.leave()
        for gateway in self.gateways:
            for _ in range(12):
                call = gateway.call(b"POST")
                await self.run_out()
                for turn in range(14):
                    if turn < 8:
                        self.pass_time(1.0)
                    await settle()
                    for move in self.moves():
                        move()
                    for run in self.runs():
                        run.finish(0)
                if not call.was_published:
                    break
            else:
                raise AssertionError("no call is sent over a channel any more")

    def check_ends(self) -> None:
        """Check that no call was lost, and that none failed but by real losses."""
        for call in self.calls.values():
            if not call.gateway.is_alive:
                continue
            assert call.is_over, f"lost: {call.invocation!r}"
            if call.client.head is not None and call.client.head[0] == 502:
                assert self.losses, "no run was lost"
        for worker in self.workers:
            at_work = [one for one in worker.runs if not one.is_over and not one.is_left]
            assert all(one.job.state is not JOB_DONE for one in at_work), "a run for no job"
