"""Requests to a host that names no function: endpoints, and calls that name theirs otherwise.

A tool that knows a base URL and a key, and nothing of host names or headers, names the function
in the path (``/f/{function}/…``), as the ``model`` of a JSON body, or by its key, if that is good
for one function only (`docs/wire.md` §1.5). Nothing here runs for a function's own host.
"""

import time
from copy import copy
from urllib.parse import unquote

from gateway.dispatch.endpoints import PathEndpoints
from gateway.dispatch.model_calls import ModelCall, ModelCallPorts, Resolved
from gateway.dispatch.model_list import model_list, model_of
from gateway.dispatch.parts import send_parts
from gateway.dispatch.responses import with_ids
from gateway.domain.principal import INVOCATION_TOKEN, INVOKE, Principal
from gateway.errors import (
    BodyTooLarge,
    Forbidden,
    FunctionNotFound,
    GatewayError,
    ModelNotFound,
    Unauthenticated,
    UnsupportedMediaType,
)
from gateway.invocation.upload import smaller_limit
from gateway.requests.exchanges import REQUESTS_PATH
from gateway.routing.admission import Authenticate
from gateway.routing.call_head import (
    TOKEN_PARAMETER,
    CallHead,
    calling,
    plain_head,
    poll_seconds,
    take_token,
)
from gateway.routing.references import FunctionNames, Named, Reference, parse_reference
from http1.stream import Headers, Request, RequestStream, ResponseWriter, respond
from wire.headers import CONTENT_TYPE

_FUNCTIONS = b"/f/"
_MODELS = b"/v1/models"
_OPENAI = b"/v1/"
_OWN = (
    b"*/",
    b"/health/",
    b"/v1/admin/",
    b"/v1/introspect/",
    b"/v1/keys/",
    b"/v2/nvcf/",
    b"/v2/objects/",
    b"/v2/org/",
    b"/v2/orgs/",
    b"/v2/users/me/",
    REQUESTS_PATH,
    b"/v3/",
)
"""Paths of the gateway and its API, with what is below them, also for a credential that is good
for one function."""
_JSON = b"application/json"
_JSON_TYPES = frozenset({b"", _JSON})
"""Nothing counts as JSON: what has no type is looked into, not turned away."""
_UNKNOWN = "No function that this credential may call has this name or id"
_NO_JSON = (
    "Only the model of a plain JSON body names a function; "
    "otherwise name it in the path, as /f/{function}/…, or by the header function-id"
)


