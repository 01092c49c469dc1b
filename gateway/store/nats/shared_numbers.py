"""The shared numbers in NATS, kept in memory only.

One stream, ``<prefix>_rates``, with the last document of each name. It is not a KV bucket, because
a name that is too much makes it forget the oldest one instead of refusing the write. Made when the
first document is written.
"""

import nats.js.errors
from nats.js import JetStreamContext, api

from gateway.errors import StoreUnavailable
from gateway.store.interface import MAX_SHARED_NAMES
from gateway.store.nats.connection import NatsStoreConnection, translate_errors

RESPONSE_WITHIN_S = 1.0
_NO_MESSAGE = 10037
_NO_STREAM = 10059
_NAME_IN_USE = 10058


class NatsSharedNumbers:
    """Implements `gateway.store.interface.SharedNumbers`."""

    def __init__(
        self, connection: NatsStoreConnection, prefix: str, replicas: int, max_age_s: float
    ) -> None:
        """``max_age_s`` is when a document is forgotten. Both numbers are fixed with the stream."""
        self._connection = connection
        self._stream = f"{prefix}_rates"
        self._config = api.StreamConfig(
            name=self._stream,
            subjects=[f"{self._stream}.*"],
            storage=api.StorageType.MEMORY,
            discard=api.DiscardPolicy.OLD,
            max_msgs=MAX_SHARED_NAMES,
            max_msgs_per_subject=1,
            max_age=max_age_s,
            num_replicas=replicas,
        )

    async def read(self, name: str) -> tuple[bytes, int] | None:
        with translate_errors():
            try:
                found = await self._jetstream().get_msg(
                    self._stream, subject=f"{self._stream}.{name}"
                )
            except nats.js.errors.NotFoundError as error:
                if error.err_code not in {_NO_MESSAGE, _NO_STREAM}:
                    raise
                return None
        return found.data or b"", found.seq or 0

    async def replace(self, name: str, document: bytes, revision: int) -> int:
        with translate_errors():
            try:
                return await self._publish(name, document, revision)
            except nats.js.errors.NoStreamResponseError:
                await self._make()
                return await self._publish(name, document, 0)

    async def _publish(self, name: str, document: bytes, revision: int) -> int:
        ack = await self._jetstream().publish(
            f"{self._stream}.{name}",
            document,
            headers={"Nats-Expected-Last-Subject-Sequence": str(revision)},
        )
        return ack.seq

    async def _make(self) -> None:
        try:
            await self._jetstream().add_stream(self._config)
        except nats.js.errors.APIError as error:
            # Another process has made it at the same time, with another number of replicas.
            if error.err_code != _NAME_IN_USE:
                raise StoreUnavailable(cause=error.description or "no stream") from error

    def _jetstream(self) -> JetStreamContext:
        return self._connection.connected_client().jetstream(timeout=RESPONSE_WITHIN_S)
