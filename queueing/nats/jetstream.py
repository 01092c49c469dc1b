"""The JetStream API calls in use: streams and consumers of queues (`docs/wire.md` §4.2).

They are rare and respond with JSON. Publishing and pulling do not use this module.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from queueing.nats.connection import NatsConnection
from queueing.nats.protocol import header_value, status_of
from wire.subjects import consumer_name, queue_subjects, stream_name

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
STREAM_NAME_IN_USE = 10058
CONSUMER_EXISTS = 10148
CONSUMER_NAME_EXISTS = 10013
STORE_FAILED = 10077
MEMORY_EXCEEDED = 10028
STORAGE_EXCEEDED = 10047
NO_SUITABLE_PEERS = 10005
REPLICAS_NOT_SUPPORTED = 10074

CLUSTER_REPLICAS = 3
"""Copies of a queue in a cluster, unless the settings say otherwise."""

API = "$JS.API"
_SECOND_NS = 1_000_000_000
_GRANULE_S = 4
_GRANULE_BITS = 33
EPOCH_GAP = 1 << (_GRANULE_BITS - 1)
"""More sequences than a stream can use between two looks at it, and fewer than lie between the
first sequences of two of its lives."""


class JetStreamError(Exception):
    """An error response of JetStream; ``code`` is its ``err_code``."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The configuration of new queues; existing streams keep theirs.

    A queue holds at most ``max_messages`` and ``max_bytes`` (-1: any number of bytes); further
    publishes are refused. The servers of a region's queues have the
    tag ``region_tag``, a colon and the region, unless it is empty. ``replicas`` 0 means
    `CLUSTER_REPLICAS` in a cluster, else 1. A request is delivered at most ``max_deliver`` times;
    ``ack_wait_s`` is the duration of a lease.
    """

    storage: Literal["memory", "file"] = "memory"
    replicas: int = 1
    max_messages: int = 100_000
    max_bytes: int = -1
    max_message_bytes: int = 6 << 20
    duplicate_window_s: float = 5.0
    region_tag: str = ""
    max_deliver: int = 3
    ack_wait_s: float = 30.0
    max_ack_pending: int = 100_000
    max_waiting: int = 100_000

    def stream(self, region: str, version_id: str) -> dict[str, Any]:
        """Return the stream's configuration."""
        config: dict[str, Any] = {
            "name": stream_name(region, version_id),
            "subjects": [queue_subjects(region, version_id)],
            "retention": "workqueue",
            "storage": self.storage,
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs": self.max_messages,
            "max_msgs_per_subject": 1,
            "max_bytes": self.max_bytes,
            "max_msg_size": self.max_message_bytes,
            "max_consumers": -1,
            "max_age": 0,
            "num_replicas": self.replicas,
            "duplicate_window": int(self.duplicate_window_s * _SECOND_NS),
            "allow_direct": True,
            "consumer_limits": {"max_ack_pending": self.max_ack_pending},
        }
        if self.region_tag:
            config["placement"] = {"tags": [f"{self.region_tag}:{region}"]}
        return config

    def consumer(self, stream: str) -> dict[str, Any]:
        """Return the configuration of the stream's one consumer."""
        return {
            "durable_name": consumer_name(stream),
            "name": consumer_name(stream),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait_s * _SECOND_NS),
            "max_deliver": self.max_deliver,
            "max_ack_pending": self.max_ack_pending,
            "max_waiting": self.max_waiting,
        }


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of a queue's stream: ``created`` differs from one stream to its successor.

    ``last_sequence`` goes back when a stream in memory lost its contents, but not its name.
    """

    created: str
    first_sequence: int
    last_sequence: int
    messages: int
    replicas: int


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of a queue's consumer at one moment.

    ``created`` differs from one consumer to its successor of the same name, but not only then
    (nats-server before 2.12.3 changes it at a restart). ``delivered`` is the highest sequence ever
    leased, ``deliveries`` counts all leases, ``waiting`` the requests after ``delivered``.
    ``leased`` counts requests that were leased and not acknowledged, ``redelivered`` those of them
    that were leased more than once, ``pulls`` the pulls that wait. ``lease_s`` is the duration of
    a lease. ``at_ns`` is the moment by the server's clock, in Unix nanoseconds, 0 if it is not
    known (nats-server before 2.10).
    """

    created: str
    delivered: int
    deliveries: int
    waiting: int
    leased: int
    redelivered: int
    pulls: int
    lease_s: float
    at_ns: int = 0