class PlainAddress:
    """Finds what a request without a function's host or header is for."""

    __slots__ = (
        "_authenticate",
        "_endpoints",
        "_max_body_bytes",
        "_names",
        "_ports",
    )

    def __init__(
        self,
        endpoints: PathEndpoints,
        names: FunctionNames,
        authenticate: Authenticate,
        ports: ModelCallPorts,
        max_body_bytes: int,
    ) -> None:
        """``max_body_bytes`` is the limit for all functions, 0 for none."""
        self._endpoints = endpoints
        self._names = names
        self._authenticate = authenticate
        self._max_body_bytes = max_body_bytes
        self._ports = ports

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request. Raises `gateway.errors.GatewayError`."""
        path = request.target.partition(b"?")[0]
        if (path + b"/").startswith(_OWN):
            return self._endpoints.serve(request, client)
        head = plain_head(request)
        is_path = path.startswith(_FUNCTIONS)
        if is_path:
            head = _with_id_in_path(head, path)
        try:
            if TOKEN_PARAMETER in request.target and (is_path or head.authorization is not None):
                head = take_token(request, head)
            if request.method == b"OPTIONS":
                preflight = self._endpoints.serve_preflight(request, client, head)
                if preflight is not None:
                    return preflight
            if is_path:
                return self._serve_path(request, client, head)
            return self._serve_other(request, client, head, path)
        except GatewayError as error:
            if is_path or _is_model_call(request, path):
                return self._ports.refuse(request, client, error, head)
            raise

    def _serve_other(
        self, request: Request, client: ResponseWriter, head: CallHead, path: bytes
    ) -> RequestStream:
        if head.authorization is not None:
            principal = self._authenticate(head.authorization, time.time())
            return self._serve_caller(request, client, head, principal, path)
        if _names_models(request, path):
            raise Unauthenticated
        return self._serve_endpoint(request, client, path)

    def _serve_caller(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        principal: Principal,
        path: bytes,
    ) -> RequestStream:
        only = self._names.only(principal)
        if _is_model_call(request, path):
            return self._serve_model(request, client, head, principal, only)
        if only is not None:
            return self._call_only(request, client, head, only)
        if _names_models(request, path):
            return self._serve_models(request, client, path, principal)
        return self._serve_endpoint(request, client, path)

    def _serve_endpoint(
        self, request: Request, client: ResponseWriter, path: bytes
    ) -> RequestStream:
        if request.method == b"OPTIONS" and _is_models(path):
            return self._endpoints.serve_options(request, client)
        return self._endpoints.serve(request, client)

    def _call_only(
        self, request: Request, client: ResponseWriter, head: CallHead, only: Named
    ) -> RequestStream:
        """Call the one function that the credential is good for."""
        try:
            head = calling(request, head, *only)
            return self._ports.invoke(request, client, head)
        except GatewayError as error:
            return self._ports.refuse(request, client, error, head)

    def _serve_path(
        self, request: Request, client: ResponseWriter, head: CallHead
    ) -> RequestStream:
        """Call the function that the path names, with the rest of the path."""
        path, mark, query = request.target.partition(b"?")
        text, _, rest = path[len(_FUNCTIONS) :].partition(b"/")
        try:
            principal = self._authenticate(head.authorization, time.time())
            if head.is_linked and principal.kind != INVOCATION_TOKEN:
                raise Unauthenticated
            _require_scope(principal)
            reference = _reference_in(path)
            named = reference and self._names.find(reference, principal)
            if named is None:
                raise FunctionNotFound(_UNKNOWN)
            head = calling(request, head, *named)
            head = head._replace(sent_target=request.target)
            inner = copy(request)
            inner.target = b"/" + rest + mark + query
            inner.source = request.source.below(_FUNCTIONS + text)
            return self._ports.invoke(inner, client, head)
        except GatewayError as error:
            return self._ports.refuse(request, client, error, head)

    def _serve_model(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        principal: Principal,
        only: Named | None,
    ) -> RequestStream:
        """Call the function that the body's ``model`` names, once that has arrived."""
        _require_scope(principal)
        if head.poll_seconds is not None:
            poll_seconds(head.poll_seconds)
        if not _is_plain_json(request.headers):
            if only is None:
                raise UnsupportedMediaType(_NO_JSON)
            return self._call_only(request, client, head, only)
        limit = self._known_limit(only)
        if 0 < limit < (request.body_bytes or 0):
            called = head if only is None else head._replace(function_id=only.function_id)
            return self._ports.refuse(request, client, BodyTooLarge.above(limit), called)

        def resolve(text: str | None) -> Resolved:
            named, model = self._find_model(text, principal, only)
            return Resolved(calling(request, head, *named), model)

        return ModelCall(request, client, self._ports, head, resolve, is_optional=only is not None)

    def _known_limit(self, only: Named | None) -> int:
        """Return the most bytes that a body may have whatever its model is; 0 for no limit.

        A client that expects 100 (Continue) is not to send a body that will be refused.
        """
        entry = None if only is None else self._names.entry(only.function_id)
        if only is None or entry is None:
            return self._max_body_bytes
        limits = [
            version.max_body_bytes
            for version in entry.versions.values()
            if only.version_id in (None, version.version_id)
        ]
        largest = 0 if 0 in limits else max(limits, default=0)
        return smaller_limit(self._max_body_bytes, largest)

    def _find_model(
        self, text: str | None, principal: Principal, only: Named | None
    ) -> tuple[Named, str | None]:
        """Return the function that a body's ``model`` names, and the model to ask it for.

        With ``only``, the one function of the credential, any model is that function's own, unless
        it begins with a function's id.
        """
        reference = None if text is None else parse_reference(text)
        if only is not None:
            if reference is None or not reference.is_id:
                return only, None
            if reference.function == only.function_id:
                return Named(only.function_id, reference.version_id or only.version_id), (
                    reference.model
                )
        named = None if reference is None else self._names.find(reference, principal)
        if reference is None or named is None or only is not None:
            raise ModelNotFound
        return named, reference.model

    def _serve_models(
        self, request: Request, client: ResponseWriter, path: bytes, principal: Principal
    ) -> RequestStream:
        """List the functions that the caller may call as OpenAI's API lists models, or show one."""
        _require_scope(principal)
        access = self._endpoints.cross_origin.of_endpoint(request)
        own = with_ids(access.of_own_response([(CONTENT_TYPE, _JSON)]))
        if path == _MODELS:
            parts = model_list(self._names, principal)
            return send_parts(client, own, parts, is_head=request.method == b"HEAD")
        reference = parse_reference(_decoded(path[len(_MODELS) + 1 :]))
        named = reference and self._names.find(reference, principal)
        model = named and model_of(self._names, named.function_id, principal)
        if not model:
            raise ModelNotFound
        return respond(request, client, 200, own, model)


def _reference_in(path: bytes) -> Reference | None:
    """Return what a path below ``/f/`` names, `None` if it can be no function."""
    reference = parse_reference(_decoded(path[len(_FUNCTIONS) :].partition(b"/")[0]))
    return None if reference is None or reference.model is not None else reference


def _with_id_in_path(head: CallHead, path: bytes) -> CallHead:
    """Return ``head`` with the function of the path, if its id is there: it needs no look-up."""
    reference = _reference_in(path)
    if reference is None or not reference.is_id:
        return head
    return head._replace(function_id=reference.function, version_id=reference.version_id)


def _is_model_call(request: Request, path: bytes) -> bool:
    """Return whether the body of a request names its function, unless its credential does."""
    return request.method == b"POST" and path.startswith(_OPENAI)


def _names_models(request: Request, path: bytes) -> bool:
    """Return whether a request names a function as a model, or asks for the models."""
    is_read = request.method in (b"GET", b"HEAD")
    return _is_model_call(request, path) or (is_read and _is_models(path))


def _is_models(path: bytes) -> bool:
    return (path + b"/").startswith(_MODELS + b"/")


def _require_scope(principal: Principal) -> None:
    if INVOKE not in principal.scopes:
        raise Forbidden(f"The credential lacks the scope {INVOKE}")


def _decoded(text: bytes) -> str:
    return unquote(text.decode("latin-1"), errors="replace")


def _is_plain_json(headers: Headers) -> bool:
    """Return whether a body is JSON that can be read as it is."""
    found = dict(headers)
    kind = found.get(CONTENT_TYPE, b"").partition(b";")[0].strip().lower()
    coding = found.get(b"content-encoding", b"identity").strip().lower()
    return kind in _JSON_TYPES and coding == b"identity"
