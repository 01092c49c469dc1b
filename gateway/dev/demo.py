"""The demo function of `gateway dev`, created and deployed over the API like any other."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from gateway.api.routes.keys import MAX_LIFETIME_S
from gateway.app.identity import Master
from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Account, ApiKey
from gateway.errors import Conflict
from gateway.store.connection import NatsOptions, StoreConnection
from gateway.store.nats_kv import Store

ACCOUNT = "dev"
IMAGE = "demo"
CLUSTER = "local"
_KEY_ID = "gateway-dev"
"""Constant, so that each run replaces the key of the last one. Ids of other keys are UUIDs."""
_TAG = "gateway-dev"
_CONNECT_TIMEOUT_S = 10.0


class DemoError(Exception):
    """The demo function cannot be created or started; the message says why."""


class Demo(NamedTuple):
    """What a caller of the demo function needs."""

    function_id: str
    version_id: str
    api_key: str


class DemoCredentials(NamedTuple):
    """The API key of this run, and the bootstrap secret if this run has created it."""

    api_key: str
    bootstrap_secret: str | None


async def prepare_store(nats_url: str, key_file: Path) -> DemoCredentials:
    """Initialise the store as the gateway's first start does, and create the demo's API key.

    The key is written to the store directly, so that an existing bootstrap secret remains valid.
    Raises `StoreUnavailable`, `gateway.api.secrets.master_key.MasterKeyError`.
    """
    connection = StoreConnection(NatsOptions(urls=(nats_url,), name="gateway-dev"))
    await connection.open(_CONNECT_TIMEOUT_S)
    try:
        store = Store(connection)
        await store.prepare()
        secret = await Master(key_file).begin(store)
        now = time.time()
        with contextlib.suppress(Conflict):
            await store.put(Account(ACCOUNT, ACCOUNT, created_at=timestamp(now)), 0)
        return DemoCredentials(await _create_key(store, int(now)), secret)
    finally:
        await connection.close()


async def _create_key(store: Store, now: int) -> str:
    """Create the key of this run, which replaces that of the last run. ``now`` is Unix seconds."""
    value = new_key(os.urandom(RANDOM_BYTES))
    key = ApiKey(
        key_id=_KEY_ID,
        digest=digest_of(value.encode()),
        account=ACCOUNT,
        subject=_KEY_ID,
        scopes=ACCOUNT_SCOPES,
        created_at=now,
        expires_at=now + MAX_LIFETIME_S,
        description="gateway dev",
    )
    await store.put(key)
    return value


class DemoApi:
    """The API calls that create and deploy the demo function."""

    def __init__(self, session: aiohttp.ClientSession, url: str, api_key: str) -> None:
        self._session = session
        self._url = url
        self._api_key = api_key

    async def create(self, concurrency: int) -> Demo:
        """Create the function and deploy it. Raises `DemoError`."""
        await self._delete_earlier()
        function = (await self._post("/v2/nvcf/functions", _FUNCTION))["function"]
        demo = Demo(function["id"], function["versionId"], self._api_key)
        spec = {
            "backend": CLUSTER,
            "gpu": "CPU",
            "minInstances": 1,
            "maxInstances": 1,
            "maxRequestConcurrency": concurrency,
        }
        await self._post(_deployment(demo), {"deploymentSpecifications": [spec]})
        return demo

    async def _delete_earlier(self) -> None:
        """Delete the demo of an earlier run on the same data."""
        functions = await self._call("GET", "/v2/nvcf/functions?visibility=private")
        for function in functions["functions"]:
            # Identified by its tag: a user may have a function of the same name.
            if _TAG in (function.get("tags") or ()):
                path = f"/v2/nvcf/functions/{function['id']}/versions/{function['versionId']}"
                await self._call("DELETE", path)

    async def is_active(self, demo: Demo) -> bool:
        """Return whether it can be called. Raises `DemoError` if its deployment has failed."""
        deployment = (await self._call("GET", _deployment(demo)))["deployment"]
        status = deployment["functionStatus"]
        if status == "ERROR":
            errors = [info["error"] for info in deployment.get("healthInfo", ())]
            raise DemoError("the inference server does not start\n" + "\n".join(errors))
        return bool(status == "ACTIVE")

    async def _post(self, path: str, body: object) -> Any:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {self._api_key}"}
        url = self._url + path
        async with self._session.request(method, url, headers=headers, json=body) as response:
            if response.status == 204:
                return None
            if response.status != 200:
                raise DemoError(f"{method} {path}: {response.status} {await response.text()}")
            return await response.json()


def _deployment(demo: Demo) -> str:
    return f"/v2/nvcf/deployments/functions/{demo.function_id}/versions/{demo.version_id}"


_FUNCTION = {
    "name": "demo",
    "tags": [_TAG],
    "inferenceUrl": "/echo",
    "containerImage": IMAGE,
    "health": {
        "protocol": "HTTP",
        "uri": "/health",
        "port": 8000,
        "timeout": "PT10S",
        "expectedStatusCode": 200,
    },
}
