"""The demo function of `gateway dev`, and the key that may call it."""

import os
from typing import NamedTuple

from gateway.auth.keys import RANDOM_BYTES, digest_of, new_key
from gateway.functions.model import ApiKey, Function, FunctionVersion, State
from gateway.functions.principal import INVOKE
from gateway.store.connection import Connection, NatsOptions
from gateway.store.nats_kv import Store
from wire.ids import FunctionId, VersionId, uuid4_text

ACCOUNT = "dev"
_CONNECT_WITHIN_S = 10.0


class Demo(NamedTuple):
    """What a caller needs to know."""

    function_id: str
    version_id: str
    api_key: str


async def register(nats_url: str, inference_port: int) -> Demo:
    """Write the function, its version and a key into the store. Raises `StoreError`."""
    function_id = FunctionId(uuid4_text(os.urandom(16)))
    version_id = VersionId(uuid4_text(os.urandom(16)))
    api_key = new_key(os.urandom(RANDOM_BYTES))
    connection = Connection(NatsOptions(urls=(nats_url,), name="gateway-dev"))
    await connection.open(_CONNECT_WITHIN_S)
    try:
        store = Store(connection)
        await store.prepare()
        await store.put(Function(function_id, ACCOUNT))
        await store.put(
            FunctionVersion(
                function_id,
                version_id,
                ACCOUNT,
                "demo",
                State.ACTIVE,
                inference_port=inference_port,
            )
        )
        await store.put(
            ApiKey(
                key_id="demo",
                digest=digest_of(api_key.encode()),
                account=ACCOUNT,
                subject="demo",
                scopes=frozenset({INVOKE}),
            )
        )
    finally:
        await connection.close()
    return Demo(function_id, version_id, api_key)
