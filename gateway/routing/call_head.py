"""Which function a request head names, if any (`docs/wire.md` §1).

The header ``function-id`` takes precedence over the host name, and ``function-version-id`` adds to
both. A request that names no function is for the path endpoints.

Links and ``EventSource`` cannot set headers: their URLs may have an invocation token as the query
parameter ``nvcf-token`` (`docs/wire.md` §2.3).
"""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.errors import BadRequest
from http1.stream import Request
from wire.deadlines import MAX_POLL_S
from wire.grpc import TIMEOUT, is_grpc, window_s
from wire.headers import (
    AUTHORIZATION,
    CANCEL_AFTER,
    CONTENT_TYPE,
    FUNCTION_ID,
    FUNCTION_VERSION_ID,
    NVCF_POLL_SECONDS,
    ORIGIN,
)
from wire.hosts import HostError, HostRoute, parse_authority, route_host
from wire.ids import parse_uuid

TOKEN_PARAMETER = b"nvcf-token="
"""The query parameter for an invocation token, with its equals sign."""
_READ = frozenset(
    {
        AUTHORIZATION,
        CANCEL_AFTER,
        FUNCTION_ID,
        FUNCTION_VERSION_ID,
        NVCF_POLL_SECONDS,
        ORIGIN,
    }
)
_MAX_HOSTS = 4096
"""How many parsed host names are cached; a full cache is cleared."""


class CallHead(NamedTuple):
    """What admission reads of a request that calls a function; one pass over the headers finds it.

    The ids are canonical UUID text. The header values are as they came, ``None`` if absent.
    ``is_linked``: ``authorization`` is made of the token in the query. ``sent_target`` is the
    target that the client sent, if the function gets another one; else empty. ``is_grpc``: errors
    are gRPC's, and ``poll_seconds`` takes the call's deadline into account. ``route`` is that of a
    call over NVCF's polling routes, as in metrics; else empty.
    """

    function_id: str
    version_id: str | None
    authorization: bytes | None
    poll_seconds: bytes | None
    origin: bytes | None = None
    is_linked: bool = False
    sent_target: bytes = b""
    is_grpc: bool = False
    cancel_after: bytes | None = None
    route: str = ""


def plain_head(request: Request) -> CallHead:
    """Return the head of a request that names no function, without one (``function_id`` is empty).

    Raises `BadRequest` for a repeated header of those that may appear once.
    `calling` adds what the request turns out to call.
    """
    get = _values(request).get
    return CallHead(
        "",
        None,
        get(AUTHORIZATION),
        get(NVCF_POLL_SECONDS),
        get(ORIGIN),
        cancel_after=get(CANCEL_AFTER),
    )


def call_head_reader(suffix: bytes) -> Callable[[Request], CallHead | None]:
    """Return ``read(request)`` for hosts under ``suffix``, such as ``.invocation.example.com``.

    An empty suffix accepts any domain, for development. ``read`` returns `None` for a request that
    names no function, such as one without a host (HTTP/1.0). It raises `BadRequest` for an invalid
    host, for a repeated header of those that may appear once, and as `named_version`.
    """
    suffix = suffix.lower()
    known: dict[bytes, HostRoute | None] = {}

    def host_route(authority: bytes) -> HostRoute | None:
        if not authority:
            return None
        try:
            found = route_host(parse_authority(authority), suffix)
        except HostError as error:
            raise BadRequest(str(error)) from error
        if len(known) >= _MAX_HOSTS:
            known.clear()
        known[authority] = found
        return found

    def read(request: Request) -> CallHead | None:
        values = _values(request)
        get = values.get
        authority = request.authority
        found = known[authority] if authority in known else host_route(authority)
        if FUNCTION_ID in values:
            function_id = parse_uuid(values[FUNCTION_ID])
            if function_id is not None and (found is None or found.function_id != function_id):
                found = HostRoute(function_id, None)
        if found is None:
            return None
        version_id = found.version_id
        if FUNCTION_VERSION_ID in values:
            version_id = named_version(values[FUNCTION_VERSION_ID], version_id)
        head = CallHead(
            found.function_id,
            version_id,
            get(AUTHORIZATION),
            get(NVCF_POLL_SECONDS),
            get(ORIGIN),
            cancel_after=get(CANCEL_AFTER),
        )
        return _grpc_head(head, get(TIMEOUT)) if speaks_grpc(request) else head

    return read


