"""The two backends of `gateway keys`: the API, and the store itself.

Both return keys as JSON objects with id, account, subject, status, scopes, resources, createdAt,
expiresAt and description. A new key also has ``key``, its value, which is never shown again.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.cli.api_client import ApiClient, ApiTarget, Json, run
from gateway.cli.errors import ApiError, CommandError, fail, usage
from gateway.cli.lookup import find_function, version_name
from gateway.cli.output import say
from gateway.cli.store_access import with_store
from gateway.domain.documents import RecordError
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import (
    EVERYTHING,
    ApiKey,
    ResourceScope,
    resource_scope_of,
    resources_of,
)
from gateway.settings import API_KEY_VARIABLE
from gateway.store.records import Store
from runtime.ids import new_uuid

_PATH = "/v1/keys"
_OVER_THE_API = (
    f"To call the API of a gateway instead, give an API key with {API_KEY_VARIABLE} or --api-key."
)
_is_account = re.compile(r"[\x21-\x7e]{1,128}").fullmatch


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key to create. A ``lifetime_s`` of `None` means as long as the backend allows.

    ``functions`` are ``FUNCTION`` or ``FUNCTION/VERSION``; none means all.
    """

    account: str | None
    subject: str | None
    scopes: frozenset[str]
    functions: tuple[str, ...]
    lifetime_s: int | None
    description: str


class KeyBackend(Protocol):
    """Manages keys. A refusal is printed in one line and ends the program."""

    def create(self, request: KeyRequest) -> Json:
        """Create a key and return it with its value."""

    def list_keys(self, account: str | None) -> list[Json]:
        """Return the keys of ``account``, oldest first; `None` means all that the backend has."""

    def revoke(self, key_id: str) -> Json:
        """Revoke a key and return it. ``key_id`` has the form of an id."""


class ApiKeyBackend:
    """The keys of one account, that of the credential. Revoked keys are no longer listed."""

    def __init__(self, target: ApiTarget) -> None:
        self._target = target

    def create(self, request: KeyRequest) -> Json:
        if request.subject is not None:
            raise usage(
                "--subject is for keys created in the store (--config or --store-url). Over the "
                "API, a key has the subject of the credential that creates it."
            )
        # The service of the scopes is left out: it defaults to the one that is called.
        policy: Json = {"scopes": sorted(request.scopes)}
        body: Json = {"authorizations": {"policies": [policy]}}
        if request.description:
            body["description"] = request.description
        if request.lifetime_s is not None:
            body["expires_at"] = timestamp(int(time.time()) + request.lifetime_s)

        async def create(api: ApiClient) -> Json:
            if request.account is not None:
                _check_account(await api.get(_PATH), request.account)
            functions = [await _with_ids(api, function) for function in request.functions]
            policy["resources"] = resources_of(_reach(functions))
            try:
                return await api.call("POST", _PATH, body)
            except ApiError as error:
                # The error names the members of a body that the user does not know.
                message = str(error).replace("expires_at", "--expires-in")
                raise ApiError(error.status, message) from None

        created = run(self._target, create)
        return {**_from_api(created), "key": created["value"]}

    def list_keys(self, account: str | None) -> list[Json]:
        async def read(api: ApiClient) -> Json:
            listed = await api.get(_PATH)
            if account is not None:
                _check_account(listed, account)
            return listed

        return [_from_api(key) for key in run(self._target, read)["keys"]]

    def revoke(self, key_id: str) -> Json:
        async def revoke(api: ApiClient) -> Json:
            # Read first: afterwards the key no longer exists.
            key = await api.get(f"{_PATH}/{key_id}")
            await api.call("DELETE", f"{_PATH}/{key_id}")
            return key

        return {**_from_api(run(self._target, revoke)), "status": "revoked"}


