"""Who is refused before there is an invocation, and what they are told."""

import json
from collections.abc import Callable, Sequence

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.dispatcher import Dispatcher, FindAssets, Gates
from gateway.dispatch.endpoints import PathEndpoints
from gateway.dispatch.rate_limits import RateLimits
from gateway.dispatch.refusals import Refusals
from gateway.dispatch.registry import InvocationRegistry
from gateway.domain.cors import OPEN, PagePolicy
from gateway.domain.model import EVERYTHING, FunctionVersion, VersionState
from gateway.domain.principal import INVOCATION_TOKEN, INVOKE, Principal
from gateway.domain.rate_limit import RateLimitPolicy
from gateway.domain.readmodel import ReadModel
from gateway.errors import Unauthenticated
from gateway.invocation.collection import CollectionBounds, UploadSpace
from gateway.invocation.context import Context
from gateway.objects.assets import AssetNotFound
from gateway.routing.admission import Admission
from gateway.routing.call_head import call_head_reader
from gateway.routing.cross_origin import CrossOrigin
from gateway.routing.router import Router
from gateway.routing.sources import Sources
from gateway.telemetry.access_log import MAX_REFUSED, AccessLog
from gateway.telemetry.health import ProcessHealth
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import Headers, KnownHead, Peer, Request, RequestStream
from runtime.logs import LineWriter
from runtime.metrics import MetricRegistry
from tests.support.detached import make_book, make_endpoint, make_keyed_calls
from tests.support.recorder import (
    RecordedQueue,
    RecordedResponseWriter,
    RecordedSpool,
    Script,
)
from tests.support.stored_numbers import StoredNumbers
from tests.support.waiting import until
from wire.decoded_envelope import decode_envelope
from wire.envelope import encode_assets
from wire.ids import FunctionId, VersionId

INACTIVE = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
LIMITED = FunctionId("7f9619ff-8b86-4011-b42d-00c04fc964ff")
RATED = FunctionId("9f9619ff-8b86-4011-b42d-00c04fc964ff")
PAGES = FunctionId("8f9619ff-8b86-4011-b42d-00c04fc964ff")
UNKNOWN = "00000000-0000-4000-8000-000000000000"
GOOD = (b"authorization", b"Bearer good")


LINKED = b"Bearer token"


def authenticate(authorization: bytes | None, now: float) -> Principal:
    if authorization == LINKED:
        return Principal("own", "sub", frozenset({INVOKE}), EVERYTHING, INVOCATION_TOKEN)
    scopes = {b"Bearer good": frozenset({INVOKE}), b"Bearer narrow": frozenset[str]()}
    if authorization not in scopes:
        raise Unauthenticated
    return Principal("own", "sub", scopes[authorization], EVERYTHING, key_id="key-1")


def dispatcher(
    max_body_bytes: int = 0,
    metrics: GatewayMetrics | None = None,
    access: AccessLog | None = None,
    wake: Callable[[str], object] = lambda version_id: None,
    own: PagePolicy = OPEN,
    page_policy: PagePolicy | None = None,
    queue: RecordedQueue | None = None,
    numbers: StoredNumbers | None = None,
    find_assets: FindAssets | None = None,
) -> Dispatcher:
    model, queue = ReadModel(), queue or RecordedQueue(Script())
    version = VersionId("11111111-1111-4111-8111-111111111111")
    model.apply(FunctionVersion(INACTIVE, version, "own", "name", VersionState.INACTIVE))
    model.apply(
        FunctionVersion(LIMITED, version, "own", "name", VersionState.ACTIVE, max_body_bytes=100)
    )
    model.apply(
        FunctionVersion(
            RATED,
            version,
            "own",
            "name",
            VersionState.ACTIVE,
            rate_limit=RateLimitPolicy(rate="2-M"),
        )
    )
    if page_policy is not None:
        model.apply(
            FunctionVersion(
                PAGES, version, "own", "name", VersionState.ACTIVE, page_policy=page_policy
            )
        )
    metrics = metrics or GatewayMetrics(MetricRegistry(with_process=False))
    attach = AttachEndpoint(lambda: 0.0)
    registry = InvocationRegistry(attach, queue, metrics, access, lambda: 0.0, wake)
    context = Context(
        queue=queue,
        registry=registry,
        region=b"eu",
        attach_uri=b"http://10.0.0.1:8090",
        process=7,
        uploads=UploadSpace(CollectionBounds(), RecordedSpool(Script()).open),
        max_body_bytes=max_body_bytes,
        clock=lambda: 0.0,
    )
    admission = Admission(authenticate, Router(model, lambda: 0.0))
    cross_origin = CrossOrigin(model, own)
    return Dispatcher(
        context,
        registry,
        call_head_reader(b""),
        Gates(admission, RateLimits(numbers or StoredNumbers(), lambda: 0)),
        PathEndpoints(attach, ProcessHealth(), metrics, cross_origin, make_endpoint(cross_origin)),
        Refusals(metrics, access, admission.key_id_of),
        Sources([], trusts_unix=False),
        make_book(),
        make_keyed_calls(make_book()),
        find_assets=find_assets,
    )


