import pytest

from gateway.domain.cors import PagePolicy
from gateway.domain.model import FunctionVersion, VersionState
from gateway.errors import BadRequest, Forbidden, UpgradeRequired
from gateway.routing.websocket import check_handshake, take_key
from http1.stream import Headers, Request
from wire.ids import FunctionId, VersionId

KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")
UPGRADE = (b"upgrade", b"websocket")
PROTOCOL = b"sec-websocket-protocol"


def request(*headers: tuple[bytes, bytes], body_bytes: int | None = 0) -> Request:
    found = Request(b"GET", b"/ws", b"f.example", [*headers], body_bytes, 0.0)
    found.protocol = b"websocket"
    return found


def version(*origins: str) -> FunctionVersion:
    return FunctionVersion(
        FunctionId("11111111-1111-4111-8111-111111111111"),
        VersionId("22222222-2222-4222-8222-222222222222"),
        "acme",
        "echo",
        VersionState.ACTIVE,
        page_policy=PagePolicy(frozenset(origins)) if origins else None,
    )


@pytest.mark.parametrize("entry", [b"nvcf-key.nvapi-x.Y_z", b"openai-insecure-api-key.nvapi-x.Y_z"])
def test_a_key_among_the_subprotocols_becomes_the_credential(entry: bytes) -> None:
    asked = request((PROTOCOL, b"chat, " + entry), (b"x", b"y"), (PROTOCOL, b"soup"))
    take_key(asked)
    expected: Headers = [
        (b"x", b"y"),
        (PROTOCOL, b"chat, soup"),
        (b"authorization", b"Bearer nvapi-x.Y_z"),
    ]
    assert asked.headers == expected
    assert asked.values == dict(expected)


def test_without_a_key_nothing_changes() -> None:
    headers = [(PROTOCOL, b"chat, nvcf"), (b"authorization", b"Bearer x")]
    asked = request(*headers)
    take_key(asked)
    assert asked.headers == headers


@pytest.mark.parametrize(
    "headers",
    [
        [(PROTOCOL, b"nvcf-key.secret"), (b"authorization", b"Bearer x")],
        [(PROTOCOL, b"nvcf-key.secret, nvcf-key.secret")],
        [(PROTOCOL, b"nvcf-key.secret"), (PROTOCOL, b"openai-insecure-api-key.secret")],
    ],
)
def test_a_second_credential_is_refused_and_none_is_left(headers: Headers) -> None:
    asked = request(*headers)
    with pytest.raises(BadRequest) as refused:
        take_key(asked)
    assert b"secret" not in b"".join(value for _, value in asked.headers)
    assert b"secret" not in b"".join(asked.values.values())
    assert "secret" not in refused.value.detail


@pytest.mark.parametrize(
    ("headers", "body_bytes", "error"),
    [
        ([UPGRADE, VERSION, KEY], 0, None),
        ([UPGRADE, VERSION], 0, BadRequest),
        ([UPGRADE, VERSION, KEY, KEY], 0, BadRequest),
        ([UPGRADE, VERSION, (KEY[0], b"x")], 0, BadRequest),
        ([UPGRADE, VERSION, KEY], 3, BadRequest),
        ([UPGRADE, VERSION, KEY], None, BadRequest),
        ([UPGRADE, KEY], 0, UpgradeRequired),
        ([UPGRADE, KEY, (VERSION[0], b"8")], 0, UpgradeRequired),
        # A stream of HTTP/2: no upgrade, no key, and it stays open.
        ([VERSION], None, None),
        ([VERSION], 0, BadRequest),
        ([VERSION], 7, BadRequest),
        ([], None, UpgradeRequired),
    ],
)
def test_only_a_valid_handshake_is_one(
    headers: Headers, body_bytes: int | None, error: type[Exception] | None
) -> None:
    asked = request(*headers, body_bytes=body_bytes)
    if error is None:
        check_handshake(asked, version())
        return
    with pytest.raises(error):
        check_handshake(asked, version())


def test_pages_of_other_origins_than_those_of_the_policy_are_refused() -> None:
    page = request(UPGRADE, VERSION, KEY, (b"origin", b"https://a.example"))
    check_handshake(page, version())
    check_handshake(page, version("*"))
    check_handshake(page, version("https://a.example"))
    check_handshake(request(UPGRADE, VERSION, KEY), version("https://b.example"))
    with pytest.raises(Forbidden):
        check_handshake(page, version("https://b.example"))
