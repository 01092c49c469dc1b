"""Which worker may say that it has a large response."""

import pytest

from gateway.attach.endpoint import AttachEndpoint
from gateway.errors import MethodNotAllowed, Unauthenticated
from http1.stream import Request
from tests.support.invocation_world import REQUEST_ID, World
from wire.worker_api import LARGE_RESPONSE_PATH

TOKEN = "66666666-6666-4666-8666-666666666666"
ASKED = [
    (b"authorization", f"Bearer {TOKEN}".encode()),
    (b"nvcf-reqid", REQUEST_ID.encode()),
]


def asked(headers: list[tuple[bytes, bytes]], method: bytes = b"POST") -> Request:
    return Request(method, LARGE_RESPONSE_PATH, b"gateway", headers, 0, 0.0)


def test_the_token_of_the_response_admits_it_and_stays_valid() -> None:
    world = World().publish()
    endpoint = AttachEndpoint(lambda: world.now)
    endpoint.response_tokens.issue(TOKEN, world.invocation)
    for _ in range(2):
        assert endpoint.with_large_response(asked(ASKED)) is world.invocation
    for headers in (ASKED[:1], ASKED[1:], [(b"authorization", b"Bearer x"), ASKED[1]]):
        with pytest.raises(Unauthenticated):
            endpoint.with_large_response(asked(headers))
    with pytest.raises(MethodNotAllowed):
        endpoint.with_large_response(asked(ASKED, b"GET"))
