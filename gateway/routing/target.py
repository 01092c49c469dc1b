"""Which function a request means, if it means one (`spec/invocation.md` §1).

The headers ``function-id`` and ``function-version-id`` come first, then the host name. Everything
else belongs to the path routes.
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
"""How many host names are remembered; beyond it all are forgotten and learnt again."""


class Target(NamedTuple):
    """The function that a request names, with the header values that access and routing read.

    They are here because one pass over the headers finds all of them.
    """

    function_id: str
    version_id: str | None
    authorization: bytes | None
    poll_seconds: bytes | None


def target_router(suffix: bytes) -> Callable[[Request], Target | None]:
    """Return ``route(request)`` for hosts under ``suffix``, such as ``.invocation.example.com``.

    An empty suffix takes any, which is for development. The function returns `None` for a request
    that names no function, as one without a host (HTTP/1.0) does, and raises `BadRequest` for an
    invalid host or a header that appears twice where only one can count.
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

    def route(request: Request) -> Target | None:
        values = _values(request.headers)
        get = values.get
        if FUNCTION_ID in values:
            function_id = parse_uuid(values[FUNCTION_ID])
            if function_id is not None:
                version_id = parse_uuid(get(FUNCTION_VERSION_ID, b""))
                return Target(function_id, version_id, get(AUTHORIZATION), get(NVCF_POLL_SECONDS))
        authority = request.authority
        found = known[authority] if authority in known else host_route(authority)
        if found is None:
            return None
        return Target(
            found.function_id, found.version_id, get(AUTHORIZATION), get(NVCF_POLL_SECONDS)
        )

    return route


def _values(headers: Headers) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in values:
                raise BadRequest(f"The header {name.decode()} appears more than once")
            values[name] = value
    return values
