"""A client for long calls: an httpx transport over HTTP/2 that sends PINGs while a call is silent.

It is independent of the gateway: it needs httpx and h2, and nothing of the other packages.
"""

from invocation_client.async_queue_transport import AsyncQueueTransport
from invocation_client.async_transport import AsyncHttp2Transport
from invocation_client.cancellation import Cancellation
from invocation_client.nvcf import poll_seconds, request_id, status
from invocation_client.queue_updates import QueueUpdate
from invocation_client.sync_queue_transport import QueueTransport
from invocation_client.sync_transport import Http2Transport

__all__ = [
    "AsyncHttp2Transport",
    "AsyncQueueTransport",
    "Cancellation",
    "Http2Transport",
    "QueueTransport",
    "QueueUpdate",
    "poll_seconds",
    "request_id",
    "status",
]
