"""Buckets of the store that refuse writes, as they do when the disk is full."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.control import ControlPlane


@asynccontextmanager
async def full(plane: ControlPlane, *buckets: str) -> AsyncIterator[None]:
    """Refuse every write to ``buckets``: JetStream answers as it does without room."""
    for bucket in buckets:
        await _limit_messages(plane, bucket, 1)
    yield
    for bucket in buckets:
        await _limit_messages(plane, bucket, -1)


async def _limit_messages(plane: ControlPlane, bucket: str, max_bytes: int) -> None:
    jetstream = plane.store.connection.connected_client().jetstream()
    config = (await jetstream.stream_info(f"KV_{plane.store.full_name(bucket)}")).config
    config.max_msg_size = max_bytes
    await jetstream.update_stream(config)
