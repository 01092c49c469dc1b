"""Invocation tokens: what a caller may invoke, handed to a client of theirs for a short time (§2).

A token names up to four functions or versions, each of which the caller must be able to invoke now.
It ends with the API key that it was made with, and no token can be made with a token, so that none
outlives what it came from by more than its own lifetime.
"""

from collections.abc import Iterable

from gateway.api.access import AnyCall, not_found
from gateway.api.identity import Identity
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.tokens import CreateToken, TokenAnswer, TokenFor
from gateway.auth.tokens import INVOCATION, invoker_of, mint
from gateway.domain.model import Reach
from gateway.domain.principal import INVOKE, Principal
from gateway.errors import Forbidden

Named = Iterable[tuple[str, str | None]]
"""Functions with one version, or with none for all of them."""


class TokenRoutes:
    """The handlers."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def create(self, api: Api, call: Call[CreateToken, None]) -> TokenAnswer:
        """Make a token for some functions."""
        named = [(one.function_id, one.function_version_id) for one in call.body.functions]
        return self._minted(api, call, call.body.client_id, named)

    async def create_for_function(self, api: Api, call: Call[TokenFor, None]) -> TokenAnswer:
        """Make a token for a function."""
        return self._minted(api, call, call.body.client_id, [(call.function_id, None)])

    async def create_for_version(self, api: Api, call: Call[TokenFor, None]) -> TokenAnswer:
        """Make a token for a version."""
        named = [(call.function_id, call.version_id)]
        return self._minted(api, call, call.body.client_id, named)

    def _minted(self, api: Api, call: AnyCall, client_id: str, named: Named) -> TokenAnswer:
        if call.principal.kind == INVOCATION:
            raise Forbidden("No token is made with a token")
        identity = self._identity
        lifetime_s = int(identity.invocation_token_s)
        token = mint(
            identity.signer,
            invoker_of(call.principal, client_id, _reach(api, call.principal, named)),
            now=api.clock(),
            lifetime_s=lifetime_s,
            token_id=api.new_id(),
        )
        return TokenAnswer(access_token=token, expires_in=lifetime_s)


def _reach(api: Api, principal: Principal, named: Named) -> Reach:
    functions, versions = set(), set()
    for function_id, version_id in named:
        _check(api, principal, function_id, version_id)
        if version_id is None:
            functions.add(function_id)
        else:
            versions.add(f"{function_id}/{version_id}")
    return Reach(functions=frozenset(functions), versions=frozenset(versions))


def _check(api: Api, principal: Principal, function_id: str, version_id: str | None) -> None:
    """Raise `FunctionNotFound` or `Forbidden` unless the caller may invoke what is named."""
    entry = api.catalog.function(function_id)
    seen = [
        version
        for version in (entry.versions.values() if entry is not None else ())
        if entry is not None
        and version_id in (None, version.version_id)
        and principal.sees(entry, version)
    ]
    if entry is None or not seen:
        raise not_found(function_id, version_id or "")
    is_named = version_id is not None
    if not any(principal.may_invoke(entry, version, is_named=is_named) for version in seen):
        raise Forbidden(f"Function id '{function_id}': the credential is not good for it")


def routes(identity: Identity) -> tuple[AnyRoute, ...]:
    """Return the routes about invocation tokens."""
    handlers = TokenRoutes(identity)
    tag, scopes, answer = "tokens", (INVOKE,), TokenAnswer
    some = "/v2/nvcf/tokens/functions"
    one = f"{some}/{{functionId}}"
    return (
        Route(
            "POST",
            some,
            handlers.create,
            "Make a token for some functions",
            tag,
            scopes,
            answer,
            CreateToken,
        ),
        Route(
            "POST",
            one,
            handlers.create_for_function,
            "Make a token for a function",
            tag,
            scopes,
            answer,
            TokenFor,
        ),
        Route(
            "POST",
            f"{one}/versions/{{functionVersionId}}",
            handlers.create_for_version,
            "Make a token for a version",
            tag,
            scopes,
            answer,
            TokenFor,
        ),
    )