@pytest.mark.parametrize("is_named_by_host", [True, False])
@pytest.mark.parametrize(
    ("function_id", "headers", "status"),
    [
        (INACTIVE, [], 401),
        (INACTIVE, [(b"authorization", b"Bearer secret")], 401),
        (INACTIVE, [(b"authorization", b"Bearer secret")] * 2, 400),
        (INACTIVE, [(b"authorization", b"Bearer narrow")], 403),
        (INACTIVE, [GOOD], 404),
        (INACTIVE, [GOOD, (b"nvcf-poll-seconds", b"soon")], 400),
        (UNKNOWN, [GOOD], 404),
    ],
)
def test_a_refused_call_is_told_its_path_and_an_id(
    function_id: str, headers: Headers, status: int, is_named_by_host: bool
) -> None:
    authority = b"f.example"
    if is_named_by_host:
        authority = function_id.encode() + b".invocation.example.com"
    else:
        headers = [*headers, (b"function-id", function_id.encode())]
    client = RecordedResponseWriter(Script(), "client")
    request = Request(b"POST", b"/v1/x%2Fy?token=secret", authority, headers, 0, 0.0)
    dispatcher()(request, client)
    assert client.head is not None
    document = json.loads(client.sent)
    assert document["status"] == client.head[0] == status
    assert document["instance"] == "/v1/x%2Fy"
    assert len(document["requestId"]) == 36
    assert (b"x-request-id", document["requestId"].encode()) in client.head[1]
    assert b"secret" not in client.sent


@pytest.mark.parametrize(
    ("target", "status"), [(b"/nothing?x", 404), (b"/v2/nvcf/worker/request-attach", 401)]
)
def test_so_is_who_calls_no_function(target: bytes, status: int) -> None:
    client = RecordedResponseWriter(Script(), "client")
    dispatcher()(Request(b"POST", target, b"api.example", [], 0, 0.0), client)
    document = json.loads(client.sent)
    assert document["status"] == status
    assert document["instance"] == target.decode().partition("?")[0]
    assert document["requestId"]


@pytest.mark.parametrize(
    ("edge_bytes", "body_bytes", "is_refused"),
    [(0, 100, False), (0, 101, True), (50, 50, False), (50, 51, True), (200, 101, True)],
)
def test_a_body_that_is_announced_too_large_is_refused_at_once(
    edge_bytes: int, body_bytes: int, is_refused: bool
) -> None:
    client = RecordedResponseWriter(Script(), "client")
    headers = [GOOD, (b"function-id", LIMITED.encode())]
    request = Request(b"POST", b"/", b"f.example", headers, body_bytes, 0.0)
    dispatcher(edge_bytes)(request, client)
    assert (client.head is not None) == is_refused
    if client.head is not None:
        assert client.head[0] == 413
        assert json.loads(client.sent)["type"] == "urn:nvcf:problem-details:content-too-large"


class Lines(LineWriter):
    def __init__(self) -> None:
        super().__init__(1)
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def test_a_body_that_is_announced_too_large_is_logged_and_counted_and_wakes_no_instance() -> None:
    found, numbers = Lines(), MetricRegistry(with_process=False)
    woken: list[str] = []
    refusing = dispatcher(
        metrics=GatewayMetrics(numbers),
        access=AccessLog(found, lambda: 0.0),
        wake=woken.append,
    )
    headers = [GOOD, (b"function-id", LIMITED.encode())]
    for body_bytes in (101, 100):
        client = RecordedResponseWriter(Script(), "client")
        refusing(Request(b"POST", b"/", b"f.example", headers, body_bytes, 0.0), client)
    (line,) = map(json.loads, found.lines)
    assert (line["function_id"], line["outcome"], line["status"]) == (LIMITED, "bad_request", 413)
    assert b'gateway_invocations_total{outcome="bad_request"} 1\n' in numbers.exposition()
    assert len(woken) == 1


