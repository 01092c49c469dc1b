"""Which function a request head names, if any (`docs/wire.md` §1).

The headers ``function-id`` and ``function-version-id`` take precedence over the host name. A
request that names no function is for the path endpoints.
"""

from collections.abc import Callable
from typing import NamedTuple

from gateway.errors import BadRequest
from http1.stream import Headers, Request
from wire.headers import AUTHORIZATION, FUNCTION_ID, FUNCTION_VERSION_ID, NVCF_POLL_SECONDS
from wire.hosts import HostError, HostRoute, parse_authority, route_host
from wire.ids import parse_uuid

_READ = frozenset({AUTHORIZATION, FUNCTION_ID, FUNCTION_VERSION_ID, NVCF_POLL_SECONDS})
_MAX_HOSTS = 4096
"""How many parsed host names are cached; a full cache is cleared."""


class CallHead(NamedTuple):
    """What admission reads of a request that calls a function; one pass over the headers finds it.

    The ids are canonical UUID text. The header values are as they came, ``None`` if absent.
    """

    function_id: str
    version_id: str | None
    authorization: bytes | None
    poll_seconds: bytes | None


def plain_head(request: Request) -> CallHead:
    """Return the head of a request that names no function, without one (``function_id`` is empty).

    Raises `BadRequest` for a repeated header of those that may appear once.
    """
    get = _values(request.headers).get
    return CallHead("", None, get(AUTHORIZATION), get(NVCF_POLL_SECONDS))


def call_head_reader(suffix: bytes) -> Callable[[Request], CallHead | None]:
    """Return ``read(request)`` for hosts under ``suffix``, such as ``.invocation.example.com``.

    An empty suffix accepts any domain, for development. ``read`` returns `None` for a request that
    names no function, such as one without a host (HTTP/1.0). It raises `BadRequest` for an invalid
    host, and for a repeated header of those that may appear once.
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
        values = _values(request.headers)
        get = values.get
        if FUNCTION_ID in values:
            function_id = parse_uuid(values[FUNCTION_ID])
            if function_id is not None:
                version_id = parse_uuid(get(FUNCTION_VERSION_ID, b""))
                return CallHead(function_id, version_id, get(AUTHORIZATION), get(NVCF_POLL_SECONDS))
        authority = request.authority
        found = known[authority] if authority in known else host_route(authority)
        if found is None:
            return None
        return CallHead(
            found.function_id, found.version_id, get(AUTHORIZATION), get(NVCF_POLL_SECONDS)
        )

    return read


def _values(headers: Headers) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in values:
                raise BadRequest(f"The header {name.decode()} appears more than once")
            values[name] = value
    return values
