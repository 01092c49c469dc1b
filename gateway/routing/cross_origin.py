"""Calls of web pages: preflights, and the headers that let a page read a response (CORS).

A function's responses follow the policy of its version, in place of what its container sends. A
version without a policy leaves its responses to the container. The gateway's own responses to calls
follow the same policy, without one its own: errors must be readable, or a page cannot say why a
call failed. Its own policy is also that of the REST API.

A preflight carries no credential (Fetch, "CORS-preflight fetch"), so the gateway responds to it: a
function never gets it, unless it has no policy and the request has a credential after all.
Sources: `docs/wire.md` §1.4, RFC 6750 §2.3.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.domain.cors import OPEN, PagePolicy
from gateway.domain.model import FunctionVersion
from gateway.domain.readmodel import ReadModel
from gateway.routing.call_head import CallHead
from http1.stream import Headers, Request
from wire.headers import CONTENT_TYPE, EXPOSED_HEADERS, FUNCTION_ID, ORIGIN
from wire.problem import PROBLEM_JSON

_PREFIX = b"access-control-"
_ALLOW_ORIGIN = b"access-control-allow-origin"
_EXPOSE = b"access-control-expose-headers"
_VARY = b"vary"
_FOR_EVERYBODY: Headers = [(_ALLOW_ORIGIN, b"*"), (_EXPOSE, b"*")]
_ALLOW_CREDENTIALS = (b"access-control-allow-credentials", b"true")

_REQUEST_METHOD = b"access-control-request-method"
_REQUEST_HEADERS = b"access-control-request-headers"
_ASKED = frozenset({ORIGIN, _REQUEST_METHOD, _REQUEST_HEADERS})
_MAX_AGE = (b"access-control-max-age", b"86400")
"""Seconds for which browsers may remember the answer to a preflight; they have lower limits."""
_VARIES = (_VARY, b"origin, access-control-request-method, access-control-request-headers")

_CACHE_CONTROL = b"cache-control"
_PRIVATE = (_CACHE_CONTROL, b"private")
_REFERRER_POLICY = b"referrer-policy"
_NO_REFERRER = (_REFERRER_POLICY, b"no-referrer")


class PageAccess(NamedTuple):
    """What the responses to one call get so that the page which made it can use them.

    ``policy`` is `None` if no page is known to call. ``replaces``: it applies to what the server
    behind the gateway sends too, and not only to the gateway's own responses. ``is_linked``: the
    URL holds a credential.
    """

    policy: PagePolicy | None
    origin: bytes | None
    replaces: bool
    is_linked: bool = False

    @property
    def is_seen(self) -> bool:
        """Whether responses get anything: it is a page that calls, or the URL is to be kept."""
        return self.policy is not None or self.is_linked

    def of_forwarded(self, status: int, headers: Headers) -> Headers:
        """Return the headers of a response that a server behind the gateway made.

        Of those that are left to the container, a problem document without CORS is the worker's
        own, or as good as one: a page must be able to read why the call failed.
        """
        policy = self.policy
        if policy is not None and (self.replaces or _is_unreadable_problem(status, headers)):
            headers = with_cors(headers, policy, self.origin)
        else:
            headers = _with_one_origin(headers)
        return with_link_headers(headers) if self.is_linked else headers

    def of_own_response(self, headers: Headers) -> Headers:
        """Return the headers of a response that the gateway makes itself."""
        if self.policy is not None:
            headers = with_cors(headers, self.policy, self.origin)
        return with_link_headers(headers) if self.is_linked else headers


class CrossOrigin:
    """Finds the policy for a request, by the read model alone."""

    __slots__ = ("_model", "_own", "_without_page")

    def __init__(self, model: ReadModel, own: PagePolicy) -> None:
        """``own`` is the gateway's policy."""
        self._model = model
        self._own = own
        # An open policy is the same for all: only pages get its headers.
        self._without_page = PageAccess(None if own.is_open else own, None, replaces=True)

    def preflight(self, request: Request, head: CallHead | None) -> Headers | None:
        """Return the headers of the 204 for a preflight, `None` for every other request.

        ``head`` as from `gateway.routing.call_head.call_head_reader`, or `plain_head` for a request
        that is for a function which nothing names yet.
        """
        if request.method != b"OPTIONS":
            return None
        asked = {name: value for name, value in request.headers if name in _ASKED}
        if ORIGIN not in asked or _REQUEST_METHOD not in asked:
            return None
        policy: PagePolicy | None = self._own
        if head is not None:
            policy = self._find_policy(head, asked[ORIGIN])
            if policy is None and head.authorization is not None and not head.is_linked:
                return None
        elif FUNCTION_ID in asked.get(_REQUEST_HEADERS, b"").lower():
            # The call will name its function in a header: which one is not known yet.
            policy = None
        # Without a policy the response of the call itself says whether the page may read it.
        return _preflight_headers(policy or OPEN, asked)

    def of_call(self, version: FunctionVersion, head: CallHead) -> PageAccess:
        """Return what the responses to a call of ``version`` get."""
        policy = version.page_policy
        if policy is None:
            own = self._own if head.origin is not None else None
            return PageAccess(own, head.origin, replaces=False, is_linked=head.is_linked)
        return PageAccess(policy, head.origin, replaces=True, is_linked=head.is_linked)

    def of_refusal(self, request: Request, head: CallHead | None) -> PageAccess:
        """Return what the response to a call gets that is refused before it has a version."""
        if head is None:
            return self.of_endpoint(request)
        if not head.function_id:
            return self.of_endpoint(request)._replace(is_linked=head.is_linked)
        policy = self._find_policy(head, head.origin)
        if policy is None and head.origin is not None:
            policy = self._own
        return PageAccess(policy, head.origin, replaces=True, is_linked=head.is_linked)

    def of_endpoint(self, request: Request) -> PageAccess:
        """Return what the responses of an endpoint get, the REST API's included."""
        if ORIGIN not in request.values:
            return self._without_page
        origin = next(value for name, value in request.headers if name == ORIGIN)
        return PageAccess(self._own, origin, replaces=True)

    def _find_policy(self, head: CallHead, origin: bytes | None) -> PagePolicy | None:
        """Return the policy of the version that the call would get, `None` if it has none.

        If that can be one of several, it is one that allows the origin, if there is one.
        """
        entry = self._model.function(head.function_id)
        if entry is None:
            return None
        versions: Iterable[FunctionVersion]
        if head.version_id is not None:
            named = entry.versions.get(head.version_id)
            versions = () if named is None else (named,)
        else:
            versions = entry.invocable or entry.versions.values()
        policies = [found.page_policy for found in versions if found.page_policy is not None]
        allowing = (policy for policy in policies if policy.allows(origin))
        return next(allowing, policies[0] if policies else None)


