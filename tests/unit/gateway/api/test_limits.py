"""Bodies of REST calls are bounded in what they hold and in what reading them costs."""

from typing import Any

import pytest

from gateway.api.app import ROUTES
from gateway.api.limits import (
    FREE_BYTES,
    MAX_ACCOUNT_HELD_BYTES,
    MAX_BODY_BYTES,
    MAX_HELD_BYTES,
    MAX_VALUES,
    HeldBodies,
)
from gateway.api.parsing import parse_body
from gateway.api.schemas.functions import CreateFunction
from gateway.api.schemas.workers import ConnectBody, HeartbeatBody
from gateway.errors import BadRequest, TooManyBodies

BODIES = {route.body for route in ROUTES if route.body is not None} | {ConnectBody, HeartbeatBody}
QUERIES = {route.query for route in ROUTES if route.query is not None}
ANY_JSON = "definitions"
"""Any JSON, as in a secret, is bounded as a whole: by the values and the bytes of a body."""


def unbounded(schema: object) -> list[dict[str, Any]]:
    """Return the lists and maps of a core schema that are not bounded while they are read."""
    if isinstance(schema, list | tuple):
        return [found for part in schema for found in unbounded(part)]
    if not isinstance(schema, dict):
        return []
    found = []
    if schema.get("type") == "list" and not (schema.get("max_length") and schema.get("fail_fast")):
        found.append(schema)
    if schema.get("type") == "dict" and not schema.get("max_length"):
        found.append(schema)
    return found + unbounded([part for name, part in schema.items() if name != ANY_JSON])


@pytest.mark.parametrize("model", sorted(BODIES | QUERIES, key=lambda model: model.__name__))
def test_every_list_is_bounded_and_read_up_to_its_first_invalid_item(model: Any) -> None:
    assert unbounded(model.__pydantic_core_schema__) == []


def test_a_list_that_is_too_long_gives_one_error() -> None:
    tags = ",".join(["0"] * (MAX_VALUES - 100))
    with pytest.raises(BadRequest) as refused:
        parse_body(b'{"name":"a","inferenceUrl":"/","tags":[%b]}' % tags.encode(), CreateFunction)
    assert refused.value.detail.count("field=tags") == 1


@pytest.mark.parametrize("value", [b"0", b"[]", b"{}", b'""', b'"\\""'])
def test_more_values_than_a_body_may_have_are_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="values"):
        parse_body(b"[" + b",".join([value] * (MAX_VALUES + 1)) + b"]", CreateFunction)


def test_what_is_in_a_text_is_no_value() -> None:
    text = b'[{,\\"' * MAX_VALUES
    with pytest.raises(BadRequest, match="inferenceUrl"):
        parse_body(b'{"name":"%b"}' % text, CreateFunction)


def test_large_bodies_are_counted_until_they_are_complete() -> None:
    bodies = HeldBodies()
    count = MAX_ACCOUNT_HELD_BYTES // (MAX_BODY_BYTES - FREE_BYTES)
    for _ in range(count):
        bodies.hold("one", 0, MAX_BODY_BYTES)
    with pytest.raises(TooManyBodies):
        bodies.hold("one", 0, MAX_BODY_BYTES)
    bodies.hold("one", 0, FREE_BYTES)
    bodies.hold("other", 0, MAX_BODY_BYTES)
    bodies.release("one", MAX_BODY_BYTES)
    bodies.hold("one", 0, MAX_BODY_BYTES)
    for _ in range(count):
        bodies.release("one", MAX_BODY_BYTES)
    bodies.release("one", FREE_BYTES)
    bodies.release("other", MAX_BODY_BYTES)
    assert bodies.total_bytes == 0


def test_all_accounts_together_hold_a_bounded_number_of_bytes() -> None:
    bodies = HeldBodies()
    for number in range(MAX_HELD_BYTES // (MAX_BODY_BYTES - FREE_BYTES)):
        bodies.hold(f"account {number}", 0, MAX_BODY_BYTES)
    with pytest.raises(TooManyBodies):
        bodies.hold("another", 0, MAX_BODY_BYTES)
    assert bodies.total_bytes <= MAX_HELD_BYTES
