"""The functions of `gateway dev`, created and deployed over the API like any other.

On a data folder they keep their ids, and their API key, from run to run: a function is found again
by its tag and its name (`versions_of_dev`), the key by the file in which it is kept. What was
deployed by the last run is undeployed before the gateway starts, so that no server of it starts
beside the new one.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from gateway.api.routes.keys import MAX_LIFETIME_S
from gateway.app.identity import given_secret, master_of
from gateway.app.options import store_options
from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.dev.options import FunctionOptions
from gateway.domain.grpc import GRPC_PATH
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import (
    Account,
    ApiKey,
    DeploymentKey,
    FunctionVersion,
    RecordError,
    VersionDetails,
    VersionKey,
    VersionState,
)
from gateway.errors import Conflict
from gateway.settings import GatewaySettings
from gateway.store.names import DETAILS, record_at
from gateway.store.open import make_store
from gateway.store.records import Store
from runtime.files import write_private

ACCOUNT = "dev"
CLUSTER = "local"
_KEY_ID = "gateway-dev"
"""Constant, so that each run replaces the key of the last one. Ids of other keys are UUIDs."""
_KEY_FILE = "api-key"
_TAG = "gateway-dev"
_CONNECT_TIMEOUT_S = 10.0
HEALTH_TIMEOUT_S = 10
"""Seconds for one health check."""


class DevFunctionError(Exception):
    """A function cannot be created or started; the message says why."""


class DevFunction(NamedTuple):
    """A deployed function."""

    options: FunctionOptions
    function_id: str
    version_id: str


class EarlierFunction(NamedTuple):
    """A function of an earlier run: its newest version, and the ids of all others."""

    function_id: str
    version_id: str
    spec: Mapping[str, object]
    other_versions: tuple[tuple[str, str], ...]


class Prepared(NamedTuple):
    """The API key, the bootstrap secret if this run has created it, functions by name."""

    api_key: str
    bootstrap_secret: str | None
    earlier: Mapping[str, EarlierFunction]


async def prepare_store(settings: GatewaySettings, folder: Path) -> Prepared:
    """Initialise the store as the gateway's first start does, and create the API key.

    ``settings`` are those of the gateway, for the store's servers.
    The key is written to the store directly, so that an existing bootstrap secret remains valid.
    Raises `StoreUnavailable`, `gateway.api.secrets.master_key.MasterKeyError`, `OSError`.
    """
    options = replace(store_options(settings), name="gateway-dev")
    store = make_store(options, settings.store.bucket_prefix, settings.store.replicas)
    try:
        await store.open(_CONNECT_TIMEOUT_S)
        await store.prepare()
        control = settings.control
        secret = await master_of(control).begin(store, given_secret(control))
        now = time.time()
        with contextlib.suppress(Conflict):
            await store.put(Account(ACCOUNT, ACCOUNT, created_at=timestamp(now)), 0)
        api_key = await _ensure_key(store, folder / _KEY_FILE, int(now))
        return Prepared(api_key, secret, await _undeploy_earlier(store))
    finally:
        await store.close()


async def _ensure_key(store: Store, file: Path, now: int) -> str:
    """Return the API key, that of the last run unless it was revoked. ``now`` is Unix seconds."""
    found = await store.get_key(_KEY_ID)
    kept = _read(file)
    if found is not None and not found[0].is_revoked and found[0].digest == digest_of(kept):
        value, created_at = kept.decode(), found[0].created_at
    else:
        value, created_at = new_key(os.urandom(RANDOM_BYTES)), now
        write_private(file, value)
    key = ApiKey(
        key_id=_KEY_ID,
        digest=digest_of(value.encode()),
        account=ACCOUNT,
        subject=_KEY_ID,
        scopes=ACCOUNT_SCOPES,
        created_at=created_at,
        expires_at=now + MAX_LIFETIME_S,
        description="gateway dev",
    )
    await store.put(key)
    return value


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


async def _undeploy_earlier(store: Store) -> dict[str, EarlierFunction]:
    """Undeploy the functions of earlier runs; return them by name."""
    found = []
    for name, data, _ in await store.entries(DETAILS):
        with contextlib.suppress(RecordError):
            details = record_at(DETAILS, name, data or b"")
            if isinstance(details, VersionDetails):
                found.append(details)
    return {
        name: await _undeploy(store, versions) for name, versions in versions_of_dev(found).items()
    }


def versions_of_dev(found: Iterable[VersionDetails]) -> dict[str, list[VersionDetails]]:
    """Return the versions that earlier runs created, by the function's name, oldest first.

    A user may have a function of the same name, so they are identified by their tag. Where there is
    none with it, its tags were replaced: then it is the first function whose image, the name of a
    command of `gateway dev`, is its own name.
    """
    tagged: dict[str, list[VersionDetails]] = {}
    others: dict[str, list[VersionDetails]] = {}
    for details in sorted(found, key=lambda details: details.created_at):
        name = str(details.spec.get("name"))
        if _TAG in _texts(details.spec.get("tags")):
            tagged.setdefault(name, []).append(details)
        elif details.spec.get("containerImage") == name:
            others.setdefault(name, []).append(details)
    for name, versions in others.items():
        own = tagged.get(name, [])
        ids = {details.function_id for details in own or versions[:1]}
        own += [details for details in versions if details.function_id in ids]
        tagged[name] = sorted(own, key=lambda details: details.created_at)
    return tagged


async def _undeploy(store: Store, versions: Sequence[VersionDetails]) -> EarlierFunction:
    """Undeploy all versions of a function, oldest first. Nothing else writes to the store yet."""
    for details in versions:
        await store.delete(DeploymentKey(details.function_id, details.version_id))
        found = await store.get(VersionKey(details.function_id, details.version_id))
        if found is not None and isinstance(found[0], FunctionVersion):
            await store.put(replace(found[0], state=VersionState.INACTIVE, capacity=0))
    *others, last = versions
    return EarlierFunction(
        last.function_id,
        last.version_id,
        last.spec,
        tuple((details.function_id, details.version_id) for details in others),
    )


class DevApi:
    """The API calls that create and deploy functions, and tell how they are."""

    def __init__(self, session: aiohttp.ClientSession, url: str, api_key: str) -> None:
        self._session = session
        self._url = url
        self._api_key = api_key

    async def deploy(
        self, options: FunctionOptions, earlier: EarlierFunction | None, concurrency: int
    ) -> DevFunction:
        """Deploy a function, created unless it is there already. Raises `DevFunctionError`."""
        function = await self._ensure(options, earlier)
        spec = {
            "backend": CLUSTER,
            "gpu": "CPU",
            "minInstances": 1,
            "maxInstances": 1,
            "maxRequestConcurrency": concurrency,
        }
        await self._call("POST", _deployment(function), {"deploymentSpecifications": [spec]})
        return function

    async def _ensure(
        self, options: FunctionOptions, earlier: EarlierFunction | None
    ) -> DevFunction:
        """Return the function of an earlier run, with a new version if that does not fit."""
        spec = _function(options)
        if earlier is None:
            created = await self._call("POST", "/v2/nvcf/functions", spec)
            return _created(options, created)
        function = DevFunction(options, earlier.function_id, earlier.version_id)
        obsolete = earlier.other_versions
        if not fits(earlier.spec, options):
            path = f"/v2/nvcf/functions/{earlier.function_id}/versions"
            function = _created(options, await self._call("POST", path, spec))
            obsolete += ((earlier.function_id, earlier.version_id),)
        for function_id, version_id in obsolete:
            await self._call("DELETE", f"/v2/nvcf/functions/{function_id}/versions/{version_id}")
        return function

    async def is_active(self, function: DevFunction) -> bool:
        """Return whether it can be called. Raises `DevFunctionError` if its deployment failed."""
        deployment = (await self._call("GET", _deployment(function)))["deployment"]
        status = deployment["functionStatus"]
        if status == "ERROR":
            errors = [info["error"] for info in deployment.get("healthInfo", ())]
            raise DevFunctionError("\n".join(errors))
        return bool(status == "ACTIVE")

    async def instance_ids(self, function: DevFunction) -> list[str]:
        """Return the ids of its instances. Raises `DevFunctionError`."""
        path = f"/v2/nvcf/functions/{function.function_id}/versions/{function.version_id}"
        found = (await self._call("GET", path))["function"]
        return [instance["instanceId"] for instance in found.get("activeInstances") or ()]

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {self._api_key}"}
        url = self._url + path
        async with self._session.request(method, url, headers=headers, json=body) as response:
            if response.status == 204:
                return None
            if response.status != 200:
                text = await response.text()
                raise DevFunctionError(f"{method} {path}: {response.status} {text}")
            return await response.json()


def _created(options: FunctionOptions, response: Any) -> DevFunction:
    function = response["function"]
    return DevFunction(options, function["id"], function["versionId"])


def _deployment(function: DevFunction) -> str:
    return f"/v2/nvcf/deployments/functions/{function.function_id}/versions/{function.version_id}"


def _function(options: FunctionOptions) -> dict[str, object]:
    path = "/echo" if options.is_demo else "/"
    return {
        "name": options.name,
        "tags": [_TAG],
        "inferenceUrl": GRPC_PATH if options.speaks_grpc else path,
        # The cluster has the function's command under this name.
        "containerImage": options.name,
        "health": {
            "protocol": "gRPC" if options.speaks_grpc else "HTTP",
            "uri": options.health_path,
            "port": 8000,
            "timeout": f"PT{HEALTH_TIMEOUT_S}S",
            "expectedStatusCode": 200,
        },
    }


def fits(stored: Mapping[str, object], options: FunctionOptions) -> bool:
    """Whether a stored version needs no successor: protocol, paths and image are those wanted."""
    wanted = _function(options)
    health, wanted_health = stored.get("health"), wanted["health"]
    if not isinstance(health, Mapping) or not isinstance(wanted_health, Mapping):
        return False
    return all(health.get(name) == wanted_health[name] for name in ("protocol", "uri")) and all(
        stored.get(name) == wanted[name] for name in ("inferenceUrl", "containerImage")
    )


def _texts(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
