"""The request envelope as its reader has it: `wire.envelope` says what it is."""

from typing import NamedTuple

from google.protobuf.message import DecodeError

from wire.envelope import EnvelopeError
from wire.headers import ONCE
from wire.nvcf_pb2 import WorkerInvokeFunctionRequest

_NS = 1_000_000_000
_ONCE = [ONCE]


class InputAssetReference(NamedTuple):
    """An asset that the call names as its input, and the URL from which the worker gets it."""

    asset_id: str
    url: str
    content_type: str


class EnvelopeHead:
    """What all envelopes of one head have in common, decoded.

    ``prepared`` is what its reader keeps for the next envelope with this head. An empty ``method``
    means that the whole request, head included, comes through GET attach
    (`docs/wire.md` §5.2). ``is_run_once``: the gateway is asked at each delivery, because it
    permits one run in all.
    """

    __slots__ = (
        "assets",
        "headers",
        "is_run_once",
        "max_direct_response_bytes",
        "method",
        "nca_id",
        "path",
        "prepared",
        "subject",
    )

    def __init__(self, message: WorkerInvokeFunctionRequest) -> None:
        self.prepared: object = None
        self.nca_id = message.ncaId
        self.subject = message.subject
        self.method = message.requestMethod.encode()
        self.path = message.requestPath.encode()
        self.headers = [
            (header.key.encode(), header.value.encode()) for header in message.requestHeaders
        ]
        if message.opaqueHeaderValues:
            self._restore(message)
        self.is_run_once = self.headers[-1:] == _ONCE
        self.max_direct_response_bytes = message.maxDirectResponseSizeBytes
        self.assets: tuple[InputAssetReference, ...] = ()
        if message.inputAssetReference:
            self.assets = tuple(
                InputAssetReference(asset.assetId, asset.reference, asset.contentType)
                for asset in message.inputAssetReference
            )

    def _restore(self, message: WorkerInvokeFunctionRequest) -> None:
        """Set the header values that are not UTF-8."""
        headers = self.headers
        for opaque in message.opaqueHeaderValues:
            if opaque.index < len(headers):
                headers[opaque.index] = (headers[opaque.index][0], opaque.value)


class Envelope:
    """A decoded envelope.

    ``requested_at_ns`` is Unix time in nanoseconds. ``target_uri`` is the address of the gateway
    process, scheme and authority. ``request_token`` is set if the body is longer than ``body``.
    ``stateful`` marks a session over a proxy, which has no single response. ``channel_token`` lets
    the worker open a channel to the gateway process; empty if it has none. ``channel_call`` is the
    number of a call that came over a channel, whose key both tokens are then; 0 otherwise.
    """

    __slots__ = (
        "body",
        "channel_call",
        "channel_token",
        "head",
        "headers",
        "max_direct_response_bytes",
        "method",
        "nca_id",
        "path",
        "request_id",
        "request_token",
        "requested_at_ns",
        "response_token",
        "stateful",
        "subject",
        "target_uri",
    )

    def __init__(  # noqa: PLR0913 - one argument per field
        self,
        head: EnvelopeHead,
        request_id: str,
        requested_at_ns: int,
        body: bytes,
        target_uri: bytes,
        response_token: str,
        request_token: str | None,
        *,
        stateful: bool = False,
        channel_token: str = "",
        channel_call: int = 0,
    ) -> None:
        self.head = head
        self.request_id = request_id
        self.nca_id = head.nca_id
        self.subject = head.subject
        self.requested_at_ns = requested_at_ns
        self.method = head.method
        self.path = head.path
        self.headers = head.headers
        self.body = body
        self.target_uri = target_uri
        self.response_token = response_token
        self.request_token = request_token
        self.stateful = stateful
        self.max_direct_response_bytes = head.max_direct_response_bytes
        self.channel_token = channel_token
        self.channel_call = channel_call


def decode_envelope(data: bytes) -> Envelope:
    """Decode an envelope. Raises `EnvelopeError` if ``data`` is not one, or lacks a field."""
    message = _parse(data)
    if not message.requestId:
        raise EnvelopeError("The envelope has no requestId")
    for config in message.statelessConfig.connectionConfigs:
        if config.HasField("http1Config"):
            attach = config.http1Config
            break
    else:
        raise EnvelopeError("The envelope has no HTTP/1 connection config")
    time = message.requestTime
    return Envelope(
        EnvelopeHead(message),
        message.requestId,
        time.seconds * _NS + time.nanos,
        message.requestBody,
        attach.targetURI.encode(),
        attach.responseAuthorizationToken,
        attach.requestAuthorizationToken or None,
        stateful=message.HasField("statefulConfig"),
        channel_token=message.channelToken,
    )


class ControlUrls(NamedTuple):
    """What gateways of NVCF say of their control plane, empty where they do not.

    ``large_response`` is where a large response is to be put, ``control_plane`` the address for
    questions about the request.
    """

    large_response: str
    control_plane: str


def decode_control_urls(data: bytes) -> ControlUrls:
    """Return the addresses in an encoded envelope; hardly any worker needs them.

    Raises `EnvelopeError`.
    """
    message = _parse(data)
    return ControlUrls(message.largeResponseUrl, message.directResponseUrl)


def decode_call_head(data: bytes) -> EnvelopeHead:
    """Decode what `encode_call_head` has encoded. Raises `EnvelopeError`."""
    return EnvelopeHead(_parse(data))


def _parse(data: bytes) -> WorkerInvokeFunctionRequest:
    try:
        return WorkerInvokeFunctionRequest.FromString(data)
    except DecodeError as error:
        raise EnvelopeError("The bytes are not a WorkerInvokeFunctionRequest") from error