def test_a_refused_call_is_logged_with_what_is_known_of_it_and_counted_by_reason() -> None:
    found, numbers = Lines(), MetricRegistry(with_process=False)
    refusing = dispatcher(
        metrics=GatewayMetrics(numbers), access=AccessLog(found, lambda: 1_700_000_000.25)
    )
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = [
        GOOD,
        (b"function-id", INACTIVE.encode()),
        (b"traceparent", trace),
        (b"x-request-id", b'mine "1"'),
    ]
    request = Request(b"POST", b"/v1/chat?token=secret", b"f.example", headers, 0, 0.0)
    request.peer = Peer("192.0.2.7")
    client = RecordedResponseWriter(Script(), "client")
    refusing(request, client)
    (line,) = found.lines
    assert json.loads(line) == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "gateway.access",
        "event": "request.refused",
        "request_id": json.loads(client.sent)["requestId"],
        "method": "POST",
        "path": "/v1/chat",
        "client": "192.0.2.7",
        "function_id": INACTIVE,
        "key_id": "key-1",
        "status": 404,
        "reason": "not_found",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "caller_request_id": 'mine "1"',
    }
    counted = b'gateway_refusals_total{endpoint="TLB",reason="not_found"} 1\n'
    assert counted in numbers.exposition()


def test_a_flood_of_refused_calls_writes_some_lines_and_how_many_it_left_out() -> None:
    found, now = Lines(), [0.0]
    access = AccessLog(found, lambda: now[0])
    refusing = dispatcher(access=access)
    for authorization in [b"Bearer bad"] * (MAX_REFUSED + 5) + [GOOD[1]]:
        headers = [(b"authorization", authorization), (b"function-id", INACTIVE.encode())]
        client = RecordedResponseWriter(Script(), "client")
        refusing(Request(b"GET", b"/", b"f.example", headers, 0, 0.0), client)
    lines = [json.loads(line) for line in found.lines]
    # The flood does not hide a refusal for another reason.
    assert [line["status"] for line in lines] == [401] * MAX_REFUSED + [404]
    assert {line["key_id"] for line in lines} == {"", "key-1"}
    now[0] = 1.0
    access.tick()
    access.tick()
    (summary,) = map(json.loads, found.lines[len(lines) :])
    assert summary["event"] == "request.refused_more"
    assert (summary["reason"], summary["count"]) == ("unauthorized", 5)


APP = (b"origin", b"https://app.example")
POST = (b"access-control-request-method", b"POST")
LISTED = PagePolicy(frozenset({"https://app.example"}))
ALLOWED = (b"access-control-allow-origin", b"https://app.example")
ANYBODY = (b"access-control-allow-origin", b"*")


def call(
    serving: Dispatcher,
    function_id: str,
    *headers: tuple[bytes, bytes],
    method: bytes = b"POST",
    target: bytes = b"/v1/x",
) -> tuple[int, Headers]:
    """Return status and headers of the response, 0 if the call was queued."""
    client = RecordedResponseWriter(Script(), "client")
    authority = function_id.encode() + b".invocation.example.com"
    stream = serving(Request(method, target, authority, [*headers], 0, 0.0), client)
    stream.request_end()
    return client.head[:2] if client.head is not None else (0, [])


@pytest.mark.parametrize("credential", [[], [GOOD], [(b"authorization", b"Bearer wrong")]])
def test_a_preflight_to_a_function_with_a_policy_is_never_queued(credential: Headers) -> None:
    queue = RecordedQueue(Script())
    serving = dispatcher(page_policy=LISTED, queue=queue)
    status, headers = call(serving, PAGES, APP, POST, *credential, method=b"OPTIONS")
    assert status == 204
    assert ALLOWED in headers
    assert queue.envelopes == []


def test_a_preflight_without_a_credential_gets_no_401_from_any_function() -> None:
    for function_id in (LIMITED, INACTIVE, UNKNOWN):
        assert call(dispatcher(), function_id, APP, POST, method=b"OPTIONS")[0] == 204


