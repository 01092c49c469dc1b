"""The path routes, without sockets."""

import json
from functools import partial

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.endpoints import (
    AdminDispatcher,
    AttachDispatcher,
    PathEndpoints,
    StartingDispatcher,
)
from gateway.domain.cors import OPEN, PagePolicy
from gateway.domain.readmodel import ReadModel
from gateway.errors import NotFound, Unauthenticated
from gateway.requests.forwarding import ForwardedRequests
from gateway.routing.cross_origin import CrossOrigin
from gateway.telemetry.health import ProcessHealth
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import Headers, Request
from runtime.metrics import MetricRegistry
from tests.support.detached import make_endpoint
from tests.support.recorder import RecordedResponseWriter, Script
from tests.support.waiting import until


class Routes:
    """The routes and what they answer."""

    def __init__(self, own: PagePolicy = OPEN) -> None:
        self.registry = MetricRegistry(with_process=False)
        self.health = ProcessHealth()
        self.attach = AttachEndpoint(lambda: 0.0)
        self.cross_origin = CrossOrigin(ReadModel(), own)
        self.paths = PathEndpoints(
            self.attach,
            self.health,
            GatewayMetrics(self.registry),
            self.cross_origin,
            make_endpoint(self.cross_origin),
        )
        self.client = RecordedResponseWriter(Script(), "client")

    def serve(self, method: bytes, target: bytes, headers: Headers | None = None) -> Headers:
        self.paths.serve(request(method, target, headers), self.client)
        assert self.client.head is not None
        return self.client.head[1]


def request(method: bytes, target: bytes, headers: Headers | None = None) -> Request:
    return Request(method, target, b"gateway", headers or [], 0, 0.0)


def assert_problem(client: RecordedResponseWriter, status: int, path: str) -> None:
    assert client.head is not None
    document = json.loads(client.sent)
    assert document["status"] == client.head[0] == status
    assert document["instance"] == path
    assert len(document["requestId"]) == 36
    for name in (b"x-request-id", b"nvcf-reqid"):
        assert (name, document["requestId"].encode()) in client.head[1]


def test_a_preflight_is_answered_with_what_it_asks_for() -> None:
    routes = Routes()
    answer = dict(
        routes.serve(
            b"OPTIONS",
            b"/v2/nvcf/worker/request-attach",
            [
                (b"origin", b"https://app.example"),
                (b"access-control-request-method", b"POST"),
                (b"access-control-request-headers", b"authorization"),
            ],
        )
    )
    assert answer[b"access-control-allow-origin"] == b"*"
    assert answer[b"access-control-allow-methods"] == b"POST"
    assert answer[b"access-control-allow-headers"] == b"authorization"
    assert answer[b"access-control-max-age"] == b"86400"
    assert answer[b"nvcf-reqid"] == answer[b"x-request-id"]
    assert routes.client.head is not None
    assert routes.client.head[0] == 204


APP = (b"origin", b"https://app.example")
LISTED = PagePolicy(frozenset({"https://app.example"}))


def test_an_origin_that_is_not_listed_is_refused_by_saying_nothing() -> None:
    asks = [(b"origin", b"https://evil.example"), (b"access-control-request-method", b"GET")]
    refused = dict(Routes(LISTED).serve(b"OPTIONS", b"/v2/nvcf/functions", asks))
    assert set(refused) == {b"vary", b"nvcf-reqid", b"x-request-id"}
    allowed = dict(Routes(LISTED).serve(b"OPTIONS", b"/v2/nvcf/functions", [APP, asks[1]]))
    assert allowed[b"access-control-allow-origin"] == b"https://app.example"


def test_a_call_that_will_name_its_function_in_a_header_is_left_to_the_functions_policy() -> None:
    asks = [
        (b"origin", b"https://other.example"),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization,Function-Id"),
    ]
    answer = dict(Routes(LISTED).serve(b"OPTIONS", b"/v1/x", asks))
    assert answer[b"access-control-allow-origin"] == b"*"


