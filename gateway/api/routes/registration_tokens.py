"""Registration tokens: who has one can start workers of a version (`docs/wire.md` §19.1).

Only for the owner of a version: a worker sees its requests. A revoked token registers nobody from
then on, and workers that have registered with it are told to stop at their next heartbeat.
"""

from gateway.api.access import read_owned
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.registration_tokens import (
    CreatedRegistrationToken,
    CreateRegistrationToken,
    RegistrationTokensResponse,
    RegistrationTokenView,
)
from gateway.auth.registration import RegistrationToken
from gateway.auth.tokens import VersionToken, mint, registration_principal
from gateway.domain.lifecycle import timestamp
from gateway.domain.readmodel import FunctionEntry
from gateway.errors import NotFound


async def create(api: Api, call: Call[CreateRegistrationToken, None]) -> CreatedRegistrationToken:
    """Create a token with which workers register as instances of a version."""
    version = await read_owned(api, call)
    lifetime_s, now, token_id = call.body.expires_in_seconds, int(api.clock()), api.new_id()
    stored = RegistrationToken(
        token_id,
        call.account,
        version.function_id,
        version.version_id,
        created_at=now,
        expires_at=now + lifetime_s,
    )
    await api.registrations.add(stored)
    token = mint(
        api.identity.signer,
        registration_principal(
            VersionToken(call.account, version.function_id, version.version_id, token_id)
        ),
        now=now,
        lifetime_s=lifetime_s,
        token_id=token_id,
    )
    return CreatedRegistrationToken(token=token, **dict(_view(stored)))


async def list_tokens(api: Api, call: Call[None, None]) -> RegistrationTokensResponse:
    """List the tokens of the account that are valid."""
    tokens = await api.registrations.of(call.account)
    return RegistrationTokensResponse(
        registration_tokens=[_view(one) for one in tokens if _reaches(api, call, one)]
    )


async def revoke(api: Api, call: Call[None, None]) -> None:
    """Revoke a token for good. Workers that have registered with it are told to stop."""
    token_id = call.variable("tokenId")
    for token in await api.registrations.of(call.account):
        if token.token_id == token_id and _reaches(api, call, token):
            await api.registrations.revoke(call.account, token_id)
            return
    raise NotFound("The account has no valid registration token with this id")


def _reaches(api: Api, call: Call[None, None], token: RegistrationToken) -> bool:
    """Whether the credential is valid for the version of a token."""
    entry = api.catalog.function(token.function_id) or FunctionEntry()
    version = entry.versions.get(token.version_id)
    if version is None:
        # A deleted version: whoever may deploy anything of the account may clear up.
        return call.principal.reach.own
    return call.principal.reaches(entry, version, is_named=True)


def _view(token: RegistrationToken) -> RegistrationTokenView:
    return RegistrationTokenView(
        token_id=token.token_id,
        nca_id=token.account,
        function_id=token.function_id,
        function_version_id=token.version_id,
        created_at=timestamp(token.created_at),
        expires_at=timestamp(token.expires_at),
    )


_PATH = "/v2/nvcf/registrationTokens"
_TAG = "registrationTokens"
_SCOPES = ("deploy_function",)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        f"{_PATH}/functions/{{functionId}}/versions/{{functionVersionId}}",
        create,
        "Create a registration token",
        _TAG,
        _SCOPES,
        CreatedRegistrationToken,
        CreateRegistrationToken,
        is_body_optional=True,
    ),
    Route(
        "GET",
        _PATH,
        list_tokens,
        "List registration tokens",
        _TAG,
        _SCOPES,
        RegistrationTokensResponse,
    ),
    Route(
        "DELETE",
        f"{_PATH}/{{tokenId}}",
        revoke,
        "Revoke a registration token",
        _TAG,
        _SCOPES,
        status=204,
    ),
)
