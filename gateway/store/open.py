"""Opens the store at its backend. Only this module and `gateway.store.options` name one.

Backends are imported when they are opened, so that a process loads only what it uses.
"""

from gateway.store.options import RedisStoreOptions, StoreOptions
from gateway.store.records import Store

PREFIX = "gateway"


def make_store(options: StoreOptions, prefix: str = PREFIX, replicas: int = 1) -> Store:
    """Return the store at the servers of ``options``, not open yet. Call it in a running loop.

    ``prefix`` begins the names of the buckets. ``replicas`` is the number of NATS servers that keep
    a bucket, set when the bucket is made; Redis has as many as it has replicas.
    """
    if isinstance(options, RedisStoreOptions):
        from gateway.store.redis.documents import RedisStore  # noqa: PLC0415

        return RedisStore(options, prefix)
    from gateway.store.nats.connection import NatsStoreConnection  # noqa: PLC0415
    from gateway.store.nats.kv import NatsStore  # noqa: PLC0415

    return NatsStore(NatsStoreConnection(options), prefix, replicas)
