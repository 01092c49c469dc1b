"""A request that asks the inference server for a WebSocket, and its agreement (`docs/wire.md` §22).

The agent speaks for the client: it sends the upgrade on a connection of its own, and what the
server answers is checked against the key that was sent (RFC 6455 §4.1).
"""

from typing import NamedTuple

from http1.stream import Defect, Headers
from wire.headers import NVCF_UPGRADED, forwardable
from wire.websocket import (
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY,
    UPGRADE,
    WEBSOCKET,
    accept_of,
    key_from,
    names_websocket,
)

_LINES = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_NOT_AGREED = Defect("upgrade", "The server changes to another protocol than WebSocket")
_NOT_ACCEPTED = Defect("upgrade", "The server's sec-websocket-accept is not for the key")
SWITCHING = 101
"""The status of a job whose inference server has agreed to a WebSocket, which has no limit here."""
NOT_FROM_SERVER = frozenset({NVCF_UPGRADED})
"""What only the agent may say: a function could forge it."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Upgrade(NamedTuple):
    """What a request asks for. ``accept`` is the server's proof that it has understood.

    ``has_own_key``: the key is the agent's, because the client, of HTTP/2, has none.
    """

    accept: bytes
    has_own_key: bool


def upgrade_of(headers: Headers, request_id: str) -> tuple[Upgrade, bytes]:
    """Return the upgrade of a request with these headers, and the header lines that ask for it."""
    for name, value in headers:
        if name.lower() == SEC_WEBSOCKET_KEY:
            return Upgrade(accept_of(value), has_own_key=False), _LINES
    key = key_from(request_id)
    return Upgrade(accept_of(key), has_own_key=True), b"%bSec-WebSocket-Key: %b\r\n" % (_LINES, key)


def agreed_headers(upgrade: Upgrade, headers: Headers) -> Headers | Defect:
    """Return the headers of the inner head for a server's 101, or what is wrong with it."""
    values = dict(headers)
    if not names_websocket(values.get(UPGRADE, b"")):
        return _NOT_AGREED
    if [value for name, value in headers if name == SEC_WEBSOCKET_ACCEPT] != [upgrade.accept]:
        return _NOT_ACCEPTED
    drops = NOT_FROM_SERVER | _FRAMING
    if upgrade.has_own_key:
        drops |= {SEC_WEBSOCKET_ACCEPT}
    return [*forwardable(headers, drops), (NVCF_UPGRADED, WEBSOCKET)]