def test_an_options_request_with_a_key_goes_to_a_function_without_a_policy() -> None:
    assert call(dispatcher(), LIMITED, APP, POST, GOOD, method=b"OPTIONS")[0] == 0
    assert call(dispatcher(), LIMITED, GOOD, method=b"OPTIONS")[0] == 0
    assert call(dispatcher(), LIMITED, method=b"OPTIONS")[0] == 401


@pytest.mark.parametrize(
    ("function_id", "headers", "status", "allowed"),
    [
        (PAGES, [], 401, ALLOWED),
        (UNKNOWN, [], 401, ANYBODY),
        (UNKNOWN, [GOOD], 404, ANYBODY),
        (INACTIVE, [GOOD], 404, ANYBODY),
        (PAGES, [GOOD, (b"nvcf-poll-seconds", b"x")], 400, ALLOWED),
    ],
)
def test_a_page_can_read_why_its_call_is_refused(
    function_id: str, headers: Headers, status: int, allowed: tuple[bytes, bytes]
) -> None:
    found = call(dispatcher(page_policy=LISTED), function_id, APP, *headers)
    assert found[0] == status
    assert [one for one in found[1] if one[0] == ALLOWED[0]] == [allowed]


def test_a_refusal_says_nothing_of_pages_to_other_clients() -> None:
    _, headers = call(dispatcher(), LIMITED)
    assert [name for name, _ in headers if name.startswith(b"access-control-")] == []


def test_a_token_in_the_query_admits_and_does_not_reach_the_function() -> None:
    for target, forwarded in (
        (b"/sse?nvcf-token=token", b"/sse"),
        (b"/sse?count=2&nvcf-token=t%6Fken&x=%2F", b"/sse?count=2&x=%2F"),
    ):
        queue = RecordedQueue(Script())
        assert call(dispatcher(queue=queue), LIMITED, method=b"GET", target=target)[0] == 0
        (envelope,) = queue.envelopes
        assert decode_envelope(envelope).path == forwarded
        assert b"token" not in envelope.replace(b"response-token", b"")


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        (b"nvcf-token=good", [], 401),
        (b"nvcf-token=", [], 401),
        (b"nvcf-token=%ff%0d%0a", [], 401),
        (b"nvcf-token=token&nvcf-token=token", [], 400),
        (b"nvcf-token=token", [GOOD], 400),
        (b"x-nvcf-token=token", [], 401),
    ],
)
def test_only_one_invocation_token_in_the_query_is_a_credential(
    query: bytes, headers: Headers, status: int
) -> None:
    found, sent = call(dispatcher(), LIMITED, *headers, target=b"/v1/x?" + query)
    assert found == status
    if query.startswith(b"nvcf-token=") and status == 401:
        assert (b"referrer-policy", b"no-referrer") in sent


class RatedCall:
    """A call of the function that accepts two calls per minute."""

    def __init__(self, dispatch: Dispatcher, body_bytes: int | None = 0) -> None:
        self.script = Script()
        self.client = RecordedResponseWriter(self.script, "client")
        headers = [GOOD, (b"function-id", RATED.encode())]
        request = Request(b"POST", b"/", b"f.example", headers, body_bytes, 0.0)
        self.stream = dispatch(request, self.client)

    @property
    def status(self) -> int:
        return 0 if self.client.head is None else self.client.head[0]


async def test_calls_above_the_rate_limit_are_refused() -> None:
    metrics = MetricRegistry(with_process=False)
    dispatch = dispatcher(metrics=GatewayMetrics(metrics))
    calls = [RatedCall(dispatch) for _ in range(3)]
    for call in calls:
        call.stream.request_end()
    await until(lambda: [call.status for call in calls], [0, 0, 429].__eq__)
    refused = calls[2].client
    assert refused.head is not None
    document = json.loads(refused.sent)
    assert document["reason"] == "rate_limited"
    assert document["detail"].startswith("The function accepts 2 calls per minute")
    assert (b"retry-after", b"30") in refused.head[1]
    # The next one is refused at once.
    assert RatedCall(dispatch).status == 429
    assert b'requests_total{method="POST",status="429",endpoint="TLB"} 2\n' in metrics.exposition()


async def test_what_a_client_sends_while_its_call_is_held_is_not_lost() -> None:
    numbers, script = StoredNumbers(), Script()
    numbers.answers.clear()
    call = RatedCall(dispatcher(numbers=numbers, queue=RecordedQueue(script)), 11)
    for part in (b"one ", b"two "):
        call.stream.request_data(part)
    assert call.script.take() == ["client.pause"]
    numbers.answers.set()
    await until(call.script.take, ["client.resume"].__eq__)
    call.stream.request_data(b"six")
    call.stream.request_end()
    assert script.take() == ["queue.publish"]


