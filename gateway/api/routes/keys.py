"""The key service: API keys of the caller's account, and admin tokens (`docs/wire.md` §15.4).

NVCF accepts these calls from everyone and trusts the headers that name an owner. Here each call
needs a credential, which determines account and owner. A caller cannot
grant more than its own credential allows: only a caller who could create a key may change or
revoke it. ``Key-Issuer-Id`` is a further name of this service for the call: policies for it count,
and the response tells it. The headers ``Key-Issuer-Service`` and ``Key-Owner-Id`` are ignored.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from gateway.api.access import AnyCall
from gateway.api.removal import decide
from gateway.api.route import AnyRoute, Api, Call, Listing, Route, batches_of
from gateway.api.schemas.keys import (
    AdminToken,
    Authorizations,
    AuthorizationsView,
    CreateAdminToken,
    CreatedKey,
    CreateKey,
    Introspection,
    IntrospectKey,
    KeysResponse,
    KeyView,
    PolicyView,
    ReplaceAuthorizations,
    ResourceView,
)
from gateway.auth.grants import Grant, RequestedPolicy, may_give, resolve_grant
from gateway.auth.keys import RANDOM_BYTES, digest_of, is_key, new_key
from gateway.auth.scopes import BOOTSTRAP, SETUP
from gateway.auth.tokens import admin_of, mint
from gateway.domain.compare_and_set import compare_and_set
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Account, ApiKey, resources_of
from gateway.domain.principal import Principal
from gateway.errors import BadRequest, Conflict, Forbidden, NotFound
from runtime.events import emit

MAX_LIFETIME_S = 366 * 86_400
PRODUCT = "nv-cloud-functions"
_OWNER = "client"
_is_service_id = re.compile(r"[\x21-\x7e]{1,128}").fullmatch
_log = logging.getLogger("gateway.api")


async def create(api: Api, call: Call[CreateKey, None]) -> CreatedKey:
    """Create a key."""
    identity, body, now = api.identity, call.body, api.clock()
    grant = _grant(api, call, body.authorizations)
    value = new_key(identity.random(RANDOM_BYTES))
    key = ApiKey(
        key_id=api.new_id(),
        digest=digest_of(value.encode()),
        account=call.account,
        subject=call.principal.subject,
        scopes=grant.scopes,
        reach=grant.reach,
        created_at=int(now),
        expires_at=_expiry(body.expires_at, now),
        description=body.description or "",
    )
    await identity.credentials.put(key, 0)
    _log_change("keys.made", key, call.principal)
    return CreatedKey(value=value, **dict(_view(api, call, key)))


async def list_keys(api: Api, call: Call[None, None]) -> Listing:
    """List the keys of the account, except revoked ones."""
    keys = await api.identity.credentials.keys(call.account)
    kept = [key for key in keys if not key.is_revoked]
    views = batches_of(kept, lambda key: _view(api, call, key))
    return Listing("keys", views, lambda: {"nca_id": call.account})


async def get(api: Api, call: Call[None, None]) -> KeyView:
    """Get a key."""
    key, _ = await _find(api, call)
    return _view(api, call, key)


async def revoke(api: Api, call: Call[None, None]) -> None:
    """Revoke a key for good. It is refused within a second."""

    async def read_revoked() -> ApiKey | None:
        found = await api.identity.credentials.key(call.account, call.variable("keyId"))
        return found[0] if found is not None and found[0].is_revoked else None

    key = await decide(
        lambda: _change(api, call, lambda key: replace(key, is_revoked=True)),
        read_revoked,
        "the key was not revoked",
    )
    _log_change("keys.revoked", key, call.principal)


async def replace_authorizations(api: Api, call: Call[ReplaceAuthorizations, None]) -> KeyView:
    """Replace the authorizations of a key."""
    await _find_changeable(api, call)
    grant = _grant(api, call, call.body)
    changed = await _change(
        api, call, lambda key: replace(key, scopes=grant.scopes, reach=grant.reach)
    )
    _log_change("keys.changed", changed, call.principal)
    return _view(api, call, changed)


async def introspect(api: Api, call: Call[IntrospectKey, None]) -> Introspection:
    """Get a key of the account by its value. A key that is not valid is not found."""
    value = call.body.key.get_secret_value().encode()
    key = api.catalog.model.key(digest_of(value)) if is_key(value) else None
    if key is None or key.account != call.account or _is_expired(key, api.clock()):
        raise NotFound("The key is not valid, or another account's")
    return Introspection(
        key_id=key.key_id,
        owner_type=_OWNER,
        owner_id=key.subject,
        issuer_service_id=_service_id(api, call),
        authorizations=_authorizations(key, _service_id(api, call)),
    )


async def mint_admin(api: Api, call: Call[CreateAdminToken, None]) -> AdminToken:
    """Create an admin token of an account. Needs the bootstrap secret.

    A token of the default account can also set up other accounts.
    """
    identity, now = api.identity, api.clock()
    nca_id = call.body.nca_id or identity.default_account
    await _ensure_account(api, nca_id, now)
    token_id, lifetime_s = api.new_id(), identity.admin_token_s
    admin = admin_of(nca_id, sets_up_others=nca_id == identity.default_account)
    value = mint(identity.signer, admin, now=now, lifetime_s=lifetime_s, token_id=token_id)
    fields = {"account": nca_id, "token_id": token_id}
    emit(_log, "keys.admin_token_made", **fields)
    return AdminToken(
        id=token_id,
        value=value,
        status="active",
        description="Admin token",
        nca_id=nca_id,
        created_at=timestamp(now),
        expires_at=timestamp(int(now + lifetime_s)),
    )


async def _ensure_account(api: Api, nca_id: str, now: float) -> None:
    credentials = api.identity.credentials
    if nca_id == "*":
        raise BadRequest("'*' means all accounts: it is not an account")
    if await credentials.account(nca_id) is not None:
        return
    try:
        await credentials.put(Account(nca_id, nca_id, created_at=timestamp(now)), 0)
    except Conflict:
        return  # Another call has created it.


async def _change(api: Api, call: AnyCall, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
    """Change a key; return the new record. Raises `NotFound`, `Forbidden`."""
    put = api.identity.credentials.put
    changed = await compare_and_set(lambda: _find_changeable(api, call), change, put)
    assert changed is not None
    return changed


async def _find_changeable(api: Api, call: AnyCall) -> tuple[ApiKey, int]:
    """Return a key that the caller could have created. Raises `NotFound`, `Forbidden`."""
    key, revision = await _find(api, call)
    if not may_give(call.principal, Grant(key.scopes, key.reach)):
        raise Forbidden("The key permits more than the credential could grant")
    return key, revision


async def _find(api: Api, call: AnyCall) -> tuple[ApiKey, int]:
    found = await api.identity.credentials.key(call.account, call.variable("keyId"))
    if found is None or found[0].is_revoked:
        raise NotFound("The account has no such key")
    return found


def _service_id(api: Api, call: AnyCall) -> str:
    """Return the id of this service as the caller knows it. Raises `BadRequest`."""
    if not call.key_issuer:
        return api.identity.service_id
    if _is_service_id(call.key_issuer) is None:
        raise BadRequest("The header Key-Issuer-Id has 1 to 128 visible ASCII characters")
    return call.key_issuer


def _grant(api: Api, call: AnyCall, requested: Authorizations) -> Grant:
    policies = [
        RequestedPolicy(
            policy.audiences,
            policy.scopes,
            [resource.model_dump() for resource in policy.resources],
        )
        for policy in requested.policies
    ]
    service_ids = {api.identity.service_id, _service_id(api, call)}
    return resolve_grant(call.principal, policies, service_ids)


def _view(api: Api, call: AnyCall, key: ApiKey) -> KeyView:
    service_id = _service_id(api, call)
    return KeyView(
        id=key.key_id,
        nca_id=key.account,
        status="expired" if _is_expired(key, api.clock()) else "active",
        owner_type=_OWNER,
        owner_id=key.subject,
        issuer_service_id=service_id,
        audience_service_ids=[service_id],
        description=key.description,
        created_at=timestamp(key.created_at),
        expires_at=None if key.expires_at is None else timestamp(key.expires_at),
        authorizations=_authorizations(key, service_id),
    )


def _authorizations(key: ApiKey, service_id: str) -> AuthorizationsView:
    if not key.scopes:
        return AuthorizationsView(policies=[])
    policy = PolicyView(
        aud=service_id,
        auds=[service_id],
        product=PRODUCT,
        scopes=sorted(key.scopes),
        resources=[ResourceView(**resource) for resource in resources_of(key.reach)],
    )
    return AuthorizationsView(policies=[policy])


def _log_change(event: str, key: ApiKey, by: Principal) -> None:
    """Log who changed which key; never the value of the key."""
    fields = {
        "account": key.account,
        "key_id": key.key_id,
        "scopes": sorted(key.scopes),
        "by": by.subject,
        "by_kind": by.kind,
    }
    emit(_log, event, **fields)


def _expiry(requested: datetime | None, now: float) -> int:
    latest = int(now) + MAX_LIFETIME_S
    if requested is None:
        return latest
    expires_at = int(requested.timestamp())
    if not now < expires_at <= latest:
        raise BadRequest("expires_at must be in the future, and within a year")
    return expires_at


def _is_expired(key: ApiKey, now: float) -> bool:
    return key.expires_at is not None and key.expires_at <= now


_IN_URL = (
    "The call has no credential. Send {what} as the bearer or, as nvcf-cli sends none, put it into "
    "the URL of the key service: https://any:CREDENTIAL@host ({variable})"
)
"""What works with NVCF's CLI, whose Go client sends the user information of a URL as Basic."""
_KEY = "/v1/keys/{keyId}"
_TAG = "keys"
_SCOPES = (SETUP,)

ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", "/v1/keys", create, "Create a key", _TAG, _SCOPES, CreatedKey, CreateKey),
    Route("GET", "/v1/keys", list_keys, "List keys", _TAG, _SCOPES, KeysResponse),
    Route("GET", _KEY, get, "Get a key", _TAG, _SCOPES, KeyView),
    Route(
        "DELETE",
        _KEY,
        revoke,
        "Revoke a key",
        _TAG,
        _SCOPES,
        status=204,
        without_credential=_IN_URL.format(
            what="an admin token", variable="api_keys_service_url of nvcf-cli"
        ),
    ),
    Route(
        "PUT",
        f"{_KEY}/authorizations",
        replace_authorizations,
        "Replace the authorizations of a key",
        _TAG,
        _SCOPES,
        KeyView,
        ReplaceAuthorizations,
    ),
    Route(
        "POST",
        "/v1/introspect",
        introspect,
        "Get a key by its value",
        _TAG,
        _SCOPES,
        Introspection,
        IntrospectKey,
        changes=False,
    ),
    Route(
        "POST",
        "/v1/admin/keys",
        mint_admin,
        "Create an admin token with the bootstrap secret",
        _TAG,
        (BOOTSTRAP,),
        AdminToken,
        CreateAdminToken,
        is_body_optional=True,
        without_credential=_IN_URL.format(
            what="the bootstrap secret", variable="api_keys_admin_service_url of nvcf-cli"
        ),
    ),
)