class JetStream:
    """The API over a connection. Methods may raise `JetStreamError` and `connection.NatsError`."""

    def __init__(self, connection: NatsConnection, timeout_s: float = 2.0, api: str = API) -> None:
        """``api`` is the prefix of its subjects; not `API` if imported from another account."""
        self._connection = connection
        self._timeout_s = timeout_s
        self._api = api

    async def call(self, operation: str, document: dict[str, Any]) -> dict[str, Any]:
        """Send one API request and return the response."""
        reply = await self._connection.request(
            f"{self._api}.{operation}".encode(),
            orjson.dumps(document) if document else b"",
            self._timeout_s,
        )
        try:
            response: dict[str, Any] = orjson.loads(reply.payload)
        except orjson.JSONDecodeError as error:
            raise JetStreamError(0, f"the response to {operation} is not JSON") from error
        if refusal := response.get("error"):
            raise JetStreamError(refusal.get("err_code", 0), refusal.get("description", "?"))
        return response

    async def ensure(
        self, region: str, version_id: str, settings: StreamSettings, highest: int = 0
    ) -> int:
        """Create the stream and its consumer unless they exist; return the copies of a new stream.

        A stream or consumer with another configuration is not changed: an operator may have
        created it. The result is 0 if the stream exists. ``highest`` is the highest sequence that
        an earlier stream of this name is known to have used.
        """
        config = settings.stream(region, version_id)
        if settings.storage == "memory":
            # A stream on disk is not lost, except by nats-server 2.11 if it has a first sequence.
            config["first_seq"] = next_first_sequence(time.time(), highest)
        replicas = settings.replicas
        if not replicas:
            replicas = CLUSTER_REPLICAS if self._connection.is_clustered() else 1
        replicas = await self._create(config, replicas, is_fixed=bool(settings.replicas))
        await self.ensure_consumer(config["name"], settings)
        return replicas

    async def _create(self, config: dict[str, Any], replicas: int, *, is_fixed: bool) -> int:
        try:
            await self.call(f"STREAM.CREATE.{config['name']}", {**config, "num_replicas": replicas})
        except JetStreamError as error:
            if error.code == STREAM_NAME_IN_USE:
                return 0
            if is_fixed or error.code not in {NO_SUITABLE_PEERS, REPLICAS_NOT_SUPPORTED}:
                raise
            # A cluster with fewer servers than copies, or without JetStream on most of them.
            await self.call(f"STREAM.CREATE.{config['name']}", {**config, "num_replicas": 1})
            return 1
        return replicas

    async def ensure_consumer(self, stream: str, settings: StreamSettings) -> None:
        """Create the consumer of an existing stream unless it exists."""
        config = settings.consumer(stream)
        try:
            await self.call(
                f"CONSUMER.CREATE.{stream}.{config['name']}",
                {"stream_name": stream, "config": config, "action": "create"},
            )
        except JetStreamError as error:
            if error.code not in {CONSUMER_EXISTS, CONSUMER_NAME_EXISTS}:
                raise

    async def stream_state(self, stream: str) -> StreamState | None:
        """Return the state of the stream, `None` if it does not exist."""
        try:
            response = await self.call(f"STREAM.INFO.{stream}", {})
        except JetStreamError as error:
            if error.code == STREAM_NOT_FOUND:
                return None
            raise
        state = response["state"]
        return StreamState(
            response["created"],
            state["first_seq"],
            state["last_seq"],
            state["messages"],
            response["config"]["num_replicas"],
        )

    async def consumer_state(self, stream: str) -> QueueState | None:
        """Return the state of the stream's consumer, `None` if stream or consumer is missing."""
        try:
            response = await self.call(f"CONSUMER.INFO.{stream}.{consumer_name(stream)}", {})
        except JetStreamError as error:
            if error.code in {STREAM_NOT_FOUND, CONSUMER_NOT_FOUND}:
                return None
            raise
        return QueueState(
            response["created"],
            response["delivered"]["stream_seq"],
            response["delivered"]["consumer_seq"],
            response["num_pending"],
            response["num_ack_pending"],
            response["num_redelivered"],
            response["num_waiting"],
            response["config"].get("ack_wait", 0) / _SECOND_NS,
            _unix_ns(response.get("ts", "")),
        )

    async def raise_sequences(self, stream: str, sequence: int) -> None:
        """Let the next message of an empty stream have ``sequence``, which is above the last one.

        What was published meanwhile below ``sequence`` is removed.
        """
        await self.call(f"STREAM.PURGE.{stream}", {"seq": sequence})

    async def sequence_of(self, stream: str, subject: bytes) -> int:
        """Return the sequence of the message with this subject, 0 if there is none."""
        reply = await self._connection.request(
            f"{self._api}.DIRECT.GET.{stream}.".encode() + subject, b"", self._timeout_s
        )
        if status_of(reply.headers):
            return 0
        with suppress(TypeError, ValueError):
            return int(header_value(reply.headers, b"Nats-Sequence") or b"0")
        return 0


def next_first_sequence(now_s: float, highest: int) -> int:
    """Return the first sequence of a stream that begins a life at ``now_s``, Unix time.

    Each life of a stream has sequences of its own, so that an acknowledgement or a deletion from
    an earlier life meets no message. ``highest`` is the highest sequence that is known to have been
    used. Processes that notice the same loss within a few seconds get the same number.
    """
    granule = max(int(now_s) // _GRANULE_S, highest >> _GRANULE_BITS)
    return (granule + 1) << _GRANULE_BITS


def delete_message_subject(stream: str) -> bytes:
    """Return the subject to which `delete_message` is published."""
    return f"{API}.STREAM.MSG.DELETE.{stream}".encode()


def delete_message(sequence: int) -> bytes:
    """Return the request to delete one message without overwriting its memory."""
    return b'{"seq":%d,"no_erase":true}' % sequence


def purge_subject(stream: str) -> bytes:
    """Return the subject to which `purge_request` is published."""
    return f"{API}.STREAM.PURGE.{stream}".encode()


def purge_request(subject: bytes) -> bytes:
    """Return the request to remove the one message with this subject, if there is one."""
    return b'{"filter":"%b"}' % subject


def next_message_subject(stream: str, api: str = API) -> bytes:
    """Return the subject to which pulls from the stream's consumer are published."""
    return f"{api}.CONSUMER.MSG.NEXT.{stream}.{consumer_name(stream)}".encode()


def max_deliveries_subject() -> bytes:
    """Return the subject of the server's advisories about messages whose last delivery failed."""
    return b"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.*.*"


def naks_subject() -> bytes:
    """Return the subject of the server's advisories about leases that were given back."""
    return b"$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.*.*"


def _unix_ns(text: str) -> int:
    """Return a time of the server in Unix nanoseconds, to the microsecond; 0 for an empty text."""
    return int(datetime.fromisoformat(text).timestamp() * 1e6) * 1000 if text else 0
