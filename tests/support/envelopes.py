"""Request envelopes for tests of the worker agent."""

from typing import Any

from wire.decoded_envelope import Envelope, decode_envelope
from wire.envelope import encode_assets, encode_call_head, encode_envelope

REQUEST_ID = "11111111-1111-4111-8111-111111111111"
REQUESTED_AT_NS = 1_700_000_000_000_000_000


_OF_HEAD = ("nca_id", "subject", "method", "path", "headers")


def encoded(**fields: Any) -> bytes:
    """Return an envelope, from the fields of its head, its assets and its own."""
    head = {name: fields.pop(name) for name in _OF_HEAD if name in fields}
    assets = encode_assets(fields.pop("assets", ()))
    return encode_envelope(encode_call_head(**head) + assets, **fields)


def envelope(
    method: bytes = b"POST",
    path: bytes = b"/v1/chat",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes = b"",
    *,
    has_rest: bool = False,
) -> Envelope:
    return decode_envelope(
        encoded(
            request_id=REQUEST_ID,
            nca_id="account",
            subject="caller",
            requested_at_ns=REQUESTED_AT_NS,
            method=method,
            path=path,
            headers=[*headers],
            body=body,
            target_uri=b"http://127.0.0.1:1",
            response_token="response",
            request_token="request" if has_rest else None,
        )
    )
