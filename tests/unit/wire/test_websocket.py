import pytest

from wire.websocket import accept_of, entries_of, is_key, key_from, names_websocket, with_entries


def test_the_accept_is_that_of_the_rfc() -> None:
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (b"dGhlIHNhbXBsZSBub25jZQ==", True),
        (key_from("33333333-3333-4333-8333-333333330007"), True),
        (b"dGhlIHNhbXBsZSBub25jZR==", False),
        (b"dGhlIHNhbXBsZSBub25jZQ=", False),
        (b"dGhlIHNhbXBsZSBub25jZQ==\n", False),
        (b"", False),
    ],
)
def test_a_key_holds_16_bytes(value: bytes, is_one: bool) -> None:
    assert is_key(value) is is_one


@pytest.mark.parametrize("value", [b"websocket", b"WebSocket", b"h2c, websocket", b"websocket,x"])
def test_the_protocol_is_found_among_others_in_any_case(value: bytes) -> None:
    assert names_websocket(value)
    assert not names_websocket(value.lower().replace(b"websocket", b"websockets"))


def test_entries_of_several_lines_become_one_line() -> None:
    headers = [
        (b"sec-websocket-protocol", b"a,, b"),
        (b"x", b"y"),
        (b"sec-websocket-protocol", b" c\t"),
    ]
    entries = entries_of(headers)
    assert entries == [b"a", b"b", b"c"]
    with_entries(headers, entries[1:])
    assert headers == [(b"x", b"y"), (b"sec-websocket-protocol", b"b, c")]
    with_entries(headers, [])
    assert headers == [(b"x", b"y")]