def test_the_endpoints_say_once_who_may_read_them_and_on_what_that_depends() -> None:
    assert (b"access-control-allow-origin", b"*") in Routes().serve(b"GET", b"/health", [APP])
    listed = Routes(LISTED).serve(b"GET", b"/health", [APP])
    assert (b"access-control-allow-origin", b"https://app.example") in listed
    assert (b"vary", b"origin") in listed
    without_origin = Routes(LISTED).serve(b"GET", b"/health")
    assert without_origin[:2] == [(b"content-type", b"application/json"), (b"vary", b"origin")]


def test_a_page_can_read_that_the_gateway_is_starting() -> None:
    routes = Routes()
    starting = StartingDispatcher(routes.health, routes.cross_origin)
    starting(request(b"GET", b"/v1/x", [APP]), routes.client)
    assert routes.client.head is not None
    assert routes.client.head[0] == 503
    assert (b"access-control-allow-origin", b"*") in routes.client.head[1]
    client = RecordedResponseWriter(Script(), "client")
    starting(
        request(b"OPTIONS", b"/v1/x", [APP, (b"access-control-request-method", b"GET")]), client
    )
    assert client.head is not None
    assert client.head[0] == 204


def test_health_is_answered_with_or_without_query_and_without_body_to_head() -> None:
    content_type, *ids = Routes().serve(b"GET", b"/health?x=1")
    assert content_type == (b"content-type", b"application/json")
    assert [name for name, _ in ids] == [b"nvcf-reqid", b"x-request-id"]
    assert ids[0][1] == ids[1][1]
    routes = Routes()
    routes.serve(b"HEAD", b"/health")
    assert routes.client.sent == b""


@pytest.mark.parametrize("target", [b"/health", b"/health/live?x", b"/health/ready", b"*"])
def test_health_paths_and_the_server_itself_tell_their_methods(target: bytes) -> None:
    routes = Routes()
    assert routes.serve(b"OPTIONS", target)[:1] == [(b"allow", b"GET, HEAD, OPTIONS")]
    assert routes.client.head is not None
    assert routes.client.head[0] == 204


def test_what_is_no_route_is_not_found() -> None:
    routes = Routes()
    with pytest.raises(NotFound):
        routes.serve(b"GET", b"/nothing")
    with pytest.raises(Unauthenticated):
        routes.serve(b"POST", b"/v2/nvcf/worker/request-attach?x")


def test_the_workers_listener_serves_attach_and_health_only() -> None:
    routes = Routes()
    dispatch = AttachDispatcher(routes.attach, routes.health, ForwardedRequests(b"secret"))
    for target, status in (
        (b"/v2/nvcf/worker/request-attach", 401),
        (b"/health/live", 200),
        (b"/metrics", 404),
    ):
        worker = RecordedResponseWriter(Script(), "worker")
        dispatch(request(b"GET", target), worker)
        assert worker.head is not None
        assert worker.head[0] == status
        if status != 200:
            assert_problem(worker, status, target.decode())


def test_before_the_store_is_read_everything_else_is_told_to_come_back() -> None:
    client = RecordedResponseWriter(Script(), "client")
    routes = Routes()
    starting = StartingDispatcher(routes.health, routes.cross_origin)
    starting(request(b"GET", b"/v1/x?y"), client)
    assert_problem(client, 503, "/v1/x")


async def test_the_admin_listener_serves_metrics_and_health() -> None:
    routes = Routes()
    dispatch = AdminDispatcher(routes.registry, routes.health)
    for target, status in ((b"/metrics", 200), (b"/health/ready", 200), (b"/x", 404)):
        client = RecordedResponseWriter(Script(), "client")
        dispatch(request(b"GET", target), client)
        assert client.head is not None
        assert client.head[0] == status
        if target == b"/metrics":
            await until(partial(getattr, client, "over"), what="the end of the metrics")
            assert b"# TYPE function_request counter" in client.sent
        if status != 200:
            assert_problem(client, status, target.decode())
