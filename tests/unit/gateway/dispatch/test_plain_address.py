"""Calls that name their function by a path, a model or a key: what is published for them."""

import json
from dataclasses import dataclass, field

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.dispatcher import Dispatcher, Gates
from gateway.dispatch.endpoints import PathEndpoints
from gateway.dispatch.rate_limits import RateLimits
from gateway.dispatch.refusals import Refusals
from gateway.dispatch.registry import InvocationRegistry
from gateway.domain.cors import OPEN, PagePolicy
from gateway.domain.model import EVERYTHING, FunctionVersion, ResourceScope, VersionState
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.rate_limit import RateLimitPolicy
from gateway.domain.readmodel import ReadModel
from gateway.errors import Unauthenticated
from gateway.invocation.collection import CollectionBounds, UploadSpace
from gateway.invocation.context import Context
from gateway.routing.admission import Admission
from gateway.routing.call_head import call_head_reader
from gateway.routing.cross_origin import CrossOrigin
from gateway.routing.references import FunctionNames
from gateway.routing.router import Router
from gateway.routing.sources import Sources
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.health import ProcessHealth
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import Headers, Request, RequestStream
from runtime.metrics import MetricRegistry
from tests.support.detached import make_book, make_endpoint, make_keyed_calls
from tests.support.recorder import RecordedQueue, RecordedResponseWriter, RecordedSpool, Script
from tests.support.stored_numbers import StoredNumbers
from tests.support.waiting import until
from wire.decoded_envelope import Envelope, decode_envelope
from wire.ids import FunctionId, VersionId

F = FunctionId("11111111-1111-4111-8111-111111111111")
G = FunctionId("22222222-2222-4222-8222-222222222222")
V = VersionId("33333333-3333-4333-8333-333333333333")
ALLOW_ORIGIN = b"access-control-allow-origin"
ALL, ONE, NONE = b"Bearer all", b"Bearer one", b"Bearer none"


def authenticate(authorization: bytes | None, now: float) -> Principal:
    invoke = frozenset({INVOKE})
    match authorization:
        case b"Bearer all":
            return Principal("own", "sub", invoke, EVERYTHING, key_id="key-all")
        case b"Bearer one":
            one = ResourceScope(functions=frozenset({F}))
            return Principal("own", "sub", invoke, one, key_id="key-one")
        case b"Bearer none":
            return Principal("own", "sub", frozenset(), EVERYTHING, key_id="key-none")
    raise Unauthenticated