ASSET = "1f9619ff-8b86-4011-b42d-00c04fc964ff"


async def found(account: str, asset_ids: Sequence[str]) -> bytes:
    """Find every asset but one that does not exist."""
    if account != "own" or UNKNOWN in asset_ids:
        raise AssetNotFound
    return encode_assets([(asset_id, "http://h/", "image/png") for asset_id in asset_ids])


@pytest.mark.parametrize(
    ("value", "status"), [(ASSET, 0), ("", 0), ("x", 400), (f"{ASSET},{UNKNOWN}", 404)]
)
async def test_a_call_waits_for_its_input_assets(value: str, status: int) -> None:
    script = Script()
    queue = RecordedQueue(script)
    client = RecordedResponseWriter(script, "client")
    headers = [GOOD, (b"nvcf-input-asset-references", value.encode())]
    headers.append((b"function-id", LIMITED.encode()))
    stream = dispatcher(queue=queue, find_assets=found)(
        Request(b"POST", b"/", b"f.example", headers, 4, 0.0), client
    )
    stream.request_data(b"body")
    stream.request_end()
    if status:
        await until(lambda: client.head)
        assert client.head is not None
        assert client.head[0] == status
        assert queue.envelopes == []
        return
    await until(lambda: queue.envelopes)
    envelope = decode_envelope(queue.envelopes[0])
    assert [asset.asset_id for asset in envelope.head.assets] == ([value] if value else [])
    assert envelope.body == b"body"
    assert b"nvcf-input-asset-references" not in dict(envelope.headers)


async def test_a_call_whose_client_leaves_while_it_is_held_is_not_counted_but_logged() -> None:
    numbers = StoredNumbers()
    numbers.answers.clear()
    metrics, lines = MetricRegistry(with_process=False), Lines()
    dispatch = dispatcher(
        metrics=GatewayMetrics(metrics), access=AccessLog(lines, lambda: 0.0), numbers=numbers
    )
    for call in [RatedCall(dispatch) for _ in range(2)]:
        call.stream.request_broken()
    for line in map(json.loads, lines.lines):
        told = (line["event"], line["status"], line["reason"], line["function_id"])
        assert told == ("request.refused", 499, "client_gone", RATED)
    text = metrics.exposition()
    assert b'requests_total{method="POST",status="499",endpoint="TLB"} 2\n' in text
    assert b'gateway_refusals_total{endpoint="TLB",reason="client_gone"} 2\n' in text
    assert b'app_invocation_error{http_status_code="499",function_id=""} 0\n' in text
    numbers.answers.set()
    await until(lambda: numbers.documents)
    calls = [RatedCall(dispatch) for _ in range(4)]
    await until(lambda: [call.status for call in calls], [0, 0, 429, 429].__eq__)


PROTOCOL = b"sec-websocket-protocol"
HANDSHAKE: Headers = [
    (b"host", b"f.example"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


class SocketCall:
    """A request for a WebSocket to a function, between recording ports."""

    def __init__(
        self,
        *headers: tuple[bytes, bytes],
        function_id: str = LIMITED,
        target: bytes = b"/ws",
        numbers: StoredNumbers | None = None,
        page_policy: PagePolicy | None = None,
    ) -> None:
        self.script = Script()
        self.queue = RecordedQueue(self.script)
        self.client = RecordedResponseWriter(Script(), "client")
        named = (b"function-id", function_id.encode())
        request = Request(b"GET", target, b"f.example", [*HANDSHAKE, named, *headers], 0, 0.0)
        request.protocol = b"websocket"
        dispatch = dispatcher(queue=self.queue, numbers=numbers, page_policy=page_policy)
        self.stream: RequestStream = dispatch(request, self.client)

    @property
    def status(self) -> int:
        return 0 if self.client.head is None else self.client.head[0]

    def opened(self) -> "SocketCall":
        """Let the head end, which publishes the call."""
        self.stream.request_end()
        assert self.script.take() == ["queue.publish"]
        return self


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ([GOOD], b"/ws"),
        ([(PROTOCOL, b"nvcf-key.good")], b"/ws"),
        ([(PROTOCOL, b"openai-insecure-api-key.good, nvcf")], b"/ws"),
        ([], b"/ws?nvcf-token=token"),
        ([], b"/ws?a=1&nvcf-token=token"),
    ],
)
def test_each_credential_opens_and_none_is_in_the_envelope(headers: Headers, target: bytes) -> None:
    call = SocketCall(*headers, target=target).opened()
    [envelope] = call.queue.envelopes
    for secret in (b"good", b"nvcf-key", b"nvcf-token", b"insecure", b"Bearer"):
        assert secret not in envelope
    assert (b"nvcf-upgrade", b"websocket") in decode_envelope(envelope).headers


