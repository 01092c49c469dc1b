"""Reads and validates bodies, queries and path variables of requests.

Error messages name members and rules, never the values that were sent: a rejected secret must not
be in a response that a caller may log.
"""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeVar

import orjson
from aiohttp import web
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from gateway.api.limits import MAX_BODY_BYTES, MAX_VALUES, HeldBodies, check_body_bytes
from gateway.api.schemas.fields import MAX_NAME_CHARS
from gateway.errors import BadRequest, UnsupportedMediaType
from runtime.text_rules import message_of
from wire.ids import parse_uuid

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib window bits by content coding (RFC 9110 §8.4.1)."""
_CODINGS = [(b"accept-encoding", b"gzip, deflate")]
_MAX_REPORTED = 8
"""At most this many validation errors are reported."""
_strings = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Matches also a string without its end, so that a search never begins twice at the same byte."""
_UUIDS = frozenset(
    {
        "functionId",
        "functionVersionId",
        "deploymentId",
        "gpuSpecificationId",
        "requestId",
        "assetId",
        "tokenId",
        "telemetryId",
        "registryCredentialId",
    }
)
"""Path variables that are UUIDs."""

Parsed = TypeVar("Parsed", bound=BaseModel)


async def read_body(
    request: web.Request, model: type[Parsed], bodies: HeldBodies, account: str
) -> Parsed:
    """Return the request's body, which is counted in ``bodies`` until it is complete.

    Raises `UnsupportedMediaType`, `BodyTooLarge`, `BadRequest` and `TooManyBodies`.
    """
    if request.content_type != "application/json":
        raise UnsupportedMediaType
    coding = ",".join(request.headers.getall("content-encoding", ())).strip().lower()
    if coding not in _WINDOW_BITS and coding not in {"", "identity"}:
        raise UnsupportedMediaType("The content coding is not known", headers=_CODINGS)
    check_body_bytes(request.content_length)
    data = bytearray()
    held_bytes = 0
    try:
        async for chunk in request.content.iter_any():
            data += chunk
            check_body_bytes(len(data))
            bodies.hold(account, held_bytes, len(data))
            held_bytes = len(data)
    finally:
        bodies.release(account, held_bytes)
    if coding in _WINDOW_BITS:
        data = decompress(data, coding)
    return parse_body(bytes(data), model)


def decompress(data: bytes | bytearray, coding: str) -> bytearray:
    """Return ``data`` with its content coding undone. Raises `BadRequest`, `BodyTooLarge`."""
    decoder = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        text = decoder.decompress(data, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is not {coding}, as its Content-Encoding says") from error
    check_body_bytes(len(text))
    if not decoder.eof or decoder.unused_data:
        raise BadRequest(f"The body is not exactly one complete {coding} stream")
    return bytearray(text)


def parse_body(data: bytes, model: type[Parsed]) -> Parsed:
    """Return ``data`` as ``model``. Raises `BadRequest`, which names the invalid members."""
    _check_json(data)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        _refuse(error)


def read_query(query: MultiMapping[str], model: type[Parsed]) -> Parsed:
    """Return the query parameters as ``model``. Raises `BadRequest`."""
    values: dict[str, object] = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in query:
            found = query.getall(key)
            is_list = field.default_factory is list
            if len(found) > 1 and not is_list:
                raise BadRequest(f"The query parameter {key} appears more than once")
            values[key] = found if is_list else found[0]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        _refuse(error)


def read_path(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the path variables, UUIDs in canonical form. Raises `BadRequest`."""
    read = {}
    for name, value in variables.items():
        if name in _UUIDS:
            canonical = parse_uuid(value.encode())
            if canonical is None:
                raise BadRequest(f"{name} in the path is not a UUID")
            read[name] = canonical
        else:
            read[name] = value
    return read


def _check_json(data: bytes) -> None:
    """Refuse JSON that parsers read in different ways (RFC 8259 §4, §6, §9), or of many values."""
    if _values(data) > MAX_VALUES and _values(_strings.sub(b"", data, 2 * MAX_VALUES)) > MAX_VALUES:
        raise BadRequest(f"The body has more than {MAX_VALUES} values")
    try:
        orjson.dumps(orjson.loads(data))
        json.loads(data, object_pairs_hook=_once, parse_int=_within_64_bits)
    except BadRequest:
        raise
    except (ValueError, RecursionError, TypeError) as error:
        raise BadRequest("The body is not valid JSON, or nested too deeply") from error


def _values(text: bytes) -> int:
    """Return about the number of values in ``text``, JSON without its strings; more with them."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _once(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise BadRequest("The body names a member twice in one object")


def _within_64_bits(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**64:
        raise BadRequest("The body has a whole number that does not fit into 64 bits")
    return number


def _refuse(error: ValidationError) -> NoReturn:
    errors = error.errors(include_input=False, include_url=False)
    reported = [
        f"[field={_field(found['loc'])}, message={message_of(found)}]"
        for found in errors[:_MAX_REPORTED]
    ]
    more = f" and {len(errors) - _MAX_REPORTED} more" if len(errors) > _MAX_REPORTED else ""
    raise BadRequest(f"Validation failed: {' '.join(reported)}{more}") from None


def _field(path: Sequence[int | str]) -> str:
    """Return the path of an invalid member. Keys of maps, which callers choose, are cut."""
    return ".".join(str(part)[:MAX_NAME_CHARS] for part in path) or "body"
