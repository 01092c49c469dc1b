import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.envelopes import encoded
from wire.decoded_envelope import Envelope, InputAssetReference, decode_envelope
from wire.envelope import INLINE_BODY_BYTES, MAX_ENVELOPE_BYTES, EnvelopeError
from wire.nvcf_pb2 import WorkerInvokeFunctionRequest

FIELDS: dict[str, Any] = {
    "request_id": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "nca_id": "acct",
    "subject": "someone",
    "requested_at_ns": 1_763_710_000_123_456_789,
    "method": b"POST",
    "path": b"/v1/chat/completions?x=%20&y",
    "headers": [(b"host", b"f.example.com"), (b"cookie", b"a" * 2000), (b"cookie", b"b")],
    "body": b"\x00\xff body",
    "target_uri": b"http://10.1.2.3:8081",
    "response_token": "response",
    "request_token": "request",
    "channel_token": "channel",
    "assets": (
        InputAssetReference("6f9619ff-8b86-4011-b42d-00c04fc964ff", "http://h/" + "x" * 300, "a/b"),
    ),
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
utf8 = texts.map(str.encode)
fields = st.fixed_dictionaries(
    {
        "request_id": texts.filter(bool),
        "nca_id": texts,
        "subject": texts,
        "requested_at_ns": st.integers(0, 2**62),
        "method": utf8,
        "path": utf8,
        "headers": st.lists(st.tuples(utf8, utf8), max_size=5),
        "body": st.binary(max_size=300),
        "target_uri": utf8,
        "response_token": texts,
        "request_token": st.none() | texts.filter(bool),
        "channel_token": texts,
        "assets": st.lists(st.builds(InputAssetReference, texts, texts, texts), max_size=3).map(
            tuple
        ),
    }
)


def message_of(values: dict[str, Any]) -> WorkerInvokeFunctionRequest:
    """Return the same envelope, encoded by protobuf."""
    message = WorkerInvokeFunctionRequest(
        requestId=values["request_id"],
        ncaId=values["nca_id"],
        subject=values["subject"],
        maxDirectResponseSizeBytes=5_242_880,
        requestMethod=values["method"].decode(),
        requestPath=values["path"].decode(),
    )
    message.requestTime.seconds, message.requestTime.nanos = divmod(
        values["requested_at_ns"], 1_000_000_000
    )
    for name, value in values["headers"]:
        message.requestHeaders.add(key=name.decode(), value=value.decode())
    if values["body"]:
        message.requestBody = values["body"]
    config = message.statelessConfig.connectionConfigs.add().http1Config
    config.targetURI = values["target_uri"].decode()
    config.responseAuthorizationToken = values["response_token"]
    if values["request_token"] is not None:
        config.requestAuthorizationToken = values["request_token"]
    message.channelToken = values["channel_token"]
    for asset_id, url, content_type in values["assets"]:
        message.inputAssetReference.add(assetId=asset_id, reference=url, contentType=content_type)
    return message


def slots_of(envelope: Envelope) -> dict[str, Any]:
    own = {name: getattr(envelope, name) for name in Envelope.__slots__ if name != "head"}
    return {**own, "assets": envelope.head.assets}


def test_an_envelope_is_what_protobuf_writes() -> None:
    data = encoded(**FIELDS)
    assert WorkerInvokeFunctionRequest.FromString(data) == message_of(FIELDS)
    assert len(data) == len(message_of(FIELDS).SerializeToString())


@given(fields)
def test_any_fields_arrive_as_they_were(values: dict[str, Any]) -> None:
    data = encoded(**values)
    assert WorkerInvokeFunctionRequest.FromString(data) == message_of(values)
    assert slots_of(decode_envelope(data)) == values | {
        "stateful": False,
        "max_direct_response_bytes": 5_242_880,
        "channel_call": 0,
    }


@given(st.lists(st.tuples(utf8, utf8 | st.binary(max_size=300)), max_size=5))
def test_header_values_are_opaque_bytes(headers: list[tuple[bytes, bytes]]) -> None:
    assert decode_envelope(encoded(**FIELDS | {"headers": headers})).headers == headers


def test_a_worker_that_does_not_know_opaque_values_reads_latin_1() -> None:
    headers = [(b"x" * 200, b"1"), (b"x-name", b"Andr\xe9"), (b"y", b"Andr\xc3\xa9")]
    message = WorkerInvokeFunctionRequest.FromString(encoded(**FIELDS | {"headers": headers}))
    assert [header.value for header in message.requestHeaders] == ["1", "André", "André"]
    assert [(o.index, o.value) for o in message.opaqueHeaderValues] == [(1, b"Andr\xe9")]


def test_an_opaque_value_of_no_header_is_passed_over() -> None:
    message = message_of(FIELDS)
    message.opaqueHeaderValues.add(index=3, value=b"\xff")
    assert decode_envelope(message.SerializeToString()).headers == FIELDS["headers"]


@pytest.mark.parametrize("size", [123, 124, 125, 127, 128, 1022, 1023, 1024, 16_384, 70_000])
def test_lengths_around_each_size_of_varint(size: int) -> None:
    values = FIELDS | {"headers": [(b"n", b"v" * size), (b"n" * size, b"v")], "body": b"b" * size}
    assert WorkerInvokeFunctionRequest.FromString(encoded(**values)) == message_of(values)


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": [(b"x\xff", b"y")]},
        {"path": b"/\xff"},
        {"method": b"\xff"},
        {"body": b"x" * MAX_ENVELOPE_BYTES},
    ],
)
def test_what_fits_in_no_envelope_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeError):
        encoded(**FIELDS | changed)


