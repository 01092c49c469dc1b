"""The key service: API keys of the caller's account, and the admin tokens they begin with (§6.4).

Upstream takes such calls from anybody and believes the headers that name an owner. Here each needs
a credential, account and owner are the credential's, and nobody gives more than they have: only who
could make a key may change or revoke it. The headers ``Key-Issuer-Service``, ``Key-Issuer-Id`` and
``Key-Owner-Id`` are not looked at.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from gateway.api.access import AnyCall
from gateway.api.compare_and_set import change_record
from gateway.api.identity import Identity
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.keys import (
    AdminToken,
    Authorizations,
    AuthorizationsView,
    CreateAdminToken,
    CreatedKey,
    CreateKey,
    Introspection,
    IntrospectKey,
    KeysAnswer,
    KeyView,
    PolicyView,
    ReplaceAuthorizations,
    ResourceView,
)
from gateway.auth.grants import Grant, KeyPolicy, may_give, resolve_grant
from gateway.auth.keys import RANDOM_BYTES, digest_of, is_key, new_key
from gateway.auth.scopes import BOOTSTRAP, SETUP
from gateway.auth.tokens import admin_of, mint
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Account, ApiKey, resources_of
from gateway.domain.principal import Principal
from gateway.errors import BadRequest, Conflict, Forbidden, NotFound

MAX_LIFETIME_S = 366 * 86_400
PRODUCT = "nv-cloud-functions"
_OWNER = "client"
_log = logging.getLogger("gateway.api")


class KeyRoutes:
    """The handlers."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def create(self, api: Api, call: Call[CreateKey, None]) -> CreatedKey:
        """Make a key."""
        identity, body, now = self._identity, call.body, api.clock()
        grant = self._granted(call.principal, body.authorizations)
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
        _note("keys.made", key, call.principal)
        return CreatedKey(value=value, **dict(self._view(key, now)))

    async def list_keys(self, api: Api, call: Call[None, None]) -> KeysAnswer:
        """List the account's keys; revoked ones are gone."""
        keys = await self._identity.credentials.keys(call.account)
        now = api.clock()
        views = [self._view(key, now) for key in keys if not key.is_revoked]
        return KeysAnswer(nca_id=call.account, keys=views)

    async def get(self, api: Api, call: Call[None, None]) -> KeyView:
        """Look at a key."""
        key, _ = await self._found(call)
        return self._view(key, api.clock())

    async def revoke(self, api: Api, call: Call[None, None]) -> None:  # noqa: ARG002
        """Revoke a key, for good: it is refused within a second."""
        key = await self._change(call, lambda key: replace(key, is_revoked=True))
        _note("keys.revoked", key, call.principal)

    async def replace_authorizations(
        self, api: Api, call: Call[ReplaceAuthorizations, None]
    ) -> KeyView:
        """Change what a key allows."""
        await self._changeable(call)
        grant = self._granted(call.principal, call.body)
        changed = await self._change(
            call, lambda key: replace(key, scopes=grant.scopes, reach=grant.reach)
        )
        _note("keys.changed", changed, call.principal)
        return self._view(changed, api.clock())

    async def introspect(self, api: Api, call: Call[IntrospectKey, None]) -> Introspection:
        """Look at a key of the account by its value. One that is not valid is not found."""
        value = call.body.key.get_secret_value().encode()
        key = api.catalog.model.key(digest_of(value)) if is_key(value) else None
        now = api.clock()
        if key is None or key.account != call.account or _is_expired(key, now):
            raise NotFound("The key is not valid, or another account's")
        return Introspection(
            key_id=key.key_id,
            owner_type=_OWNER,
            owner_id=key.subject,
            issuer_service_id=self._identity.service_id,
            authorizations=self._authorizations(key),
        )

    async def mint_admin(self, api: Api, call: Call[CreateAdminToken, None]) -> AdminToken:
        """Make a token for everything in one account. Needs the bootstrap secret.

        The default account's is for setting up other accounts too.
        """
        identity, now = self._identity, api.clock()
        nca_id = call.body.nca_id or identity.default_account
        await self._ensure_account(nca_id, now)
        token_id, lifetime_s = api.new_id(), identity.admin_token_s
        admin = admin_of(nca_id, sets_up_others=nca_id == identity.default_account)
        value = mint(identity.signer, admin, now=now, lifetime_s=lifetime_s, token_id=token_id)
        fields = {"account": nca_id, "token_id": token_id}
        _log.info("keys.admin_token_made", extra={"fields": fields})
        return AdminToken(
            id=token_id,
            value=value,
            status="active",
            description="Admin token",
            nca_id=nca_id,
            created_at=timestamp(now),
            expires_at=timestamp(int(now + lifetime_s)),
        )

    async def _ensure_account(self, nca_id: str, now: float) -> None:
        credentials = self._identity.credentials
        if nca_id == "*":
            raise BadRequest("'*' stands for all accounts and is none")
        if await credentials.account(nca_id) is not None:
            return
        try:
            await credentials.put(Account(nca_id, nca_id, created_at=timestamp(now)), 0)
        except Conflict:
            return  # Made by another call in between.

    async def _change(self, call: AnyCall, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        """Change a key as it is now, again if somebody else was first; return what it became."""
        put = self._identity.credentials.put
        changed = await change_record(put, lambda: self._changeable(call), change)
        assert changed is not None
        return changed

    async def _changeable(self, call: AnyCall) -> tuple[ApiKey, int]:
        """Return a key that the caller could have made. Raises `NotFound`, `Forbidden`."""
        key, revision = await self._found(call)
        if not may_give(call.principal, Grant(key.scopes, key.reach)):
            raise Forbidden("The key allows more than the credential could give")
        return key, revision

    async def _found(self, call: AnyCall) -> tuple[ApiKey, int]:
        found = await self._identity.credentials.key(call.account, call.part("keyId"))
        if found is None or found[0].is_revoked:
            raise NotFound("The account has no such key")
        return found

    def _granted(self, principal: Principal, asked: Authorizations) -> Grant:
        policies = [
            KeyPolicy(
                one.audiences, one.scopes, [resource.model_dump() for resource in one.resources]
            )
            for one in asked.policies
        ]
        return resolve_grant(principal, policies, self._identity.service_id)

    def _view(self, key: ApiKey, now: float) -> KeyView:
        return KeyView(
            id=key.key_id,
            nca_id=key.account,
            status="expired" if _is_expired(key, now) else "active",
            owner_type=_OWNER,
            owner_id=key.subject,
            issuer_service_id=self._identity.service_id,
            audience_service_ids=[self._identity.service_id],
            description=key.description,
            created_at=timestamp(key.created_at),
            expires_at=None if key.expires_at is None else timestamp(key.expires_at),
            authorizations=self._authorizations(key),
        )

    def _authorizations(self, key: ApiKey) -> AuthorizationsView:
        if not key.scopes:
            return AuthorizationsView(policies=[])
        service_id = self._identity.service_id
        policy = PolicyView(
            aud=service_id,
            auds=[service_id],
            product=PRODUCT,
            scopes=sorted(key.scopes),
            resources=[ResourceView(**one) for one in resources_of(key.reach)],
        )
        return AuthorizationsView(policies=[policy])


def _note(event: str, key: ApiKey, by: Principal) -> None:
    """Write down who did what to which key; never the key."""
    fields = {
        "account": key.account,
        "key_id": key.key_id,
        "scopes": sorted(key.scopes),
        "by": by.subject,
        "by_kind": by.kind,
    }
    _log.info(event, extra={"fields": fields})


def _expiry(asked: datetime | None, now: float) -> int:
    latest = int(now) + MAX_LIFETIME_S
    if asked is None:
        return latest
    expires_at = int(asked.timestamp())
    if not now < expires_at <= latest:
        raise BadRequest("expires_at must be in the future, and within a year")
    return expires_at


def _is_expired(key: ApiKey, now: float) -> bool:
    return key.expires_at is not None and key.expires_at <= now


def routes(identity: Identity) -> tuple[AnyRoute, ...]:
    """Return the routes of the key service."""
    handlers = KeyRoutes(identity)
    tag, scopes = "keys", (SETUP,)
    one = "/v1/keys/{keyId}"
    return (
        Route(
            "POST", "/v1/keys", handlers.create, "Make a key", tag, scopes, CreatedKey, CreateKey
        ),
        Route(
            "GET",
            "/v1/keys",
            handlers.list_keys,
            "List the account's keys",
            tag,
            scopes,
            KeysAnswer,
        ),
        Route("GET", one, handlers.get, "Look at a key", tag, scopes, KeyView),
        Route("DELETE", one, handlers.revoke, "Revoke a key", tag, scopes, status=204),
        Route(
            "PUT",
            f"{one}/authorizations",
            handlers.replace_authorizations,
            "Change what a key allows",
            tag,
            scopes,
            KeyView,
            ReplaceAuthorizations,
        ),
        Route(
            "POST",
            "/v1/introspect",
            handlers.introspect,
            "Look at a key by its value",
            tag,
            scopes,
            Introspection,
            IntrospectKey,
        ),
        Route(
            "POST",
            "/v1/admin/keys",
            handlers.mint_admin,
            "Make an admin token, with the bootstrap secret",
            tag,
            (BOOTSTRAP,),
            AdminToken,
            CreateAdminToken,
        ),
    )
