"""The demo function of `gateway dev`: registered, deployed and called over the API like others."""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from gateway.app.identity import Master
from gateway.auth.bootstrap import RANDOM_BYTES
from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.control import bootstrap
from gateway.control.identity import SERVICE_ID
from gateway.functions.lifecycle import timestamp
from gateway.store.connection import Connection, NatsOptions
from gateway.store.nats_kv import Store

ACCOUNT = "dev"
IMAGE = "demo"
CLUSTER = "local"
_CONNECT_WITHIN_S = 10.0


class DemoError(Exception):
    """The demo cannot be had; the text says why."""


class Demo(NamedTuple):
    """What a caller needs to know."""

    function_id: str
    version_id: str
    api_key: str


async def bootstrap_secret(nats_url: str, key_file: Path) -> str:
    """Return a bootstrap secret that the gateway on this store will take. Raises `StoreError`."""
    connection = Connection(NatsOptions(urls=(nats_url,), name="gateway-dev"))
    await connection.open(_CONNECT_WITHIN_S)
    try:
        store = Store(connection)
        await store.prepare()
        made = await Master(key_file).begin(store)
        if made is not None:
            return made
        return await bootstrap.reset(store, os.urandom(RANDOM_BYTES), timestamp(time.time()))
    finally:
        await connection.close()


class DemoApi:
    """The calls by which a user of the API would do the same."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._token = ""

    async def make(self, secret: str, concurrency: int) -> Demo:
        """Make a key and the function, and deploy it. Raises `DemoError`."""
        self._token = secret
        self._token = (await self._post("/v1/admin/keys", {"nca_id": ACCOUNT}))["value"]
        key = await self._post("/v1/keys", _KEY)
        await self._delete_earlier()
        function = (await self._post("/v2/nvcf/functions", _FUNCTION))["function"]
        demo = Demo(function["id"], function["versionId"], key["value"])
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
            if function["name"] == _FUNCTION["name"]:
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
        headers = {"authorization": f"Bearer {self._token}"}
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
_KEY = {
    "description": "gateway dev",
    "authorizations": {
        "policies": [
            {
                "aud": SERVICE_ID,
                "scopes": sorted(ACCOUNT_SCOPES),
                "resources": [
                    {"type": "account-functions", "id": "*"},
                    {"type": "authorized-functions", "id": "*"},
                ],
            }
        ]
    },
}
