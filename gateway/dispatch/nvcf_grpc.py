"""Serves gRPC ``nvcf.Worker``, which NVIDIA's workers call (`docs/wire.md` §19.3).

On addresses of its own, by grpcio's asyncio server, which only a process with such an address
loads. All processes of a gateway share them. A method that is not served is UNIMPLEMENTED.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.api.nvcf_objects import NvcfObjects, RequestOfVersion
from gateway.api.nvcf_workers import METADATA, SECRETS, Assertion, NvcfWorkers
from gateway.errors import GatewayError
from gateway.objects.references import MAX_REFERENCES
from http1.server.listener import ListenError
from queueing.interface import QueueError
from runtime.events import emit
from wire.nvcf_worker_pb2 import (
    AssetReference,
    CredentialsResponse,
    FunctionMetadataCredentialsRequest,
    LargeResponseDownloadCredentialsRequest,
    LargeResponseDownloadCredentialsResponse,
    ProvisionWorkerRequest,
    ProvisionWorkerResponse,
    RefreshAssetDownloadCredentialsRequest,
    RefreshAssetDownloadCredentialsResponse,
    RefreshLargeUploadCredentialsRequest,
    RefreshLargeUploadCredentialsResponse,
    SecretCredentialsRequest,
    WorkerConnect,
    WorkerConnectOnceResponse,
)

_SERVICE = "nvcf.Worker"
_MAX_CALLS = 256
"""Calls at a time; further ones get RESOURCE_EXHAUSTED."""
_MAX_MESSAGE_BYTES = 65_536
_STOP_S = 1.0
_STREAM_S = 30.0
"""Time for all messages of a stream, which takes one of the calls even if it says nothing."""
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # NVIDIA's workers send a PING every five minutes, also without a call.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
    ("grpc.so_reuseport", 1),
]
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    # As NVCF: a bad, expired or foreign token is PERMISSION_DENIED.
    401: grpc.StatusCode.PERMISSION_DENIED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    410: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}

_log = logging.getLogger("gateway.grpc")

Handle = Callable[[str, Any], Awaitable[Any]]
"""Returns the response to a call; the arguments are its token and its message."""


class GrpcAddresses(NamedTuple):
    """Where the service listens; ``certificate`` (PEM chain) and ``key`` are set for TLS."""

    listen: tuple[str, ...]
    certificate: Path | None = None
    key: Path | None = None


class WorkerGrpcServer:
    """The service. ``ports`` are those of its addresses."""

    def __init__(
        self,
        workers: NvcfWorkers,
        objects: NvcfObjects,
        addresses: GrpcAddresses,
        stream_s: float = _STREAM_S,
    ) -> None:
        """``stream_s`` is how long a stream may take."""
        self._stream_s = stream_s
        self._workers = workers
        self._objects = objects
        self._addresses = addresses
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        self.ports: list[int] = []

    async def start(self) -> None:
        """Begin to serve. Raises `ListenError`."""
        handlers = {
            "ConnectOnce": _method(WorkerConnect, self._connect),
            "ProvisionRegionalWorker": _method(ProvisionWorkerRequest, self._provision),
            "RequestFunctionMetadataCredentials": _method(
                FunctionMetadataCredentialsRequest, self._metadata
            ),
            "RequestSecretCredentials": _method(SecretCredentialsRequest, self._secrets),
            "RequestLargeResponseDownloadCredentials": _method(
                LargeResponseDownloadCredentialsRequest, self._large_download
            ),
            "RefreshLargeUploadCredentials": _method(
                RefreshLargeUploadCredentialsRequest, self._large_upload
            ),
            "RefreshAssetDownloadCredentials": _stream_method(
                RefreshAssetDownloadCredentialsRequest, self._asset, self._stream_s
            ),
        }
        handler = grpc.method_handlers_generic_handler(_SERVICE, handlers)
        self._server.add_generic_rpc_handlers((handler,))
        names = self._addresses.listen
        try:
            credentials = _credentials(self._addresses)
            for name in names:
                if credentials is None:
                    self.ports.append(self._server.add_insecure_port(name))
                else:
                    self.ports.append(self._server.add_secure_port(name, credentials))
            await self._server.start()
        except (RuntimeError, OSError) as error:
            raise ListenError(f"cannot serve gRPC on {', '.join(names)}: {error}") from error
        emit(_log, "grpc.ready", listen=names, ports=self.ports, tls=credentials is not None)

    async def stop(self) -> None:
        """Stop; running calls get a short while to finish."""
        await self._server.stop(_STOP_S)

    async def _connect(self, token: str, message: Any) -> WorkerConnectOnceResponse:
        session = await self._workers.connect(token, _ids_of(message))
        return WorkerConnectOnceResponse(
            connectedRegion=session.region,
            otherRegions=session.other_regions,
            nvcfWorkerToken=session.token.text,
            expiration=_timestamp(session.token.expires_at),
        )

    async def _provision(self, token: str, message: Any) -> ProvisionWorkerResponse:
        await self._workers.provision(token, _ids_of(message), message.regionToProvision)
        return ProvisionWorkerResponse()

    async def _metadata(self, token: str, message: Any) -> CredentialsResponse:
        return self._assert(token, message, METADATA)

    async def _secrets(self, token: str, message: Any) -> CredentialsResponse:
        return self._assert(token, message, SECRETS)

    async def _large_download(
        self, token: str, message: Any
    ) -> LargeResponseDownloadCredentialsResponse:
        url = await self._objects.download_url(token, _request_of(message))
        return LargeResponseDownloadCredentialsResponse(url=url)

    async def _large_upload(
        self, token: str, message: Any
    ) -> RefreshLargeUploadCredentialsResponse:
        url = await self._objects.upload_url(token, _request_of(message))
        return RefreshLargeUploadCredentialsResponse(largeResponseUrl=url)

    async def _asset(self, token: str, message: Any) -> RefreshAssetDownloadCredentialsResponse:
        found = await self._objects.asset(token, _request_of(message), message.assetId)
        reference = AssetReference(
            assetId=found.asset_id, reference=found.url, contentType=found.content_type
        )
        return RefreshAssetDownloadCredentialsResponse(inputAssetReference=reference)

    def _assert(self, token: str, message: Any, audience: str) -> CredentialsResponse:
        made: Assertion = self._workers.assertion(
            token, message.functionId, message.functionVersionId, audience
        )
        return CredentialsResponse(token=made.token, expiration=_timestamp(made.expires_at))


def _method(request: Any, handle: Handle) -> grpc.RpcMethodHandler:
    async def serve(message: Any, context: Any) -> Any:
        return await _respond(handle, message, context)

    return grpc.unary_unary_rpc_method_handler(
        serve,
        request_deserializer=request.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )


def _stream_method(request: Any, handle: Handle, stream_s: float) -> grpc.RpcMethodHandler:
    """Respond to each message of a stream, to as many as a request has input assets.

    A stream that has not ended after ``stream_s`` is DEADLINE_EXCEEDED.
    """

    async def serve(messages: Any, context: Any) -> AsyncIterator[Any]:
        ends_at = asyncio.get_running_loop().time() + stream_s
        found, count = aiter(messages), 0
        while True:
            message = None
            try:
                async with asyncio.timeout_at(ends_at):
                    message = await anext(found, None)
            except TimeoutError:
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"A stream may take {stream_s:g} s"
                )
            if message is None:
                return
            count += 1
            if count > MAX_REFERENCES:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, f"More than {MAX_REFERENCES} messages"
                )
            yield await _respond(handle, message, context)

    return grpc.stream_stream_rpc_method_handler(
        serve,
        request_deserializer=request.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )


async def _respond(handle: Handle, message: Any, context: Any) -> Any:
    """Return the response to a message, or end the call with a status."""
    try:
        return await handle(_token_of(context), message)
    except GatewayError as error:
        status = _STATUS.get(error.status, grpc.StatusCode.INTERNAL)
        await context.abort(status, error.detail)
    except QueueError:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The queue is not available")


def _token_of(context: Any) -> str:
    """Return the bearer token of a call, empty if there is none."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:].strip()
    return ""


def _ids_of(message: Any) -> tuple[str, str, str]:
    return message.instanceId, message.functionId, message.functionVersionId


def _request_of(message: Any) -> RequestOfVersion:
    return RequestOfVersion(message.requestId, message.functionId, message.functionVersionId)


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds))


def _credentials(addresses: GrpcAddresses) -> grpc.ServerCredentials | None:
    """Return the certificate, read again for new connections when a file changes."""
    certificate, key = addresses.certificate, addresses.key
    if certificate is None or key is None:
        return None
    read = (0, 0)

    def configuration() -> grpc.ServerCertificateConfiguration | None:
        nonlocal read
        try:
            written = (certificate.stat().st_mtime_ns, key.stat().st_mtime_ns)
            if written == read:
                return None
            pair = (key.read_bytes(), certificate.read_bytes())
        except OSError as error:
            emit(_log, "grpc.certificate_unreadable", logging.WARNING, error=str(error))
            return None
        read = written
        return grpc.ssl_server_certificate_configuration([pair])

    first = configuration()
    if first is None:
        raise OSError(f"cannot read {certificate} and {key}")
    return grpc.dynamic_ssl_server_credentials(first, configuration)