class Lines:
    """A `runtime.logs.LineWriter` into a list."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


@dataclass
class Plain:
    """A gateway process with the functions F, named chat, and G."""

    model: ReadModel = field(default_factory=ReadModel)
    queue: RecordedQueue = field(default_factory=lambda: RecordedQueue(Script()))
    client: RecordedResponseWriter = field(
        default_factory=lambda: RecordedResponseWriter(Script(), "client")
    )
    own: PagePolicy = OPEN
    max_body_bytes: int = 0
    numbers: StoredNumbers = field(default_factory=StoredNumbers)
    access: list[str] = field(default_factory=list)
    metrics: MetricRegistry = field(default_factory=lambda: MetricRegistry(with_process=False))

    def __post_init__(self) -> None:
        self.recorded = GatewayMetrics(self.metrics)
        self.model.apply(FunctionVersion(F, V, "own", "chat", VersionState.ACTIVE))
        self.model.apply(FunctionVersion(G, V, "own", "embed", VersionState.ACTIVE))

    def begin(
        self,
        method: bytes,
        target: bytes,
        credential: bytes | None = ALL,
        headers: Headers | None = None,
        body_bytes: int | None = 0,
    ) -> RequestStream:
        metrics = self.recorded
        attach = AttachEndpoint(lambda: 0.0)
        access = AccessLog(Lines(self.access), lambda: 0.0)
        registry = InvocationRegistry(attach, self.queue, metrics, access, lambda: 0.0, print)
        context = Context(
            queue=self.queue,
            registry=registry,
            region=b"eu",
            attach_uri=b"http://10.0.0.1:8090",
            process=7,
            uploads=UploadSpace(CollectionBounds(), RecordedSpool(Script()).open),
            max_body_bytes=self.max_body_bytes,
            clock=lambda: 0.0,
        )
        admission = Admission(
            authenticate, Router(self.model, lambda: 0.0), FunctionNames(self.model)
        )
        cross_origin = CrossOrigin(self.model, self.own)
        dispatch = Dispatcher(
            context,
            registry,
            call_head_reader(b".invocation.example.com"),
            Gates(admission, RateLimits(self.numbers, lambda: 0)),
            PathEndpoints(
                attach, ProcessHealth(), metrics, cross_origin, make_endpoint(cross_origin)
            ),
            Refusals(metrics, access, admission.key_id_of),
            Sources([], trusts_unix=False),
            make_book(),
            make_keyed_calls(make_book()),
        )
        sent = list(headers or [])
        if credential is not None:
            sent.append((b"authorization", credential))
        if body_bytes is not None:
            sent.append((b"content-length", b"%d" % body_bytes))
        request = Request(method, target, b"llm.invocation.example.com", sent, body_bytes, 0.0)
        return dispatch(request, self.client)

    def call(
        self,
        method: bytes,
        target: bytes,
        body: bytes = b"",
        credential: bytes | None = ALL,
        headers: Headers | None = None,
        step: int = 1 << 20,
    ) -> Envelope:
        """Make a whole call; return what is published for it."""
        stream = self.begin(method, target, credential, headers, len(body))
        for at in range(0, len(body), step):
            stream.request_data(body[at : at + step])
        stream.request_end()
        assert self.client.head is None, self.client.sent
        return decode_envelope(self.queue.envelopes[0])

    def refusal(self, status: int) -> dict[str, object]:
        assert self.client.head is not None
        assert self.client.head[0] == status, self.client.sent
        assert self.queue.envelopes == []
        return dict(json.loads(self.client.sent))


@pytest.mark.parametrize("name", [b"chat", F.encode(), F.encode() + b":" + V.encode(), b"%63hat"])
@pytest.mark.parametrize(
    ("target", "inner"),
    [(b"/v1/a%2Fb?x=1&y", b"/v1/a%2Fb?x=1&y"), (b"", b"/"), (b"/", b"/"), (b"?x=1", b"/?x=1")],
)
def test_the_function_and_the_rest_of_the_path(name: bytes, target: bytes, inner: bytes) -> None:
    envelope = Plain().call(
        b"PUT", b"/f/" + name + target, b"body", headers=[(b"x-forwarded-prefix", b"/forged")]
    )
    assert (envelope.method, envelope.path, envelope.body) == (b"PUT", inner, b"body")
    prefixes = [value for key, value in envelope.headers if key == b"x-forwarded-prefix"]
    assert prefixes == [b"/f/" + name]


def test_a_call_is_told_and_logged_with_the_path_that_its_client_sent() -> None:
    plain = Plain(max_body_bytes=3)
    plain.begin(b"POST", b"/f/chat?x=1", body_bytes=4)
    assert plain.refusal(413)["instance"] == "/f/chat"
    assert [json.loads(line)["path"] for line in plain.access] == ["/f/chat"]


def test_a_refusal_of_a_path_that_names_its_function_is_too() -> None:
    plain = Plain()
    plain.begin(b"POST", b"/f/unknown/v1/x?x=1", body_bytes=4)
    assert plain.refusal(404)["instance"] == "/f/unknown/v1/x"
    assert [json.loads(line)["path"] for line in plain.access] == ["/f/unknown/v1/x"]


async def test_so_is_a_refusal_that_was_decided_later() -> None:
    plain = Plain()
    limit = RateLimitPolicy(rate="1-D", is_exact=True)
    plain.model.apply(FunctionVersion(F, V, "own", "chat", VersionState.ACTIVE, rate_limit=limit))
    plain.begin(b"GET", b"/f/chat/x").request_end()
    await until(lambda: plain.queue.envelopes)
    plain.queue.envelopes.clear()
    plain.numbers.answers.clear()
    plain.begin(b"GET", b"/f/chat/v1/x?x=1").request_end()
    plain.numbers.answers.set()
    await until(lambda: plain.client.head)
    assert plain.refusal(429)["instance"] == "/f/chat/v1/x"
    assert [json.loads(line)["path"] for line in plain.access] == ["/f/chat/v1/x"]


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_body_whose_model_is_a_function_arrives_as_it_was_sent(step: int) -> None:
    body = b'{ "messages": [{"role":"user"}], "model" : "chat", "x": 1 }'
    envelope = Plain().call(b"POST", b"/v1/chat/completions?a=b", body, step=step)
    assert (envelope.path, envelope.body) == (b"/v1/chat/completions?a=b", body)


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("function", [F, "chat", f"chat:{V}"])
def test_a_model_after_the_function_is_what_the_function_is_asked_for(
    function: str, step: int
) -> None:
    body = b'{"messages":[],"model":"%b/meta/llama","n":1}' % function.encode()
    headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-md5", b"x")]
    envelope = Plain().call(b"POST", b"/v1/embeddings", body, headers=headers, step=step)
    assert envelope.body == b'{"messages":[],"model":"meta/llama","n":1}'
    sent = dict(envelope.headers)
    assert sent[b"content-length"] == b"%d" % len(envelope.body)
    assert b"content-md5" not in sent


def test_a_body_of_unknown_length_is_published_once_its_first_part_has_ended() -> None:
    plain = Plain()
    stream = plain.begin(b"POST", b"/v1/completions", body_bytes=None)
    stream.request_data(b'{"mod')
    stream.first_part_end()
    assert plain.queue.envelopes == []
    stream.request_data(b'el":"chat/m","prompt":"')
    assert decode_envelope(plain.queue.envelopes[0]).body == b'{"model":"m","prompt":"'


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b'{"model":"none"}', 404, "model_not_found"),
        (b'{"model":"chat:latest"}', 404, "model_not_found"),
        (b'{"model":"%b/x"}' % V.encode(), 404, "model_not_found"),
        (b'{"messages":[]}', 400, None),
        (b"not JSON", 400, None),
        (b"", 400, None),
    ],
)
def test_what_names_no_function_is_refused_in_openais_form(
    body: bytes, status: int, reason: str | None
) -> None:
    plain = Plain()
    stream = plain.begin(b"POST", b"/v1/chat/completions", body_bytes=len(body))
    if body:
        stream.request_data(body)
    if plain.client.head is None:
        stream.request_end()
    document = plain.refusal(status)
    assert document.get("reason") == reason
    assert document["error"] == {
        "message": document["detail"],
        "type": "not_found_error" if status == 404 else "invalid_request_error",
        "code": reason or "bad_request",
    }


def test_a_name_of_several_functions_is_refused_with_their_ids() -> None:
    plain = Plain()
    plain.model.apply(FunctionVersion(G, V, "own", "chat", VersionState.ACTIVE))
    plain.begin(b"POST", b"/v1/chat/completions", body_bytes=16).request_data(b'{"model":"chat"}')
    detail = str(plain.refusal(400)["detail"])
    assert F in detail
    assert G in detail


@pytest.mark.parametrize("target", [b"/v1/models", b"/v1/models/chat"])
@pytest.mark.parametrize("credential", [ALL, None])
def test_options_tells_the_methods_of_the_list_of_models(
    target: bytes, credential: bytes | None
) -> None:
    plain = Plain()
    plain.begin(b"OPTIONS", target, credential)
    assert plain.client.head is not None
    status, headers, _ = plain.client.head
    assert (status, dict(headers)[b"allow"]) == (204, b"GET, HEAD, OPTIONS")


@pytest.mark.parametrize("target", [b"/f/chat/x", b"/v1/chat/completions", b"/v1/models"])
@pytest.mark.parametrize(("credential", "status"), [(None, 401), (b"Bearer bad", 401), (NONE, 403)])
def test_who_may_not_call_is_refused_before_the_body(
    target: bytes, credential: bytes | None, status: int
) -> None:
    plain = Plain()
    method = b"GET" if target == b"/v1/models" else b"POST"
    plain.begin(method, target, credential, body_bytes=9)
    plain.refusal(status)


@pytest.mark.parametrize(
    ("credential", "headers", "body_bytes", "status", "key_id"),
    [
        (NONE, [], 9, 403, "key-none"),
        (ALL, [(b"content-type", b"text/plain")], 9, 415, "key-all"),
        (ALL, [(b"nvcf-poll-seconds", b"soon")], 9, 400, "key-all"),
        (ALL, [], 1001, 413, "key-all"),
        (b"Bearer bad", [], 9, 401, ""),
        (None, [], 9, 401, ""),
    ],
)
def test_a_call_by_its_model_that_is_refused_before_its_body_is_counted_as_a_call_of_its_key(
    credential: bytes | None, headers: Headers, body_bytes: int, status: int, key_id: str
) -> None:
    plain = Plain(max_body_bytes=1000)
    plain.begin(b"POST", b"/v1/chat/completions", credential, headers, body_bytes)
    plain.refusal(status)
    (line,) = map(json.loads, plain.access)
    assert (line["status"], line["key_id"]) == (status, key_id)
    counted = b'axum_http_requests_total{method="POST",status="%d",endpoint="TLB"} 1\n' % status
    assert counted in plain.metrics.exposition()


@pytest.mark.parametrize(
    ("limits", "body_bytes", "is_refused"),
    [((10, 20), 21, True), ((10, 20), 20, False), ((10, 0), 500, False), ((), 1001, True)],
)
def test_a_length_above_every_limit_of_the_keys_one_function_is_refused_before_the_body(
    limits: tuple[int, ...], body_bytes: int, is_refused: bool
) -> None:
    plain = Plain(max_body_bytes=1000)
    for version, limit in zip((V, VersionId(G)), limits, strict=False):
        plain.model.apply(
            FunctionVersion(F, version, "own", "chat", VersionState.ACTIVE, max_body_bytes=limit)
        )
    plain.begin(b"POST", b"/v1/chat/completions", ONE, body_bytes=body_bytes)
    if is_refused:
        plain.refusal(413)
        (line,) = map(json.loads, plain.access)
        assert (line["function_id"], line["key_id"]) == (F, "key-one")
    else:
        assert plain.client.head is None


def test_a_bad_poll_window_is_refused_before_the_body() -> None:
    plain = Plain()
    plain.begin(
        b"POST", b"/v1/completions", headers=[(b"nvcf-poll-seconds", b"soon")], body_bytes=9
    )
    plain.refusal(400)


def test_a_body_that_is_not_json_needs_another_name_for_its_function() -> None:
    plain = Plain()
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    plain.begin(b"POST", b"/v1/audio/transcriptions", headers=headers, body_bytes=9)
    assert "/f/{function}" in str(plain.refusal(415)["detail"])


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
@pytest.mark.parametrize("target", [b"/", b"/predict?x=1", b"/v2/models/m/infer", b"/v1/models"])
def test_a_key_for_one_function_makes_every_path_that_functions(
    method: bytes, target: bytes
) -> None:
    envelope = Plain().call(method, target, credential=ONE)
    assert (envelope.method, envelope.path) == (method, target)


@pytest.mark.parametrize(
    ("body", "arrives"),
    [
        (b'{"model":"its-own:latest"}', b'{"model":"its-own:latest"}'),
        (b'{"model":"embed/x"}', b'{"model":"embed/x"}'),
        (b'{"model":"%b/x"}' % F.encode(), b'{"model":"x"}'),
        (b"not JSON", b"not JSON"),
        (b"{}", b"{}"),
    ],
)
def test_a_key_for_one_function_leaves_the_model_to_it(body: bytes, arrives: bytes) -> None:
    assert Plain().call(b"POST", b"/v1/completions", body, credential=ONE).body == arrives


def test_a_key_for_one_function_calls_no_other_in_its_place() -> None:
    plain = Plain()
    body = b'{"model":"%b/x"}' % G.encode()
    plain.begin(b"POST", b"/v1/completions", ONE, body_bytes=len(body)).request_data(body)
    plain.refusal(404)


@pytest.mark.parametrize("target", [b"/v2/nvcf/functions", b"/v1/keys", b"/v3/docs"])
def test_the_paths_of_the_api_stay_the_gateways(target: bytes) -> None:
    plain = Plain()
    plain.begin(b"GET", target, ONE)
    plain.refusal(404)


def test_a_client_that_leaves_before_the_model_is_known_leaves_a_line_and_a_count() -> None:
    plain = Plain()
    stream = plain.begin(b"POST", b"/v1/completions", body_bytes=100)
    stream.request_data(b'{"mod')
    stream.request_broken()
    assert plain.queue.envelopes == []
    assert plain.client.head is None
    (line,) = map(json.loads, plain.access)
    told = (line["path"], line["status"], line["reason"], line["key_id"])
    assert told == ("/v1/completions", 499, "client_gone", "key-all")
    counted = b'axum_http_requests_total{method="POST",status="499",endpoint="TLB"} 1\n'
    assert counted in plain.metrics.exposition()


NAMED = [
    (b"GET", b"/f/chat/x", ALL, b""),
    (b"GET", b"/f/%b/x" % F.encode(), ALL, b""),
    (b"GET", b"/x", ONE, b""),
    (b"POST", b"/v1/completions", ALL, b'{"model":"chat"}'),
    (b"POST", b"/v1/completions", ONE, b'{"model":"chat"}'),
]
"""Each way to name the function F without its host: method, target, credential and body."""


@pytest.mark.parametrize(("method", "target", "credential", "body"), NAMED)
@pytest.mark.parametrize(
    ("version", "status"), [(b"v2", 400), (b"44444444-4444-4444-8444-444444444444", 404)]
)
def test_no_other_version_runs_than_the_header_asks_for(
    method: bytes, target: bytes, credential: bytes, body: bytes, version: bytes, status: int
) -> None:
    plain = Plain()
    headers = [(b"function-version-id", version)]
    plain.begin(method, target, credential, headers, len(body)).request_data(body)
    plain.refusal(status)


@pytest.mark.parametrize(("method", "target", "credential", "body"), NAMED)
def test_the_version_of_the_header_runs(
    method: bytes, target: bytes, credential: bytes, body: bytes
) -> None:
    plain = Plain()
    other = VersionId("44444444-4444-4444-8444-444444444444")
    plain.model.apply(FunctionVersion(F, other, "own", "chat", VersionState.ACTIVE))
    plain.call(method, target, body, credential, [(b"function-version-id", other.encode())])
    assert plain.queue.versions == [other]


def test_a_version_header_must_not_contradict_the_path() -> None:
    plain = Plain()
    headers = [(b"function-version-id", G.encode())]
    plain.begin(b"GET", b"/f/chat:%b/x" % V.encode(), headers=headers)
    plain.refusal(400)


@pytest.mark.parametrize(("method", "target", "credential", "body"), NAMED)
def test_a_refused_call_is_readable_by_the_pages_of_its_function_and_logged_with_it(
    method: bytes, target: bytes, credential: bytes, body: bytes
) -> None:
    plain = Plain(own=PagePolicy(frozenset()))
    listed = PagePolicy(frozenset({"https://app.example"}))
    plain.model.apply(
        FunctionVersion(F, V, "own", "chat", VersionState.INACTIVE, page_policy=listed)
    )
    headers = [(b"origin", b"https://app.example")]
    plain.begin(method, target, credential, headers, len(body)).request_data(body)
    plain.refusal(404)
    assert plain.client.head is not None
    allowed = [value for name, value in plain.client.head[1] if name == ALLOW_ORIGIN]
    assert allowed == [b"https://app.example"]
    (line,) = map(json.loads, plain.access)
    assert line["function_id"] == F


@pytest.mark.parametrize(
    ("target", "allows"),
    [
        (b"/f/chat/x", b"*"),
        (b"/f/%b/x" % F.encode(), b"https://app.example"),
        (b"/v1/chat/completions", b"*"),
        (b"/x", b"*"),
        (b"/v2/nvcf/functions", None),
        (b"/health", None),
    ],
)
def test_a_preflight_for_a_function_does_not_depend_on_the_policy_of_the_api(
    target: bytes, allows: bytes | None
) -> None:
    plain = Plain(own=PagePolicy(frozenset()))
    listed = PagePolicy(frozenset({"https://app.example"}))
    plain.model.apply(FunctionVersion(F, V, "own", "chat", VersionState.ACTIVE, page_policy=listed))
    headers = [(b"origin", b"https://app.example"), (b"access-control-request-method", b"POST")]
    plain.begin(b"OPTIONS", target, None, headers)
    assert plain.client.head is not None
    assert plain.client.head[0] == 204
    sent = dict(plain.client.head[1])
    assert sent.get(ALLOW_ORIGIN) == allows
    assert sent[b"nvcf-reqid"] == sent[b"x-request-id"]


@pytest.mark.parametrize(("target", "credential"), [(b"/f/chat/x", ALL), (b"/x", ONE)])
def test_options_is_a_method_like_every_other(target: bytes, credential: bytes) -> None:
    envelope = Plain().call(b"OPTIONS", target, credential=credential)
    assert (envelope.method, envelope.path) == (b"OPTIONS", b"/x")


@pytest.mark.parametrize("target", [b"/healthz", b"/v1/keys-and-values"])
def test_a_path_that_only_begins_like_the_apis_is_the_functions(target: bytes) -> None:
    assert Plain().call(b"GET", target, credential=ONE).path == target


@pytest.mark.parametrize(
    "target", [b"/health/x", b"/v1/keys/1", b"/v2/orgs/o/nvcf/functions", b"/v2/users/me"]
)
def test_what_is_below_the_paths_of_the_api_is_not_the_functions(target: bytes) -> None:
    plain = Plain()
    plain.begin(b"GET", target, ONE)
    plain.refusal(404)


def test_the_function_of_a_path_has_no_model() -> None:
    plain = Plain()
    plain.begin(b"GET", b"/f/chat%2Fother/x")
    plain.refusal(404)


@pytest.mark.parametrize(("method", "target", "credential", "body"), NAMED)
def test_a_token_in_the_url_beside_a_credential_reaches_no_function(
    method: bytes, target: bytes, credential: bytes, body: bytes
) -> None:
    plain = Plain()
    plain.begin(method, target + b"?nvcf-token=secret", credential, body_bytes=len(body))
    plain.refusal(400)


@pytest.mark.parametrize("name", [b"chat", b"none"])
def test_a_key_in_the_url_is_refused_before_the_function_is_looked_up(name: bytes) -> None:
    plain = Plain()
    plain.begin(b"GET", b"/f/" + name + b"/x?nvcf-token=all", None)
    plain.refusal(401)
    assert plain.client.head is not None
    assert (b"referrer-policy", b"no-referrer") in plain.client.head[1]


def test_a_model_that_utf_8_cannot_express_arrives() -> None:
    body = b'{"model":"chat/\\ud800"}'
    assert Plain().call(b"POST", b"/v1/completions", body).body == b'{"model":"\\ud800"}'
