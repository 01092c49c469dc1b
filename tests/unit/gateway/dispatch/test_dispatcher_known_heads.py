"""A head that repeats leads to the same as one that nobody has seen, whatever changes meanwhile."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attach.endpoint import AttachEndpoint
from gateway.auth.keys import digest_of, new_key
from gateway.dispatch.dispatcher import Dispatcher, Gates
from gateway.dispatch.endpoints import PathEndpoints
from gateway.dispatch.rate_limits import RateLimits
from gateway.dispatch.refusals import Refusals
from gateway.dispatch.registry import InvocationRegistry
from gateway.domain.cors import OPEN
from gateway.domain.model import EVERYTHING, ApiKey, FunctionVersion, VersionState
from gateway.domain.readmodel import ReadModel
from gateway.invocation.collection import CollectionBounds, UploadSpace
from gateway.invocation.context import Context
from gateway.routing.admission import Admission
from gateway.routing.call_head import call_head_reader
from gateway.routing.cross_origin import CrossOrigin
from gateway.routing.router import Router
from gateway.routing.sources import Sources
from gateway.telemetry.health import ProcessHealth
from gateway.telemetry.metrics import GatewayMetrics
from http1.server.limits import ServerLimits
from http1.server.request_head import read_head
from http1.stream import Peer
from runtime.metrics import MetricRegistry
from tests.support.api_keys import key_authenticator
from tests.support.detached import make_book, make_endpoint, make_keyed_calls
from tests.support.recorder import (
    RecordedQueue,
    RecordedResponseWriter,
    RecordedSpool,
    Script,
)
from tests.support.stored_numbers import StoredNumbers
from wire.decoded_envelope import decode_envelope
from wire.ids import FunctionId, VersionId

FUNCTIONS = [FunctionId(f"6f9619ff-8b86-4011-b42d-00c04fc964f{n}") for n in range(2)]
VERSIONS = [VersionId(f"11111111-1111-4111-8111-11111111111{n}") for n in range(2)]
SECRETS = [new_key(bytes([n] * 32)) for n in range(3)]
KEYS = [
    ApiKey(
        f"key-{n}",
        digest_of(secret.encode()),
        "own" if n < 2 else "other",
        f"subject-{n}",
        frozenset({"invoke_function"}),
        EVERYTHING,
    )
    for n, secret in enumerate(SECRETS)
]
LIMITS = ServerLimits()

calls = st.tuples(
    st.just("call"),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from([None, 0, 1]),
    st.sampled_from(
        [
            b"",
            b"nvcf-poll-seconds: 5\r\n",
            b"x-forwarded-for: 1.2.3.4\r\n",
            b"prefer: respond-async, handling=strict\r\n",
            b"prefer: respond-async, wait=5\r\n",
            b"nvcf-detach: on-disconnect\r\n",
        ]
    ),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
)
changes = st.one_of(
    st.tuples(st.sampled_from(["revoke", "restore", "expire"]), st.integers(0, 2)),
    st.tuples(
        st.just("state"), st.integers(0, 1), st.integers(0, 1), st.sampled_from(VersionState)
    ),
)


class Gateway:
    """A dispatcher over a read model, with what it publishes and refuses."""

    def __init__(self, model: ReadModel) -> None:
        self.queue = RecordedQueue(Script())
        metrics = GatewayMetrics(MetricRegistry(with_process=False))
        attach = AttachEndpoint(lambda: 0.0)
        registry = InvocationRegistry(
            attach, self.queue, metrics, None, lambda: 0.0, lambda version_id: None
        )
        context = Context(
            queue=self.queue,
            registry=registry,
            region=b"eu",
            attach_uri=b"http://10.0.0.1:8090",
            process=7,
            uploads=UploadSpace(CollectionBounds(), RecordedSpool(Script()).open),
            max_body_bytes=0,
            clock=lambda: 0.0,
        )
        admission = Admission(key_authenticator(model).authenticate, Router(model, lambda: 0.0))
        cross_origin = CrossOrigin(model, OPEN)
        self.dispatch = Dispatcher(
            context,
            registry,
            call_head_reader(b""),
            Gates(admission, RateLimits(StoredNumbers(), lambda: 0)),
            PathEndpoints(
                attach, ProcessHealth(), metrics, cross_origin, make_endpoint(cross_origin)
            ),
            Refusals(metrics, None, admission.key_id_of),
            Sources([], trusts_unix=False),
            make_book(),
            make_keyed_calls(make_book()),
        )

    def call(self, block: bytes, address: str, *, forgets: bool) -> object:
        """Return what the queue, or the client, got."""
        request, _ = read_head(block, LIMITS, 0.0, Peer(address))
        if forgets:
            request.known = None
        client = RecordedResponseWriter(Script(), "client")
        before = len(self.queue.envelopes)
        stream = self.dispatch(request, client)
        if client.head is None:
            stream.request_end()
        accepted = b""
        if client.head is not None and client.head[0] == 202:
            accepted = dict(client.head[1])[b"preference-applied"]
        if len(self.queue.envelopes) == before:
            assert client.head is not None
            return client.head[0], json.loads(client.sent)["detail"]
        envelope = decode_envelope(self.queue.envelopes[-1])
        return (
            self.queue.versions[-1],
            envelope.nca_id,
            envelope.subject,
            envelope.method,
            envelope.path,
            envelope.headers,
            accepted,
        )


def change(model: ReadModel, step: tuple[Any, ...]) -> None:
    kind, number, *rest = step
    if kind == "state":
        model.apply(FunctionVersion(FUNCTIONS[number], VERSIONS[rest[0]], "own", "name", rest[1]))
    elif kind == "revoke":
        model.apply(replace(KEYS[number], is_revoked=True))
    else:
        model.apply(replace(KEYS[number], expires_at=1.0 if kind == "expire" else None))


@given(st.lists(st.one_of(calls, calls, calls, changes), max_size=40))
@settings(deadline=None)
def test_a_known_head_leads_to_what_an_unknown_one_leads_to(steps: list[tuple[Any, ...]]) -> None:
    model = ReadModel()
    for key in KEYS:
        model.apply(key)
    for function in FUNCTIONS:
        model.apply(FunctionVersion(function, VERSIONS[0], "own", "name", VersionState.ACTIVE))
    remembering, forgetting = Gateway(model), Gateway(model)
    for step in steps:
        if step[0] != "call":
            change(model, step)
            continue
        _, key, function, version, line, address = step
        named = b"" if version is None else b"%b." % VERSIONS[version].encode()
        block = b"GET /v1/x?a=%d HTTP/1.1\r\nhost: %b%b.invocation.example\r\n%b" % (
            key,
            named,
            FUNCTIONS[function].encode(),
            line,
        )
        block += b"authorization: Bearer %b" % SECRETS[key].encode()
        for _ in range(3):
            # The third time the head is known, and so is what it led to.
            expected = forgetting.call(block, address, forgets=True)
            assert remembering.call(block, address, forgets=False) == expected
