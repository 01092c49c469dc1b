"""GET attach against a real invocation, without sockets."""

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.errors import Unauthenticated
from http1.stream import Request
from tests.support.invocation_world import INLINE, World
from tests.support.recorder import RecordedResponseWriter

HEADERS = [(b"authorization", b"Bearer request-token")]
REQUEST = Request(b"GET", b"/v2/nvcf/worker/request-attach", b"gateway", HEADERS, 0, 0.0)


def test_the_token_of_a_rest_serves_once_and_its_second_use_ends_a_request_without_worker() -> None:
    world = World(body_bytes=INLINE + 20)
    world.invocation.request_data(b"a" * (INLINE + 10))
    endpoint = AttachEndpoint(lambda: world.now)
    endpoint.request_tokens.issue("request-token", world.invocation)
    worker = RecordedResponseWriter(world.script, "worker")
    endpoint.serve(REQUEST, worker)
    assert worker.sent == b"a" * 10
    with pytest.raises(Unauthenticated):
        endpoint.serve(REQUEST, RecordedResponseWriter(world.script, "second"))
    assert world.problem()["reason"] == "worker_lost"
