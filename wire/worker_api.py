"""What the gateway and the worker agent agree on: paths, documents and bounds.

A worker connects with the token of its instance and gets the region of its queue, credentials for
the queue's broker and the duration of its lease; it keeps the lease with heartbeats. Both responses
give the number of requests that the worker should process at a time, and may tell it to stop. A
worker that somebody else has started registers first, as a new instance. Responses to invocations
go to the attach path of the gateway process that published the request.
"""

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

CONNECT_PATH = "/v2/nvcf/worker/connect"
HEARTBEAT_PATH = "/v2/nvcf/worker/heartbeat"
ATTACH_PATH = b"/v2/nvcf/worker/request-attach"
RUN_PATH = b"/v2/nvcf/worker/request-run"
"""Where a worker asks about a request that was delivered again (`docs/wire.md` §5.5)."""
CHANNEL_PATH = b"/v2/nvcf/worker/channel"
"""Where a worker opens a channel to the gateway process (`docs/wire.md` §20)."""
LARGE_RESPONSE_PATH = b"/v2/nvcf/worker/large-response"
"""Where a worker asks where to put a response that is too large for the gateway process."""

MAX_CONCURRENCY = 16_384
"""The most requests that one worker processes at a time (`docs/wire.md` §11.1)."""


REGISTRATION_AUDIENCE = "urn:nvcf:gateway:registration"
"""The claim ``aud`` of a token with which a worker registers, before it has one of its own."""


class ConnectRequest(TypedDict):
    """The body of a connect. The three ids must be those of the token.

    None is required with a registration token.
    """

    instanceId: NotRequired[str]
    functionId: NotRequired[str]
    functionVersionId: NotRequired[str]
    worker: NotRequired[Mapping[str, object]]
    """What the worker tells of itself (`docs/wire.md` §19.2)."""


class ConnectResponse(TypedDict):
    """The response to a connect; it replaces an earlier one.

    Further members are credentials for the broker, see
    `queueing.interface.WorkerCredentials.issue`. Without any, the worker logs in as configured.
    """

    region: str
    """Part of the name of the worker's queue."""
    otherRegions: NotRequired[Sequence[str]]
    """Regions whose queues the worker serves while its own is empty; absent: none."""
    token: str
    """The token for the next calls."""
    expiresInSeconds: float
    """Remaining life of token and credentials, in seconds."""
    leaseSeconds: float
    """The worker counts as lost after this time without a heartbeat, in seconds."""
    maxRequestConcurrency: NotRequired[int]
    """Requests to process at a time, up to `MAX_CONCURRENCY`; absent: unchanged."""
    stop: NotRequired[str]
    """Why the worker is to finish its requests and to exit; absent: it is not."""
    instanceId: NotRequired[str]
    """This and the next three: of a registration only."""
    functionId: NotRequired[str]
    functionVersionId: NotRequired[str]
    environment: NotRequired[Mapping[str, str]]
    """Settings of the worker, as environment variables; its own win."""


class LargeResponseUrls(TypedDict):
    """The response to a worker that has a large response."""

    uploadUrl: str
    """Where the worker puts the response, one PUT with its length and content type."""
    downloadUrl: str
    """Where the client gets it."""


class HeartbeatRequest(TypedDict):
    """The body of a heartbeat."""

    instanceId: str
    healthy: bool
    """Whether the inference server can process requests."""
    slots: int
    """Requests that the worker processes at a time."""
    busy: int
    """Requests in progress; at least 1 when any was in progress since the last heartbeat."""
    stopping: NotRequired[bool]
    """Whether the worker takes no further requests and ends when none is left."""
    gone: NotRequired[bool]
    """Whether none is left, and this is its last heartbeat."""


class HeartbeatResponse(TypedDict):
    """The response to a heartbeat: the lease is renewed."""

    leaseSeconds: float
    maxRequestConcurrency: NotRequired[int]
    stop: NotRequired[str]


def claims_of(token: str) -> Mapping[str, object]:
    """Return what a token says of itself, nothing if it is none; the API checks whether it is."""
    try:
        claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
