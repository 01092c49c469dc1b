"""Writes thousands of functions directly into the store of a running gateway.

Each has `VERSIONS` versions, registered but not deployed, hence INACTIVE, the state in which the
reconciler leaves them. They belong to the measured account, the most expensive case for its lists.
"""

import asyncio
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace

from gateway.dev.functions import ACCOUNT
from gateway.domain.account import Account
from gateway.domain.lifecycle import register_records
from gateway.domain.model import AccountKey, Function, Record
from gateway.store.open import make_store
from gateway.store.options import options_at
from gateway.store.records import Store
from runtime.ids import new_uuid
from wire.ids import FunctionId, VersionId

VERSIONS = 3
_AT_ONCE = 128
_OWN = 10
"""Functions that the account may have in addition, such as the demo's."""
_CONNECT_WITHIN_S = 10.0
_SPEC = {
    "name": "bench",
    "description": "One of very many",
    "inferenceUrl": "/v1/chat/completions",
    "inferencePort": 8000,
    "containerImage": "registry.example/models/bench:1.0",
    "containerEnvironment": [{"key": "MODEL", "value": "bench"}],
    "tags": ["bench", "load"],
    "functionType": "DEFAULT",
    "apiBodyFormat": "CUSTOM",
    "health": {
        "protocol": "HTTP",
        "uri": "/health",
        "port": 8000,
        "timeout": "PT10S",
        "expectedStatusCode": 200,
    },
}


def fill(url: str, functions: int) -> None:
    """Write this number of functions. Raises `gateway.errors.StoreUnavailable`."""
    asyncio.run(_fill(url, functions))


def undeploy(ready: Mapping[str, str]) -> None:
    """Undeploy the demo function of a `gateway dev`, which deploys it again after a restart.

    ``ready`` is the content of its ready file.
    """
    path = "/v2/nvcf/deployments/functions/{function_id}/versions/{function_version_id}"
    request = urllib.request.Request(
        ready["api_url"] + path.format_map(ready),
        method="DELETE",
        headers={"authorization": f"Bearer {ready['api_key']}"},
    )
    with urllib.request.urlopen(request, timeout=_CONNECT_WITHIN_S):
        return


async def _fill(url: str, functions: int) -> None:
    store = make_store(options_at([url], "bench"))
    try:
        await store.open(_CONNECT_WITHIN_S)
        await _allow(store, functions + _OWN)
        records = _records(functions)
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(_write(store, records))
    finally:
        await store.close()


async def _allow(store: Store, functions: int) -> None:
    """Raise the account's limit to this number of functions."""
    found = await store.get(AccountKey(ACCOUNT))
    account = Account(ACCOUNT, ACCOUNT) if found is None else found[0]
    if not isinstance(account, Account):
        raise TypeError(f"an account is {account}")
    await store.put(replace(account, max_functions=max(functions, account.max_functions)))


async def _write(store: Store, records: Iterator[Record]) -> None:
    for record in records:
        await store.put(record)


def _records(functions: int) -> Iterator[Record]:
    began = time.time()
    for number in range(functions):
        function_id = FunctionId(new_uuid())
        yield Function(function_id, ACCOUNT)
        for _ in range(VERSIONS):
            version_id = VersionId(new_uuid())
            at = began - functions + number
            yield from register_records(ACCOUNT, function_id, version_id, _SPEC, at)
