"""Invocation tokens: a caller's right to invoke, given to a client for a short time.

Source: `docs/wire.md` §14.4.

A token names up to four functions or versions, each of which the caller must be able to invoke. It
ends with the API key that it was made with. A token cannot make a token, so that none outlives its
origin by more than its own lifetime.
"""

from collections.abc import Iterable

from gateway.api.access import AnyCall, forbid, not_found
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.tokens import CreateToken, TokenFor, TokenResponse
from gateway.auth.tokens import invoker_of, mint
from gateway.domain.model import ResourceScope
from gateway.domain.principal import INVOCATION_TOKEN, INVOKE, Principal
from gateway.errors import Forbidden

Named = Iterable[tuple[str, str | None]]
"""Ids of functions, each with the id of one version or `None` for all of them."""


async def create(api: Api, call: Call[CreateToken, None]) -> TokenResponse:
    """Create a token for several functions."""
    named = [(named.function_id, named.function_version_id) for named in call.body.functions]
    return _mint(api, call, call.body.client_id, named)


async def create_for_function(api: Api, call: Call[TokenFor, None]) -> TokenResponse:
    """Create a token for a function."""
    return _mint(api, call, call.body.client_id, [(call.function_id, None)])


async def create_for_version(api: Api, call: Call[TokenFor, None]) -> TokenResponse:
    """Create a token for a version."""
    return _mint(api, call, call.body.client_id, [(call.function_id, call.version_id)])


def _mint(api: Api, call: AnyCall, client_id: str, named: Named) -> TokenResponse:
    if call.principal.kind == INVOCATION_TOKEN:
        raise Forbidden("A token cannot create a token")
    identity = api.identity
    lifetime_s = int(identity.invocation_token_s)
    token = mint(
        identity.signer,
        invoker_of(call.principal, client_id, _resource_scope(api, call.principal, named)),
        now=api.clock(),
        lifetime_s=lifetime_s,
        token_id=api.new_id(),
    )
    return TokenResponse(access_token=token, expires_in=lifetime_s)


def _resource_scope(api: Api, principal: Principal, named: Named) -> ResourceScope:
    functions, versions = set(), set()
    for function_id, version_id in named:
        _check(api, principal, function_id, version_id)
        if version_id is None:
            functions.add(function_id)
        else:
            versions.add(f"{function_id}/{version_id}")
    return ResourceScope(functions=frozenset(functions), versions=frozenset(versions))


def _check(api: Api, principal: Principal, function_id: str, version_id: str | None) -> None:
    """Raise `FunctionNotFound` or `Forbidden` unless the caller may invoke what is named."""
    entry = api.catalog.function(function_id)
    visible = [
        version
        for version in (entry.versions.values() if entry is not None else ())
        if entry is not None
        and version_id in (None, version.version_id)
        and principal.sees(entry, version)
    ]
    if entry is None or not visible:
        raise not_found(function_id, version_id or "")
    is_named = version_id is not None
    if not any(principal.may_invoke(entry, version, is_named=is_named) for version in visible):
        raise forbid(function_id)


_FUNCTIONS = "/v2/nvcf/tokens/functions"
_FUNCTION = f"{_FUNCTIONS}/{{functionId}}"
_VERSION = f"{_FUNCTION}/versions/{{functionVersionId}}"
_TAG = "tokens"
_SCOPES = (INVOKE,)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        _FUNCTIONS,
        create,
        "Create a token for several functions",
        _TAG,
        _SCOPES,
        TokenResponse,
        CreateToken,
    ),
    Route(
        "POST",
        _FUNCTION,
        create_for_function,
        "Create a token for a function",
        _TAG,
        _SCOPES,
        TokenResponse,
        TokenFor,
    ),
    Route(
        "POST",
        _VERSION,
        create_for_version,
        "Create a token for a version",
        _TAG,
        _SCOPES,
        TokenResponse,
        TokenFor,
    ),
)
