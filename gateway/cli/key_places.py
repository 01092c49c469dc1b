"""The two places where `gateway keys` works: the API, and the store behind it.

Both tell of keys in the same words (`Json`): id, account, subject, status, scopes, resources,
createdAt, expiresAt and description, and of a new one ``key``, which is shown this once.
"""

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.cli.api_client import ApiClient, Json, Place, run
from gateway.cli.failures import CommandError, fail, usage
from gateway.cli.output import say
from gateway.cli.store_access import with_store
from gateway.domain.documents import RecordError
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import ApiKey, ResourceScope, resources_of
from gateway.store.nats_kv import Store
from wire.ids import uuid4_text

_PATH = "/v1/keys"
_is_account = re.compile(r"[\x21-\x7e]{1,128}").fullmatch


@dataclass(frozen=True, slots=True)
class Wish:
    """A key that is to be made. ``lifetime_s`` is `None` for as long as the place allows."""

    account: str | None
    subject: str | None
    scopes: frozenset[str]
    reach: ResourceScope
    lifetime_s: int | None
    description: str


class Keys(Protocol):
    """A place. What it refuses is told in one line and ends the program."""

    def make(self, wish: Wish) -> Json:
        """Make a key; the answer has its value."""

    def all(self, account: str | None) -> list[Json]:
        """Return the keys of ``account``, oldest first."""

    def revoke(self, key_id: str) -> Json:
        """Revoke a key and return it. ``key_id`` is in a form that ids have."""


class KeysOverApi:
    """Keys of one account: the one that the credential is of. What is revoked is gone."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def make(self, wish: Wish) -> Json:
        if wish.subject is not None:
            raise usage(
                "--subject is for keys made straight in the store (--config or --nats-url): over "
                "the API, a key's subject is that of the credential it is made with."
            )
        # Of which service the scopes are is left out: it is the one that is asked.
        policy = {"scopes": sorted(wish.scopes), "resources": resources_of(wish.reach)}
        body: Json = {"authorizations": {"policies": [policy]}}
        if wish.description:
            body["description"] = wish.description
        if wish.lifetime_s is not None:
            body["expires_at"] = timestamp(int(time.time()) + wish.lifetime_s)

        async def make(api: ApiClient) -> Json:
            if wish.account is not None:
                _check_account(await api.get(_PATH), wish.account)
            return await api.call("POST", _PATH, body)

        made = run(self._place, make)
        return {**_of_answer(made), "key": made["value"]}

    def all(self, account: str | None) -> list[Json]:
        async def read(api: ApiClient) -> Json:
            answer = await api.get(_PATH)
            if account is not None:
                _check_account(answer, account)
            return answer

        return [_of_answer(key) for key in run(self._place, read)["keys"]]

    def revoke(self, key_id: str) -> Json:
        async def revoke(api: ApiClient) -> Json:
            # First, because afterwards there is nothing to see.
            key = await api.get(f"{_PATH}/{key_id}")
            await api.call("DELETE", f"{_PATH}/{key_id}")
            return key

        return {**_of_answer(run(self._place, revoke)), "status": "revoked"}


class KeysInStore:
    """All keys. Whoever may write the key bucket may do this; nothing else is asked."""

    def __init__(self, config: Path | None, nats_urls: list[str] | None) -> None:
        self._config = config
        self._nats_urls = nats_urls

    def make(self, wish: Wish) -> Json:
        if wish.account is None:
            raise usage(
                "Give --account: made straight in the store, a key can be any account's. Over the "
                "API (GATEWAY_API_KEY or --api-key) it is of the account of that credential."
            )
        if _is_account(wish.account) is None:
            raise fail(
                CommandError("--account takes 1 to 128 visible ASCII characters, without spaces.")
            )
        if unknown := sorted(wish.scopes - ACCOUNT_SCOPES):
            known = ", ".join(sorted(ACCOUNT_SCOPES))
            raise fail(CommandError(f"--scope {unknown[0]} is unknown. Scopes: {known}."))
        now = int(time.time())
        value = new_key(secrets.token_bytes(RANDOM_BYTES))
        key_id = uuid4_text(secrets.token_bytes(16))
        key = ApiKey(
            key_id=key_id,
            digest=digest_of(value.encode()),
            account=wish.account,
            subject=wish.subject or key_id,
            scopes=wish.scopes,
            reach=wish.reach,
            created_at=now,
            expires_at=None if wish.lifetime_s is None else now + wish.lifetime_s,
            description=wish.description,
        )
        with_store(self._config, self._nats_urls, lambda store: store.put(key, 0))
        return {**_of_record(key), "key": value}

    def all(self, account: str | None) -> list[Json]:
        keys, unreadable = with_store(
            self._config, self._nats_urls, lambda store: store.list_keys(account)
        )
        for name in unreadable:
            say(f"gateway: key {name} is stored in a form that this program cannot read.")
        return [_of_record(key) for key in keys]

    def revoke(self, key_id: str) -> Json:
        async def revoke(store: Store) -> ApiKey:
            try:
                key = await store.revoke_key(key_id)
            except RecordError as error:
                raise CommandError(f"Key {key_id} cannot be read: {error}") from None
            if key is None:
                raise CommandError(f"There is no key {key_id!r}. 'gateway keys list' shows them.")
            return key

        return _of_record(with_store(self._config, self._nats_urls, revoke))


def _check_account(listed: Json, account: str) -> None:
    """Raise `CommandError` unless ``listed``, the API's list, is of this account."""
    if (own := listed["nca_id"]) != account:
        raise CommandError(
            f"--account {account}: the API has only the keys of the credential's own account, "
            f"which is {own}."
        )


def _of_answer(key: Mapping[str, Any]) -> Json:
    policies = key["authorizations"]["policies"]
    expires_at = key.get("expires_at")
    return {
        "id": key["id"],
        "account": key["nca_id"],
        "subject": key["owner_id"],
        "status": key["status"],
        "scopes": [scope for policy in policies for scope in policy["scopes"]],
        "resources": [one for policy in policies for one in policy["resources"]],
        "createdAt": _second(key["created_at"]),
        "expiresAt": None if expires_at is None else _second(expires_at),
        "description": key["description"],
    }


def _of_record(key: ApiKey) -> Json:
    return {
        "id": key.key_id,
        "account": key.account,
        "subject": key.subject,
        "status": _status(key),
        "scopes": sorted(key.scopes),
        "resources": resources_of(key.reach),
        "createdAt": _second(timestamp(key.created_at)),
        "expiresAt": None if key.expires_at is None else _second(timestamp(key.expires_at)),
        "description": key.description,
    }


def _status(key: ApiKey) -> str:
    if key.is_revoked:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= time.time() else "active"


def _second(at: str) -> str:
    """Return a time without the fractions of its second, which keys have none of."""
    return f"{at[:19]}Z"
