"""One invocation between recording ports: no socket, no clock, no broker."""

import json

from gateway.attach.exchanges import AttachGet
from gateway.domain.model import FunctionVersion, VersionState
from gateway.invocation.collection import CollectionBounds, UploadSpace
from gateway.invocation.context import Context, DirectDispatch, Ticket, WebSocketLimits
from gateway.invocation.machine import Invocation
from gateway.invocation.once import OnceInvocation, PolledOnceInvocation
from gateway.invocation.polled import PolledInvocation, ProgressWriter
from gateway.invocation.websocket import WebSocketInvocation
from gateway.routing.admission import Caller
from gateway.routing.cancel_after import CallBounds
from http1.stream import Headers, Request, ResponseWriter
from tests.support.recorder import (
    RecordedChannels,
    RecordedPost,
    RecordedQueue,
    RecordedRegistry,
    RecordedResponseWriter,
    RecordedSpool,
    Script,
)
from wire.ids import FunctionId, VersionId
from wire.source import UNKNOWN, Source

FUNCTION = FunctionId("11111111-1111-4111-8111-111111111111")
VERSION = VersionId("22222222-2222-4222-8222-222222222222")
REQUEST_ID = "33333333-3333-4333-8333-333333330007"
REQUESTED_AT_NS = 1_700_000_000_000_000_000
INLINE = 32 * 1024


NOT_COLLECTED = CollectionBounds()


class World:
    """One invocation with its client, queue and registry, all of which record their calls."""

    def __init__(
        self,
        method: bytes = b"POST",
        body_bytes: int | None = 0,
        headers: list[tuple[bytes, bytes]] | None = None,
        bounds: CollectionBounds = NOT_COLLECTED,
        max_body_bytes: int = 0,
        function_max_body_bytes: int = 0,
        source: Source = UNKNOWN,
        *,
        passes_interim: bool = False,
        target: bytes = b"/v1/x%2Fy?a=1&a=2",
        key_id: str = "",
        client: ResponseWriter | None = None,
        channels: DirectDispatch[Invocation] | None = None,
        websocket: WebSocketLimits | None = None,
        is_polled: bool = False,
        viewer: ProgressWriter | None = None,
        is_once: bool = False,
        cancel_after: CallBounds | None = None,
    ) -> None:
        """``client`` takes the place of the recorded one; ``websocket``: it asks for one.

        ``viewer`` is the same for a polled call. ``is_once``: it is run at most once.
        """
        self.script = Script()
        self.spool = RecordedSpool(self.script)
        self.space = UploadSpace(bounds, self.spool.open)
        self.now = 100.0
        self.client = RecordedResponseWriter(self.script, "client")
        self.queue = RecordedQueue(self.script)
        self.channels = RecordedChannels(self.script)
        self.registry = RecordedRegistry(self.script)
        context: Context[Invocation] = Context(
            queue=self.queue,
            registry=self.registry,
            region=b"eu",
            attach_uri=b"http://10.0.0.1:8090",
            process=7,
            uploads=self.space,
            max_body_bytes=max_body_bytes,
            clock=lambda: self.now,
            channels=channels or self.channels,
            websockets=websocket or WebSocketLimits(),
        )
        request = Request(
            method,
            target,
            b"f.example",
            headers if headers is not None else [(b"host", b"f.example")],
            body_bytes,
            100.0,
        )
        request.source = source
        version = FunctionVersion(
            FUNCTION,
            VERSION,
            "acme",
            "echo",
            VersionState.ACTIVE,
            max_body_bytes=function_max_body_bytes,
            passes_interim=passes_interim,
            inference_path="/infer",
        )
        caller = Caller(
            version, "acme", "alice", 3600 if is_polled else 60, key_id=key_id, bounds=cancel_after
        )
        ticket = Ticket(REQUEST_ID, REQUESTED_AT_NS)
        self.invocation: Invocation
        if is_polled or viewer is not None:
            make_polled = PolledOnceInvocation if is_once else PolledInvocation
            self.invocation = make_polled(context, viewer or self.client, request, caller, ticket)
        else:
            make = Invocation if websocket is None else WebSocketInvocation
            if is_once:
                make = OnceInvocation
            self.invocation = make(context, client or self.client, request, caller, ticket)

    def publish(self) -> "World":
        self.invocation.request_end()
        assert self.script.take() == ["queue.publish"]
        return self

    def send(self) -> "World":
        """Send the call to a worker with a free slot."""
        self.channels.is_free = True
        self.invocation.request_end()
        self.channels.is_free = False
        assert self.script.take() == ["channels.send"]
        return self

    def attach(self) -> "World":
        self.invocation.attached(RecordedPost(self.script), self.now, 0.001)
        return self

    def head(
        self,
        status: int = 200,
        headers: Headers | None = None,
        announced_bytes: int | None = None,
        post_bytes: int | None = None,
    ) -> "World":
        self.invocation.response_head(status, headers or [], announced_bytes, post_bytes, self.now)
        return self

    def fetch(self, worker: RecordedResponseWriter, *, is_upgraded: bool = False) -> bool:
        """Request the rest of the body, as a worker's GET does."""
        get = AttachGet(self.invocation, worker, is_upgraded=is_upgraded)
        return self.invocation.rest_requested(get)

    def stream(self) -> "World":
        self.publish().attach().head(200, [(b"content-type", b"text/plain")])
        assert self.script.take() == ["queue.answered", "client.head 200"]
        return self

    def problem(self) -> dict[str, object]:
        assert self.client.head is not None
        status, headers, length = self.client.head
        assert (b"content-type", b"application/problem+json") in headers
        assert length == len(self.client.sent)
        document = json.loads(self.client.sent)
        assert document["status"] == status
        assert document["instance"] == "/v1/x%2Fy"
        assert document["requestId"] == REQUEST_ID
        for name in (b"nvcf-reqid", b"x-request-id"):
            assert (name, REQUEST_ID.encode()) in headers
        return dict(document)