@pytest.mark.parametrize(
    ("headers", "target", "status"),
    [
        ([GOOD, (PROTOCOL, b"nvcf-key.good")], b"/ws", 400),
        ([(PROTOCOL, b"nvcf-key.good")], b"/ws?nvcf-token=token", 400),
        ([GOOD], b"/ws?nvcf-token=token", 400),
        ([(PROTOCOL, b"nvcf-key.secret")], b"/ws", 401),
        ([], b"/ws?nvcf-token=good", 401),
        ([], b"/ws", 401),
        ([GOOD, (b"sec-websocket-version", b"8")], b"/ws", 426),
        ([GOOD, (b"sec-websocket-key", b"x")], b"/ws", 400),
    ],
)
def test_what_is_refused_says_why_and_repeats_no_credential(
    headers: Headers, target: bytes, status: int
) -> None:
    call = SocketCall(*headers, target=target)
    assert call.status == status
    document = json.loads(call.client.sent)
    assert document["instance"] == "/ws"
    for secret in (b"secret", b"nvcf-token=", b"good"):
        assert secret not in call.client.sent
    assert call.script.take() == []


def test_pages_of_other_origins_are_refused() -> None:
    policy = PagePolicy(frozenset({"https://a.example"}))
    for origin, status in ((b"https://a.example", 0), (b"https://b.example", 403)):
        call = SocketCall(GOOD, (b"origin", origin), function_id=PAGES, page_policy=policy)
        assert call.status == status


async def test_one_that_waits_for_a_rate_limit_is_published_when_it_may() -> None:
    numbers = StoredNumbers()
    numbers.answers.clear()
    call = SocketCall(GOOD, function_id=RATED, numbers=numbers)
    call.stream.request_end()
    assert call.script.take() == []
    numbers.answers.set()
    await until(call.script.take, ["queue.publish"].__eq__)
    assert call.status == 0


def test_a_detached_call_has_a_window_of_its_own_and_its_head_is_never_a_plan() -> None:
    queue = RecordedQueue(Script())
    headers = [GOOD, (b"prefer", b"respond-async"), (b"nvcf-poll-seconds", b"5")]
    authority = f"{LIMITED}.invocation.example.com".encode()
    request = Request(b"POST", b"/x", authority, headers, 0, 0.0)
    request.known = KnownHead(request)
    client = RecordedResponseWriter(Script(), "client")
    stream = dispatcher(queue=queue)(request, client)
    assert client.head is None
    stream.request_end()
    assert client.head is not None
    assert client.head[0] == 202
    assert request.known.plan is None
    (envelope,) = queue.envelopes
    sent = dict(decode_envelope(envelope).headers)
    assert sent[b"nvcf-poll-seconds"] == b"3600"
    assert b"prefer" not in sent


@pytest.mark.parametrize(
    ("headers", "body_bytes", "status"),
    [
        ([(b"nvcf-detach", b"always")], 0, 400),
        ([(b"prefer", b"respond-async"), (b"content-type", b"application/grpc")], 0, 200),
        ([(b"prefer", b"respond-async")], 101, 413),
    ],
)
def test_what_cannot_be_detached_is_refused(headers: Headers, body_bytes: int, status: int) -> None:
    queue = RecordedQueue(Script())
    authority = f"{LIMITED}.invocation.example.com".encode()
    headers = [GOOD, (b"te", b"trailers"), *headers]
    client = RecordedResponseWriter(Script(), "client")
    dispatch = dispatcher(queue=queue)
    dispatch(Request(b"POST", b"/x", authority, headers, body_bytes, 0.0), client)
    assert client.head is not None
    assert client.head[0] == status
    assert not queue.envelopes
    if status == 200:
        assert dict(client.head[1])[b"grpc-status"] != b"0"
