"""The JSON envelope of NVCF's ``exec`` routes (`docs/wire.md` §24.4).

Pure. The body of a request is ``{"requestHeader": {…}, "requestBody": …}``, of which the function
gets the value of ``requestBody`` as it was written; the response is wrapped in the same way. What
is large is cut out and put in as bytes: no JSON value of a caller is built.
"""

from typing import Annotated, NamedTuple

import msgspec
import orjson

from gateway.errors import BadRequest
from gateway.invocation.headers import nvcf_status
from wire.deadlines import MAX_POLL_S
from wire.ids import parse_uuid

MAX_REQUEST_BYTES = 5 * 1024 * 1024
"""Largest envelope of a request: a larger body goes by ``pexec``, as a stream."""
MAX_RESPONSE_BYTES = 5 * 1024 * 1024
"""Largest response of a function that is wrapped."""
MAX_ASSETS = 64
"""Input assets of one call, in the envelope or in the header."""

_AssetText = Annotated[str, msgspec.Meta(max_length=64)]


_BODILESS = frozenset({204, 205, 304})
_TOO_LARGE = b'"The response is too large for an envelope; pexec streams it"'
_NO_TEXT = b'"The response is no text, as an envelope needs it; pexec passes it on"'


class _RequestHeader(msgspec.Struct):
    input_assets: Annotated[list[_AssetText], msgspec.Meta(max_length=MAX_ASSETS)] | None = (
        msgspec.field(default=None, name="inputAssetReferences")
    )
    poll_s: int | None = msgspec.field(default=None, name="pollDurationSeconds")


class _RequestEnvelope(msgspec.Struct):
    header: _RequestHeader | None = msgspec.field(default=None, name="requestHeader")
    body: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw, name="requestBody")


_decode = msgspec.json.Decoder(_RequestEnvelope).decode
_decode_any = msgspec.json.Decoder(msgspec.Raw).decode


class ExecRequest(NamedTuple):
    """What an envelope asks for.

    ``body`` is the JSON text for the function. ``input_assets`` are canonical UUIDs. ``poll_s`` is
    the window in seconds, ``None`` if the envelope has none: that of ``NVCF-POLL-SECONDS`` counts
    then.
    """

    body: bytes
    input_assets: tuple[str, ...]
    poll_s: int | None


def decode_request(text: bytes) -> ExecRequest:
    """Return what the envelope ``text`` asks for; unknown members are ignored, as NVCF does.

    Raises `BadRequest` if it is not such an envelope.
    """
    if not is_utf8(text):
        raise BadRequest("The body is not UTF-8")
    try:
        envelope = _decode(text)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The body is no envelope of exec: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest("The body is not valid JSON") from error
    body = bytes(envelope.body)
    if not body:
        raise BadRequest("The body has no member requestBody")
    header = envelope.header or _RequestHeader()
    poll_s = header.poll_s
    if poll_s is not None and poll_s > MAX_POLL_S:
        raise BadRequest(f"pollDurationSeconds is above {MAX_POLL_S}")
    return ExecRequest(
        body,
        tuple(_asset_id(text) for text in header.input_assets or ()),
        None if poll_s is None else max(poll_s, 1),
    )


def _asset_id(text: str) -> str:
    asset_id = parse_uuid(text.encode())
    if asset_id is None:
        raise BadRequest("inputAssetReferences has an item that is not a UUID")
    return asset_id


def encode_response(
    request_id: str,
    status: int,
    body: bytes | None,
    *,
    location: bytes = b"",
    percent: int | None = None,
    as_text: bool = False,
) -> tuple[int, bytes]:
    """Return status and body of the response to a call of ``exec``, or to a poll.

    ``status`` and ``body`` are those of the function or of the worker, the latter `None` if it has
    more than `MAX_RESPONSE_BYTES`; what no envelope can hold is an error. ``location`` is where a
    response lies that is too large to be sent directly (302). ``percent`` is how far a call has
    come that is still in progress (202). ``as_text``: ``response`` is a string with JSON text, as
    the SDKs of 2024 and 2025 read it, in place of the JSON value.
    """
    members: dict[str, object] = {"reqId": request_id, "status": nvcf_status(status).decode()}
    if status == 302:
        members |= {
            "responseReference": location.decode("latin-1"),
            "percentComplete": 100,
        }
        return 200, orjson.dumps(members)
    if status == 202:
        if percent is not None:
            members["percentComplete"] = percent
        if body == b"{}":
            body = b""
    elif status < 400:
        members["percentComplete"] = 100
        if status in _BODILESS:
            # The envelope is a body.
            status = 200
    else:
        members["errorCode"] = status
    if body == b"":
        return status, orjson.dumps(members)
    value = None if body is None else _json_of(body)
    if value is None:
        status, value = 502, _TOO_LARGE if body is None else _NO_TEXT
        members = {"reqId": request_id, "status": "errored", "errorCode": status}
    if as_text:
        members["response"] = value.decode()
        return status, orjson.dumps(members)
    return status, b'%b,"response":%b}' % (orjson.dumps(members)[:-1], value)


def _json_of(body: bytes) -> bytes | None:
    """Return a body as JSON text: itself, a string for another text, `None` if it is no text."""
    if not is_utf8(body):
        return None
    try:
        return bytes(_decode_any(body))
    except (msgspec.DecodeError, RecursionError):
        return orjson.dumps(body.decode())


def is_utf8(text: bytes) -> bool:
    """Return whether ``text`` is UTF-8."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
