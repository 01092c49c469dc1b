"""The paths of NVCF's polling routes, ``pexec`` and ``exec`` (`docs/wire.md` §24.1). Pure."""

from typing import NamedTuple

from gateway.errors import BadRequest, MethodNotAllowed
from gateway.routing.organizations import parse_organization_path
from wire.ids import parse_uuid

POLLING_ROUTES = (b"/v2/nvcf/pexec/", b"/v2/nvcf/exec/")
"""How the paths of the polling routes begin, unless they are below an organization."""
_BASE = b"/v2/nvcf/"
_METHODS = {False: b"POST", True: b"GET"}


class PolledPath(NamedTuple):
    """What a path of the polling routes names.

    ``route`` is its template, as in metrics. ``is_exec``: the bodies are envelopes. A path names
    either ``request_id``, and is polled, or ``function_id`` and perhaps ``version_id``, and is
    called. All ids are canonical UUIDs, empty if the path has none. ``organization`` is what the
    path is below, `None` for none.
    """

    route: str
    is_exec: bool
    function_id: str = ""
    version_id: str | None = None
    request_id: str = ""
    organization: str | None = None


def is_polling_route(path: bytes) -> bool:
    """Return whether ``path``, which has no query, begins as those of the polling routes."""
    return parse_organization_path(path).path.startswith(POLLING_ROUTES)


def parse_path(path: bytes) -> PolledPath | None:
    """Return what ``path``, which has no query, names; `None` if it is no polling route.

    Raises `BadRequest` for an id that is not a UUID.
    """
    organization, path = parse_organization_path(path)
    if not path.startswith(POLLING_ROUTES):
        return None
    found = _parse(path)
    return None if found is None else found._replace(organization=organization)


def _parse(path: bytes) -> PolledPath | None:
    kind, *parts = path[len(_BASE) :].split(b"/")
    base, is_exec = f"{_BASE.decode()}{kind.decode()}", kind == b"exec"
    match parts:
        case [b"status", request_id]:
            route = f"{base}/status/{{requestId}}"
            return PolledPath(route, is_exec, request_id=_uuid(request_id, "request"))
        case [b"functions", function_id]:
            route = f"{base}/functions/{{functionId}}"
            return PolledPath(route, is_exec, _uuid(function_id, "function"))
        case [b"functions", function_id, b"versions", version_id]:
            route = f"{base}/functions/{{functionId}}/versions/{{versionId}}"
            function = _uuid(function_id, "function")
            return PolledPath(route, is_exec, function, _uuid(version_id, "version"))
    return None


def check_method(path: PolledPath, method: bytes) -> None:
    """Raise `MethodNotAllowed` unless a route has ``method``."""
    if method != _METHODS[bool(path.request_id)]:
        raise MethodNotAllowed(headers=[allowed(path)])


def allowed(path: PolledPath) -> tuple[bytes, bytes]:
    """Return the header that tells the methods of a route."""
    return b"allow", _METHODS[bool(path.request_id)] + b", OPTIONS"


def status_path(request_id: str, *, is_exec: bool) -> bytes:
    """Return the path at which a call is polled."""
    return b"/v2/nvcf/%b/status/%b" % (b"exec" if is_exec else b"pexec", request_id.encode())


def _uuid(text: bytes, of: str) -> str:
    found = parse_uuid(text)
    if found is None:
        raise BadRequest(f"The path's {of} id is not a UUID")
    return found
