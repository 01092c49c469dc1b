"""The opening handshake of a WebSocket (RFC 6455 §4), as gateway and worker read it."""

import re
from base64 import b64encode
from hashlib import sha1

WEBSOCKET = b"websocket"
"""The protocol's name: in ``upgrade``, in ``:protocol``, and in the headers of envelope and inner
head that speak of an upgrade."""
VERSION = b"13"

UPGRADE = b"upgrade"
SEC_WEBSOCKET_ACCEPT = b"sec-websocket-accept"
SEC_WEBSOCKET_KEY = b"sec-websocket-key"
SEC_WEBSOCKET_PROTOCOL = b"sec-websocket-protocol"
SEC_WEBSOCKET_VERSION = b"sec-websocket-version"

_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_is_key = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==").fullmatch


def is_key(value: bytes) -> bool:
    """Return whether ``value`` is 16 bytes in Base64, as a client's key is (RFC 6455 §4.1)."""
    return _is_key(value) is not None


def key_from(text: str) -> bytes:
    """Return a key for a client that sent none, made of a text that is different each time.

    It proves only that the server understood the handshake (RFC 6455 §1.3); it is no secret.
    """
    return b64encode(sha1(text.encode(), usedforsecurity=False).digest()[:16])


def accept_of(key: bytes) -> bytes:
    """Return the ``sec-websocket-accept`` for a key (RFC 6455 §4.2.2)."""
    return b64encode(sha1(key + _SUFFIX, usedforsecurity=False).digest())


def names_websocket(upgrade: bytes) -> bool:
    """Return whether a value of the header ``upgrade`` names the protocol."""
    return upgrade.lower() == WEBSOCKET or WEBSOCKET in (
        option.strip(b" \t") for option in upgrade.lower().split(b",")
    )


def entries_of(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the entries of all ``sec-websocket-protocol`` headers, in order."""
    return [
        entry
        for name, value in headers
        if name == SEC_WEBSOCKET_PROTOCOL
        for part in value.split(b",")
        if (entry := part.strip(b" \t"))
    ]


def with_entries(headers: list[tuple[bytes, bytes]], entries: list[bytes]) -> None:
    """Replace the ``sec-websocket-protocol`` headers in ``headers``: none without entries."""
    headers[:] = [header for header in headers if header[0] != SEC_WEBSOCKET_PROTOCOL]
    if entries:
        headers.append((SEC_WEBSOCKET_PROTOCOL, b", ".join(entries)))