class StoreKeyBackend:
    """All keys, in the store. Write access to the key bucket is the only permission needed."""

    def __init__(self, config: Path | None, store_urls: list[str] | None) -> None:
        self._config = config
        self._store_urls = store_urls
        # Without these options it may be the API that was meant.
        self._advice = "" if config or store_urls else _OVER_THE_API

    def create(self, request: KeyRequest) -> Json:
        if request.account is None:
            raise usage(
                "Give --account: a key created in the store can belong to any account. Over the "
                "API (GATEWAY_API_KEY or --api-key) it belongs to the account of that credential."
            )
        if _is_account(request.account) is None:
            raise fail(
                CommandError("--account must be 1 to 128 visible ASCII characters, without spaces.")
            )
        if unknown := sorted(request.scopes - ACCOUNT_SCOPES):
            known = ", ".join(sorted(ACCOUNT_SCOPES))
            raise fail(CommandError(f"--scope {unknown[0]} is unknown. Scopes: {known}."))
        try:
            reach = _reach(request.functions)
        except CommandError as error:
            raise fail(error) from None
        now = int(time.time())
        value = new_key(secrets.token_bytes(RANDOM_BYTES))
        key_id = new_uuid()
        key = ApiKey(
            key_id=key_id,
            digest=digest_of(value.encode()),
            account=request.account,
            subject=request.subject or key_id,
            scopes=request.scopes,
            reach=reach,
            created_at=now,
            expires_at=None if request.lifetime_s is None else now + request.lifetime_s,
            description=request.description,
        )
        self._use(lambda store: store.put(key, 0))
        return {**_from_record(key), "key": value}

    def list_keys(self, account: str | None) -> list[Json]:
        keys, unreadable = self._use(lambda store: store.list_keys(account))
        for name in unreadable:
            say(f"gateway: key {name} cannot be read by this version of the program.")
        return [_from_record(key) for key in keys]

    def revoke(self, key_id: str) -> Json:
        async def revoke(store: Store) -> ApiKey:
            try:
                key = await store.revoke_key(key_id)
            except RecordError as error:
                raise CommandError(f"Key {key_id} cannot be read: {error}") from None
            if key is None:
                raise CommandError(
                    f"There is no key {key_id!r}. List keys with 'gateway keys list'."
                )
            return key

        return _from_record(self._use(revoke))

    def _use(self, use: Callable[[Store], Awaitable[Result]]) -> Result:
        return with_store(self._config, self._store_urls, use, advice=self._advice)


async def _with_ids(api: ApiClient, function: str) -> str:
    """Return ``FUNCTION`` or ``FUNCTION/VERSION`` with ids in place of names."""
    name, slash, version = function.partition("/")
    if slash:
        return "/".join(await version_name(name, version).find(api))
    return await find_function(api, version_name(name).function)


def _reach(functions: Sequence[str]) -> ResourceScope:
    """Return the functions that a key is restricted to. Raises `CommandError`."""
    if not functions:
        return EVERYTHING
    resources = [
        {"type": "function", "id": name if "/" in name else f"{name}/*"} for name in functions
    ]
    for name, resource in zip(functions, resources, strict=True):
        if resource_scope_of([resource]) == ResourceScope():
            raise CommandError(
                f"--function {name} is neither FUNCTION_ID nor FUNCTION_ID/VERSION_ID."
            )
    return resource_scope_of(resources)


def _check_account(listed: Json, account: str) -> None:
    """Raise `CommandError` unless ``listed``, the response of the API, is of this account."""
    if (own := listed["nca_id"]) != account:
        raise CommandError(
            f"--account {account}: the API only manages keys of the credential's own account, "
            f"which is {own}."
        )


def _from_api(key: Mapping[str, Any]) -> Json:
    policies = key["authorizations"]["policies"]
    expires_at = key.get("expires_at")
    return {
        "id": key["id"],
        "account": key["nca_id"],
        "subject": key["owner_id"],
        "status": key["status"],
        "scopes": [scope for policy in policies for scope in policy["scopes"]],
        "resources": [resource for policy in policies for resource in policy["resources"]],
        "createdAt": _second(key["created_at"]),
        "expiresAt": None if expires_at is None else _second(expires_at),
        "description": key["description"],
    }


def _from_record(key: ApiKey) -> Json:
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
    """Return a timestamp without fractions of a second, which keys do not have."""
    return f"{at[:19]}Z"
