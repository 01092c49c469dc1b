"""Calls that ask for a WebSocket: what their handshake must be, and a key that a page has sent.

A page cannot set headers of a WebSocket. It can offer subprotocols, and one of them may be its key
(`docs/wire.md` §22.2): that one is taken out before anything else reads the request.
"""

from gateway.domain.model import FunctionVersion
from gateway.errors import BadRequest, Forbidden, UpgradeRequired
from http1.stream import Request
from wire.headers import AUTHORIZATION, ORIGIN
from wire.websocket import (
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    UPGRADE,
    VERSION,
    WEBSOCKET,
    entries_of,
    is_key,
    with_entries,
)

OWN_PROTOCOL = b"nvcf"
"""The subprotocol that is agreed on if the function names none: browsers end a connection for which
they offered some and got none."""
_KEY_ENTRIES = (b"nvcf-key.", b"openai-insecure-api-key.")


def take_key(request: Request) -> None:
    """Make the key among the offered subprotocols, if there is one, the request's credential.

    So nothing that comes after, the function included, sees it there. Raises `BadRequest` for more
    than one credential (RFC 6750 §2).
    """
    if SEC_WEBSOCKET_PROTOCOL not in request.values:
        return
    keys: list[bytes] = []
    others: list[bytes] = []
    for entry in entries_of(request.headers):
        prefix = next((one for one in _KEY_ENTRIES if entry.startswith(one)), None)
        if prefix is None:
            others.append(entry)
        else:
            keys.append(entry.removeprefix(prefix))
    if not keys:
        return
    headers = list(request.headers)
    with_entries(headers, others)
    is_only_one = len(keys) == 1 and AUTHORIZATION not in request.values
    if is_only_one:
        headers.append((AUTHORIZATION, b"Bearer " + keys[0]))
    request.headers, request.values = headers, dict(headers)
    if not is_only_one:
        raise BadRequest(
            "The request has more than one credential: in sec-websocket-protocol, or in a header"
        )


def check_handshake(request: Request, version: FunctionVersion) -> None:
    """Check the handshake of a request for a WebSocket to ``version``.

    Raises `BadRequest` for one that is malformed (RFC 6455 §4.2.1, RFC 8441 §5), `UpgradeRequired`
    for another version of the protocol, and `Forbidden` for a page of an origin that the function's
    policy does not name.
    """
    values = request.values
    if values.get(SEC_WEBSOCKET_VERSION) != VERSION:
        # RFC 9110 §15.5.22; HTTP/2 has no such header.
        raise UpgradeRequired(headers=[(UPGRADE, WEBSOCKET)] if UPGRADE in values else None)
    if UPGRADE in values:
        keys = [value for name, value in request.headers if name == SEC_WEBSOCKET_KEY]
        if len(keys) != 1 or not is_key(keys[0]):
            raise BadRequest("The header sec-websocket-key is not one that holds 16 bytes")
        if request.body_bytes != 0:
            raise BadRequest("A request for a WebSocket has no body")
    elif request.body_bytes is not None:
        raise BadRequest("A stream for a WebSocket has no length, and stays open")
    policy, origin = version.page_policy, values.get(ORIGIN)
    if policy is not None and origin is not None and not policy.allows(origin):
        raise Forbidden("The function takes no WebSockets from pages of this origin")