def test_the_size_limit_is_exact() -> None:
    around = len(encoded(**FIELDS | {"body": b"x" * 5_000_000})) - 5_000_000
    body = b"x" * (MAX_ENVELOPE_BYTES - around)
    assert len(encoded(**FIELDS | {"body": body})) == MAX_ENVELOPE_BYTES
    with pytest.raises(EnvelopeError):
        encoded(**FIELDS | {"body": body + b"x"})
    assert INLINE_BODY_BYTES == 32_768


def test_the_first_http1_config_is_taken_and_a_session_is_seen() -> None:
    message = message_of(FIELDS)
    del message.statelessConfig.connectionConfigs[:]
    message.statelessConfig.connectionConfigs.add()
    first = message.statelessConfig.connectionConfigs.add().http1Config
    first.targetURI = "http://first"
    message.statelessConfig.connectionConfigs.add().http1Config.targetURI = "http://second"
    message.statefulConfig.nvcfRegionOfInvoker = "us-east-1"
    envelope = decode_envelope(message.SerializeToString())
    assert envelope.target_uri == b"http://first"
    assert envelope.request_token is None
    assert envelope.stateful


def test_fields_that_a_newer_gateway_adds_are_passed_over() -> None:
    data = encoded(**FIELDS) + b"\xa2\x06\x03new"
    assert slots_of(decode_envelope(data)) == slots_of(decode_envelope(encoded(**FIELDS)))


def test_an_envelope_without_an_id_or_a_way_back_is_none() -> None:
    nameless = message_of(FIELDS)
    nameless.requestId = ""
    lost = message_of(FIELDS)
    lost.ClearField("statelessConfig")
    unreachable = message_of(FIELDS)
    unreachable.statelessConfig.connectionConfigs[0].ClearField("http1Config")
    for message in (nameless, lost, unreachable):
        with pytest.raises(EnvelopeError):
            decode_envelope(message.SerializeToString())


@given(st.binary(max_size=200), st.integers(0, 400))
def test_broken_bytes_raise_nothing_but_the_documented_error(noise: bytes, at: int) -> None:
    whole = encoded(**FIELDS)
    for data in (noise, whole[:at], whole[:at] + noise, whole[:at] + noise + whole[at:]):
        with contextlib.suppress(EnvelopeError):
            decode_envelope(data)