def speaks_grpc(request: Request) -> bool:
    """Return whether the client speaks gRPC, and takes trailers, as it has to then."""
    get = request.values.get
    return is_grpc(get(CONTENT_TYPE, b"")) and get(b"te") == b"trailers"


def _grpc_head(head: CallHead, timeout: bytes | None) -> CallHead:
    """Return the head of a gRPC call with this deadline. Raises `BadRequest`."""
    poll = head.poll_seconds
    window = window_s(timeout, None if poll is None else poll_seconds(poll))
    if window is None:
        raise BadRequest("grpc-timeout is not a number of up to 8 digits and a unit")
    return head._replace(is_grpc=True, poll_seconds=b"%d" % window)


def calling(request: Request, head: CallHead, function_id: str, version_id: str | None) -> CallHead:
    """Return ``head`` for a call of this function, which the request named in another way.

    Its header ``function-version-id`` holds for it too. Raises `BadRequest` as `named_version`.
    """
    value = _values(request).get(FUNCTION_VERSION_ID)
    if value is not None:
        version_id = named_version(value, version_id)
    return head._replace(function_id=function_id, version_id=version_id)


def named_version(value: bytes, named: str | None) -> str:
    """Return the version that the header ``function-version-id`` names.

    ``named`` is the version that host name, path, model or key name already, if any. Raises
    `BadRequest` if the header is not a UUID, or names another one: another version would run than
    was asked for.
    """
    version_id = parse_uuid(value)
    if version_id is None:
        raise BadRequest("The header function-version-id is not a UUID")
    if named is not None and named != version_id:
        raise BadRequest("The header function-version-id names another version than this call")
    return version_id


def take_token(request: Request, head: CallHead) -> CallHead:
    """Return ``head`` with the token in the request's query, which is taken out of its target.

    So nothing that comes after, the function included, sees the token. Raises `BadRequest` for more
    than one credential (RFC 6750 §2).
    """
    path, _, query = request.target.partition(b"?")
    tokens: list[bytes] = []
    others: list[bytes] = []
    for parameter in query.split(b"&"):
        (tokens if parameter.startswith(TOKEN_PARAMETER) else others).append(parameter)
    if not tokens:
        return head
    request.target = path + b"?" + b"&".join(others) if others else path
    if len(tokens) > 1 or head.authorization is not None:
        raise BadRequest("The request has more than one credential: in its query, or in a header")
    token = unquote_to_bytes(tokens[0].removeprefix(TOKEN_PARAMETER))
    return head._replace(authorization=b"Bearer " + token, is_linked=True)


def _values(request: Request) -> dict[bytes, bytes]:
    """Return the request's values; raise `BadRequest` if one that is read here is not the only."""
    headers, values = request.headers, request.values
    if len(values) != len(headers):
        names = [name for name, _ in headers if name in _READ]
        for name in names:
            if names.count(name) > 1:
                raise BadRequest(f"The header {name.decode()} appears more than once")
    return values


def poll_seconds(value: bytes) -> int:
    """Return the poll window that ``NVCF-POLL-SECONDS`` asks for, in seconds; 0 counts as 1.

    Raises `BadRequest` if the value is not a whole number or is above 3600.
    """
    if not value.isdigit() or len(value) > 9:
        raise BadRequest("NVCF-POLL-SECONDS is not a whole number of seconds from 1 to 3600")
    poll_s = int(value)
    if poll_s > MAX_POLL_S:
        raise BadRequest(f"NVCF-POLL-SECONDS is above {MAX_POLL_S}")
    return poll_s or 1
