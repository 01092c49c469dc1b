"""The demo function of `gateway dev`: registered, deployed and called over the API like others."""

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
from gateway.store.connection import Connection, NatsOptions
from gateway.store.nats_kv import Store

ACCOUNT = "dev"
IMAGE = "demo"
CLUSTER = "local"
_KEY_ID = "gateway-dev"
"""Always the same, so that there is one such key however often we are started. Ids of other keys
are UUIDs."""
_TAG = "gateway-dev"
_CONNECT_WITHIN_S = 10.0


class DemoError(Exception):
    """The demo cannot be had; the text says why."""


class Demo(NamedTuple):
    """What a caller needs to know."""

    function_id: str
    version_id: str
    api_key: str


class Begun(NamedTuple):
    """What opens the store's API: the key of this run, and the secret if it was made now."""

    api_key: str
    bootstrap_secret: str | None


async def begin(nats_url: str, key_file: Path) -> Begun:
    """Do on the store at ``nats_url`` what the gateway's first start does; make the demo's key.

    Straight in the store, so that a bootstrap secret that somebody has stays good. Raises
    `StoreUnavailable`, `gateway.api.secrets.master_key.MasterKeyError`.
    """
    connection = Connection(NatsOptions(urls=(nats_url,), name="gateway-dev"))
    await connection.open(_CONNECT_WITHIN_S)
    try:
        store = Store(connection)
        await store.prepare()
        secret = await Master(key_file).begin(store)
        now = time.time()
        with contextlib.suppress(Conflict):
            await store.put(Account(ACCOUNT, ACCOUNT, created_at=timestamp(now)), 0)
        return Begun(await _new_key(store, int(now)), secret)
    finally:
        await connection.close()


async def _new_key(store: Store, now: int) -> str:
    """Make the key of this run in place of the one of the run before, which is then good no more.

    ``now`` is in Unix seconds.
    """
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
    """The calls by which a user of the API would do the same."""

    def __init__(self, session: aiohttp.ClientSession, url: str, api_key: str) -> None:
        self._session = session
        self._url = url
        self._api_key = api_key

    async def make(self, concurrency: int) -> Demo:
        """Make the function and deploy it. Raises `DemoError`."""
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
            # By the tag: a user may call a function of their own as the demo is called.
            if _TAG in (function.get("tags") or ()):
                path = f"/v2/nvcf/functions/{function['id']}/versions/{function['versionId']}"
                await self._call("DELETE", path)

    async def is_active(self, demo: Demo) -> bool:
        """Tell whether it can be called. Raises `DemoError` when it failed."""
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
        async with self._session.request(method, url, headers=headers, json=body) as answer:
            if answer.status == 204:
                return None
            if answer.status != 200:
                raise DemoError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()


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