def with_cors(headers: Headers, policy: PagePolicy, origin: bytes | None) -> Headers:
    """Return ``headers`` with those that ``policy`` wants, in place of any of CORS among them.

    Every header of the response is exposed; where credentials are allowed, ``*`` has no meaning.
    """
    kept = [header for header in headers if not header[0].startswith(_PREFIX)]
    if policy.is_open:
        kept += _FOR_EVERYBODY
        return kept
    if origin is not None and policy.allows(origin):
        exposed = b"*"
        if policy.allows_credentials:
            names = [*EXPOSED_HEADERS, *(name for name, _ in kept)]
            exposed = b", ".join(dict.fromkeys(names))
            kept.append(_ALLOW_CREDENTIALS)
        kept += [(_ALLOW_ORIGIN, origin), (_EXPOSE, exposed)]
    if not any(name == _VARY and ORIGIN in value.lower() for name, value in kept):
        kept.append((_VARY, ORIGIN))
    return kept


def _is_unreadable_problem(status: int, headers: Headers) -> bool:
    names = {name for name, _ in headers}
    return status >= 500 and _ALLOW_ORIGIN not in names and (CONTENT_TYPE, PROBLEM_JSON) in headers


def _with_one_origin(headers: Headers) -> Headers:
    """Return ``headers`` with the first of several allowed origins: browsers refuse several."""
    if sum(name == _ALLOW_ORIGIN for name, _ in headers) <= 1:
        return headers
    first = next(header for header in headers if header[0] == _ALLOW_ORIGIN)
    return [header for header in headers if header is first or header[0] != _ALLOW_ORIGIN]


def with_link_headers(headers: Headers) -> Headers:
    """Return ``headers`` so that they do not spread a URL with a credential.

    A cache that others share must not keep the response, and a page must not send its URL on.
    """
    names = {name for name, _ in headers}
    more = [header for header in (_PRIVATE, _NO_REFERRER) if header[0] not in names]
    return [*headers, *more]


def _preflight_headers(policy: PagePolicy, asked: dict[bytes, bytes]) -> Headers:
    """Return what a page may send: the method and the headers that it asks for."""
    origin = asked[ORIGIN]
    headers: Headers = [_VARIES]
    if not policy.allows(origin):
        return headers
    headers.append((_ALLOW_ORIGIN, b"*" if policy.is_open else origin))
    headers.append((b"access-control-allow-methods", asked[_REQUEST_METHOD]))
    if _REQUEST_HEADERS in asked:
        headers.append((b"access-control-allow-headers", asked[_REQUEST_HEADERS]))
    if policy.allows_credentials:
        headers.append(_ALLOW_CREDENTIALS)
    headers.append(_MAX_AGE)
    return headers
