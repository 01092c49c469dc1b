"""Claims in NATS, in a stream of each account that makes some: ``<prefix>_claims_<account>``.

A subject has one message, the document, and only its first writer succeeds. So the server itself
keeps no more than an account may have, and lets each expire. A stream is made with the account's
first claim. It is not a KV bucket: what is released is not to leave a marker.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import nats.js.errors
from nats.js import JetStreamContext, api

from gateway.errors import StoreUnavailable, TooManyKeys
from gateway.store.names import account_token
from gateway.store.nats.connection import RESPONSE_WITHIN_S, NatsStoreConnection, translate_errors

_RELEASED_S = 1
"""A released claim is there for so long, as an empty message: the server deletes it by its age."""
_NO_MESSAGE = 10037
_NO_STREAM = 10059
_NAME_IN_USE = 10058
_FULL = 10077
_WRONG_REVISION = 10071


class NatsClaims:
    """Implements `gateway.store.interface.ClaimStore`."""

    def __init__(
        self,
        connection: NatsStoreConnection,
        prefix: str,
        replicas: int,
        max_age_s: float,
        account_limit: int,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._replicas = replicas
        self._max_age_s = max_age_s
        self._account_limit = account_limit

    async def make(self, account: str, name: str, document: bytes) -> int:
        stream = self._stream(account)
        with translate_errors(), _full():
            try:
                return await self._publish(stream, name, document, 0)
            except nats.js.errors.NoStreamResponseError:
                await self._make_stream(stream)
                return await self._publish(stream, name, document, 0)
            except nats.js.errors.APIError as error:
                released = await self._released(stream, name) if _is_conflict(error) else 0
                if not released:
                    raise
                return await self._publish(stream, name, document, released)

    async def read(self, account: str, name: str) -> tuple[bytes, int] | None:
        stream = self._stream(account)
        with translate_errors():
            try:
                found = await self._jetstream().get_msg(stream, subject=f"{stream}.{name}")
            except nats.js.errors.NotFoundError as error:
                if error.err_code not in {_NO_MESSAGE, _NO_STREAM}:
                    raise
                return None
        return (found.data, found.seq or 0) if found.data else None

    async def release(self, account: str, name: str, revision: int) -> None:
        headers = {api.Header.MSG_TTL.value: str(_RELEASED_S)}
        with translate_errors():
            try:
                await self._publish(self._stream(account), name, b"", revision, headers)
            except nats.js.errors.APIError as error:
                if not _is_conflict(error):
                    raise

    async def _released(self, stream: str, name: str) -> int:
        """Return the revision of a released claim that is still there, else 0."""
        found = await self._jetstream().get_msg(stream, subject=f"{stream}.{name}")
        return 0 if found.data else found.seq or 0

    async def _publish(
        self,
        stream: str,
        name: str,
        document: bytes,
        revision: int,
        headers: dict[str, str] | None = None,
    ) -> int:
        expected = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        ack = await self._jetstream().publish(
            f"{stream}.{name}", document, headers=expected | (headers or {})
        )
        return ack.seq

    async def _make_stream(self, stream: str) -> None:
        config = api.StreamConfig(
            name=stream,
            subjects=[f"{stream}.*"],
            discard=api.DiscardPolicy.NEW,
            max_msgs=self._account_limit,
            max_msgs_per_subject=1,
            max_age=self._max_age_s,
            num_replicas=self._replicas,
            allow_msg_ttl=True,
        )
        try:
            await self._jetstream().add_stream(config)
        except nats.js.errors.APIError as error:
            # Another process has made it at the same time, with other numbers.
            if error.err_code != _NAME_IN_USE:
                raise StoreUnavailable(cause=error.description or "no stream") from error

    def _stream(self, account: str) -> str:
        return f"{self._prefix}_claims_{account_token(account)}"

    def _jetstream(self) -> JetStreamContext:
        return self._connection.connected_client().jetstream(timeout=RESPONSE_WITHIN_S)


@contextmanager
def _full() -> Iterator[None]:
    try:
        yield
    except nats.js.errors.APIError as error:
        if error.err_code == _FULL:
            raise TooManyKeys from error
        raise


def _is_conflict(error: nats.js.errors.APIError) -> bool:
    return error.err_code == _WRONG_REVISION
