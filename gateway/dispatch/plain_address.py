"""Requests to a host that names no function: endpoints, and calls that name theirs otherwise.

A tool that knows a base URL and a key, and nothing of host names or headers, names the function
in the path (``/f/{function}/…``), as the ``model`` of a JSON body, or by its key, if that is good
for one function only (`docs/wire.md` §1.5). Nothing here runs for a function's own host.
"""

import time
from copy import copy
from urllib.parse import unquote

from gateway.dispatch.endpoints import PathEndpoints
from gateway.dispatch.model_calls import Invoke, ModelCall, ModelCallPorts, Refuse, Resolved
from gateway.dispatch.model_list import model_list, model_of
from gateway.dispatch.parts import send_parts
from gateway.dispatch.responses import with_ids
from gateway.domain.principal import INVOKE, Principal
from gateway.errors import (
    Forbidden,
    FunctionNotFound,
    ModelNotFound,
    Unauthenticated,
    UnsupportedMediaType,
)
from gateway.routing.admission import Authenticate, poll_seconds
from gateway.routing.call_head import TOKEN_PARAMETER, CallHead, plain_head, take_token
from gateway.routing.references import FunctionNames, Named, parse_reference
from http1.stream import Headers, Request, RequestStream, ResponseWriter, respond
from wire.headers import CONTENT_TYPE

_FUNCTIONS = b"/f/"
_MODELS = b"/v1/models"
_OPENAI = b"/v1/"
_OWN = (b"/health", b"/v1/admin/", b"/v1/introspect", b"/v1/keys", b"/v2/nvcf/", b"/v3/")
"""Paths of the gateway and its API, also for a credential that is good for one function."""
_JSON = b"application/json"
_JSON_TYPES = frozenset({b"", _JSON})
"""Nothing counts as JSON: what has no type is looked into, not turned away."""
_NO_JSON = (
    "Only the model of a plain JSON body names a function; "
    "otherwise name it in the path, as /f/{function}/…, or by the header function-id"
)


class PlainAddress:
    """Finds what a request without a function's host or header is for."""

    __slots__ = ("_authenticate", "_endpoints", "_invoke", "_names", "_ports")

    def __init__(
        self,
        endpoints: PathEndpoints,
        names: FunctionNames,
        authenticate: Authenticate,
        invoke: Invoke,
        refuse: Refuse,
    ) -> None:
        """``invoke`` admits a call and begins it; ``refuse`` responds with an error, later."""
        self._endpoints = endpoints
        self._names = names
        self._authenticate = authenticate
        self._invoke = invoke
        self._ports = ModelCallPorts(invoke, refuse)

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request. Raises `gateway.errors.GatewayError`."""
        path = request.target.partition(b"?")[0]
        if request.method == b"OPTIONS" or path.startswith(_OWN):
            return self._endpoints.serve(request, client)
        head = plain_head(request)
        if TOKEN_PARAMETER in request.target and path.startswith(_FUNCTIONS):
            head = take_token(request, head)
        if head.authorization is not None:
            principal = self._authenticate(head.authorization, time.time())
            return self._serve_caller(request, client, head, principal)
        if path.startswith(_FUNCTIONS) or _names_models(request, path):
            raise Unauthenticated
        return self._endpoints.serve(request, client)

    def _serve_caller(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        principal: Principal,
    ) -> RequestStream:
        path = request.target.partition(b"?")[0]
        if path.startswith(_FUNCTIONS):
            return self._serve_path(request, client, head, principal)
        only = self._names.only(principal)
        if request.method == b"POST" and path.startswith(_OPENAI):
            return self._serve_model(request, client, head, principal, only)
        if only is not None:
            return self._invoke(request, client, _calling(head, only))
        if _names_models(request, path):
            return self._serve_models(request, client, path, principal)
        return self._endpoints.serve(request, client)

    def _serve_path(
        self,
        request: Request,
        client: ResponseWriter,
        head: CallHead,
        principal: Principal,
    ) -> RequestStream:
        """Call the function that the path names, with the rest of the path."""
        path, mark, query = request.target.partition(b"?")
        text, _, rest = path[len(_FUNCTIONS) :].partition(b"/")
        reference = parse_reference(_decoded(text))
        _require_scope(principal)
        named = reference and self._names.find(reference, principal)
        if named is None:
            raise FunctionNotFound("No function that this credential may call has this name or id")
        inner = copy(request)
        inner.target = b"/" + rest + mark + query
        inner.source = request.source.below(_FUNCTIONS + text)
        return self._invoke(inner, client, _calling(head, named))

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
            return self._invoke(request, client, _calling(head, only))

        def resolve(text: str | None) -> Resolved:
            named, model = self._find_model(text, principal, only)
            return Resolved(_calling(head, named), model)

        return ModelCall(request, client, self._ports, resolve, is_optional=only is not None)

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


def _calling(head: CallHead, named: Named) -> CallHead:
    return head._replace(function_id=named.function_id, version_id=named.version_id)


def _names_models(request: Request, path: bytes) -> bool:
    """Return whether a request names a function as a model, or asks for the models."""
    if request.method == b"POST":
        return path.startswith(_OPENAI)
    return request.method in (b"GET", b"HEAD") and (path + b"/").startswith(_MODELS + b"/")


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
