"""The envelope of exec, without a call."""

import json

import pytest

from gateway.errors import BadRequest
from gateway.requests.exec_body import MAX_ASSETS, ExecRequest, decode_request, encode_response

ASSET = "11111111-1111-4111-8111-11111111111a"
ID = "22222222-2222-4222-8222-222222222222"


def test_the_body_is_cut_out_as_it_was_written() -> None:
    text = (
        b'{"requestHeader": {"inputAssetReferences": ["%b"], "pollDurationSeconds": 5,'
        b' "meteringData": [{"a": 1}]}, "x": 1,'
        b' "requestBody": {"n": 123456789012345678901234567890.10, "t":"\\u00e9" }}'
    ) % ASSET.upper().encode()
    body = b'{"n": 123456789012345678901234567890.10, "t":"\\u00e9" }'
    assert decode_request(text) == ExecRequest(body, (ASSET,), 5)


@pytest.mark.parametrize("body", [b"null", b"[1, 2]", b'"text"', b"0"])
def test_any_json_value_may_be_the_body(body: bytes) -> None:
    for header in (b"", b'"requestHeader":null,', b'"requestHeader":{"pollDurationSeconds":null},'):
        assert decode_request(b'{%b"requestBody":%b}' % (header, body)) == (body, (), None)


def test_a_window_below_one_second_counts_as_one() -> None:
    text = b'{"requestHeader":{"pollDurationSeconds":%d},"requestBody":1}'
    for asked, counted in ((-1, 1), (0, 1), (3600, 3600)):
        assert decode_request(text % asked).poll_s == counted


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"requestBody":{}',
        b'{"requestBody":{}} 1',
        b'{"requestBody":[1,]}',
        b'{"requestBody":NaN}',
        b'{"requestBody":"\xff"}',
        b'{"requestBody":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"requestHeader":[],"requestBody":1}',
        b'{"requestHeader":{"pollDurationSeconds":3601},"requestBody":1}',
        b'{"requestHeader":{"pollDurationSeconds":"5"},"requestBody":1}',
        b'{"requestHeader":{"inputAssetReferences":["x"]},"requestBody":1}',
        b'{"requestHeader":{"inputAssetReferences":[%b""]},"requestBody":1}'
        % (b'"%b",' % ASSET.encode() * MAX_ASSETS),
    ],
)
def test_what_is_no_envelope_is_the_callers_fault(text: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(text)


def test_a_response_is_wrapped_with_its_status() -> None:
    assert encode_response(ID, 200, b' {"a": 1.50}') == (
        200,
        b'{"reqId":"%b","status":"fulfilled","percentComplete":100,"response":{"a": 1.50}}'
        % ID.encode(),
    )
    status, text = encode_response(ID, 200, b'{"a": "\xc3\xa9"}', as_text=True)
    assert json.loads(text)["response"] == '{"a": "é"}'
    status, text = encode_response(ID, 422, b'{"detail":"no"}')
    assert (status, json.loads(text)) == (
        422,
        {"reqId": ID, "status": "errored", "errorCode": 422, "response": {"detail": "no"}},
    )


def test_a_call_in_progress_tells_what_is_known() -> None:
    status, text = encode_response(ID, 202, b'{"part":1}', percent=45)
    assert (status, json.loads(text)) == (
        202,
        {"reqId": ID, "status": "in-progress", "percentComplete": 45, "response": {"part": 1}},
    )
    assert json.loads(encode_response(ID, 202, b"{}")[1]) == {"reqId": ID, "status": "in-progress"}


def test_a_large_response_is_a_reference() -> None:
    status, text = encode_response(ID, 302, b"", location=b"https://o.example/x?s=1")
    assert (status, json.loads(text)) == (
        200,
        {
            "reqId": ID,
            "status": "fulfilled",
            "responseReference": "https://o.example/x?s=1",
            "percentComplete": 100,
        },
    )


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_response_without_a_body_has_an_envelope(status: int) -> None:
    found, text = encode_response(ID, status, b"")
    assert (found, json.loads(text)) == (
        200,
        {"reqId": ID, "status": "fulfilled", "percentComplete": 100},
    )


def test_what_is_no_json_is_a_string() -> None:
    assert json.loads(encode_response(ID, 200, b"a\nb")[1])["response"] == "a\nb"
    assert "response" not in json.loads(encode_response(ID, 204, b"")[1])


@pytest.mark.parametrize("body", [b"\xff\xd8", None])
def test_what_no_envelope_can_hold_is_an_error(body: bytes | None) -> None:
    status, text = encode_response(ID, 200, body)
    assert status == 502
    document = json.loads(text)
    assert (document["status"], document["errorCode"]) == ("errored", 502)
    assert "pexec" in document["response"]
