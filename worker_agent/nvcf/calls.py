"""The calls of gRPC ``nvcf.Worker``, as NVIDIA's control plane serves them (`docs/wire.md` §8.8).

Source: `docs/wire.md` §19.3 has the messages. Every call has a deadline, and is made once.
"""

import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import grpc.aio

from wire.decoded_envelope import InputAssetReference
from wire.nvcf_worker_pb2 import (
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

DEADLINE_S = 20.0
_MAX_REGIONAL = 8
"""Connections to control planes of other regions; the one that is opened first is closed first."""
_OPTIONS = [
    ("grpc.max_receive_message_length", 10 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_REFUSALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "NOT_FOUND"})


class NvcfCallError(Exception):
    """A call failed. ``is_refusal``: the control plane does not want this worker, or its token."""

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


class WorkerIds(NamedTuple):
    """Who calls: as the environment of NVIDIA's worker says."""

    instance_id: str
    function_id: str
    version_id: str


class NvcfSession(NamedTuple):
    """What ConnectOnce gave. ``expires_at`` is in Unix seconds."""

    region: str
    other_regions: tuple[str, ...]
    token: str
    expires_at: float


class Statement(NamedTuple):
    """A signed statement about the function, and its end in Unix seconds."""

    text: str
    expires_at: float


class NvcfCalls:
    """The calls of one worker; ``token`` returns its token of the moment."""

    def __init__(
        self, url: str, ids: WorkerIds, token: Callable[[], str], ca_file: Path | None = None
    ) -> None:
        """``url`` is ``http://`` or ``https://``; the latter with the authorities of ``ca_file``.

        Without the file, with those of the system.
        """
        self.ids = ids
        self._url = url
        self._token = token
        self._ca_file = ca_file
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def connect_once(self) -> NvcfSession:
        """Register, and get the region and a token. Raises `NvcfCallError`."""
        ids = self.ids
        message = WorkerConnect(
            instanceId=ids.instance_id, functionId=ids.function_id, functionVersionId=ids.version_id
        )
        found = await self._call("ConnectOnce", message, WorkerConnectOnceResponse)
        if not found.connectedRegion or not found.nvcfWorkerToken:
            raise NvcfCallError("the response to ConnectOnce has no region or no token")
        return NvcfSession(
            found.connectedRegion,
            tuple(found.otherRegions),
            found.nvcfWorkerToken,
            _unix_seconds(found.expiration),
        )

    async def provision(self, region: str) -> None:
        """Have the queue of the version made in ``region``. Raises `NvcfCallError`."""
        ids = self.ids
        message = ProvisionWorkerRequest(
            instanceId=ids.instance_id,
            functionId=ids.function_id,
            functionVersionId=ids.version_id,
            regionToProvision=region,
        )
        await self._call("ProvisionRegionalWorker", message, ProvisionWorkerResponse)

    async def metadata_statement(self, account: str) -> Statement:
        """Return what reads the function's metadata. Raises `NvcfCallError`."""
        message = FunctionMetadataCredentialsRequest(
            ncaId=account,
            functionId=self.ids.function_id,
            functionVersionId=self.ids.version_id,
        )
        return await self._statement("RequestFunctionMetadataCredentials", message)

    async def secrets_statement(self) -> Statement:
        """Return what reads the function's secrets. Raises `NvcfCallError`."""
        message = SecretCredentialsRequest(
            functionId=self.ids.function_id, functionVersionId=self.ids.version_id
        )
        return await self._statement("RequestSecretCredentials", message)

    async def large_download_url(self, request_id: str, account: str) -> str:
        """Return where the client gets a large response. Raises `NvcfCallError`."""
        message = LargeResponseDownloadCredentialsRequest(
            functionId=self.ids.function_id,
            functionVersionId=self.ids.version_id,
            requestId=request_id,
            ncaId=account,
        )
        found = await self._call(
            "RequestLargeResponseDownloadCredentials",
            message,
            LargeResponseDownloadCredentialsResponse,
        )
        return str(found.url)

    async def large_upload_url(self, request_id: str, regional_url: str) -> str:
        """Return where a large response is put, by the control plane of the request's region.

        Raises `NvcfCallError`.
        """
        message = RefreshLargeUploadCredentialsRequest(
            requestId=request_id,
            functionId=self.ids.function_id,
            functionVersionId=self.ids.version_id,
        )
        found = await self._call(
            "RefreshLargeUploadCredentials",
            message,
            RefreshLargeUploadCredentialsResponse,
            regional_url,
        )
        return str(found.largeResponseUrl)

    async def assets(
        self, request_id: str, asset_ids: Sequence[str], regional_url: str
    ) -> tuple[InputAssetReference, ...]:
        """Return input assets with new URLs, in any order. Raises `NvcfCallError`."""

        def messages() -> Iterator[RefreshAssetDownloadCredentialsRequest]:
            for asset_id in asset_ids:
                yield RefreshAssetDownloadCredentialsRequest(
                    requestId=request_id,
                    functionId=self.ids.function_id,
                    functionVersionId=self.ids.version_id,
                    assetId=asset_id,
                )

        method = "RefreshAssetDownloadCredentials"
        called = self._channel(regional_url).stream_stream(
            f"/nvcf.Worker/{method}",
            request_serializer=_serialize,
            response_deserializer=RefreshAssetDownloadCredentialsResponse.FromString,
        )
        try:
            stream = called(messages(), metadata=self._metadata(), timeout=DEADLINE_S)
            found = [response.inputAssetReference async for response in stream]
        except grpc.aio.AioRpcError as error:
            raise _error(method, error) from error
        return tuple(
            InputAssetReference(one.assetId, one.reference, one.contentType) for one in found
        )

    async def close(self) -> None:
        """Close every connection."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _statement(self, method: str, message: Any) -> Statement:
        found = await self._call(method, message, CredentialsResponse)
        return Statement(found.token, _unix_seconds(found.expiration))

    async def _call(self, method: str, message: Any, response: Any, url: str = "") -> Any:
        called = self._channel(url).unary_unary(
            f"/nvcf.Worker/{method}",
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )
        try:
            return await called(message, metadata=self._metadata(), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise _error(method, error) from error

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token()}"),)

    def _channel(self, url: str) -> grpc.aio.Channel:
        url = url or self._url
        channel = self._channels.get(url)
        if channel is None:
            regional = [known for known in self._channels if known != self._url]
            if url != self._url and len(regional) >= _MAX_REGIONAL:
                self._channels.pop(regional[0])
            channel = self._channels[url] = _open(url, self._ca_file)
        return channel


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _unix_seconds(timestamp: Any) -> float:
    return float(timestamp.seconds + timestamp.nanos * 1e-9)


def _error(method: str, error: grpc.aio.AioRpcError) -> NvcfCallError:
    status = error.code().name
    text = f"{method}: {status}: {(error.details() or '')[:200]}"
    return NvcfCallError(text, is_refusal=status in _REFUSALS)


def _open(url: str, ca_file: Path | None) -> grpc.aio.Channel:
    """Return a channel, which connects when it is used. Raises `NvcfCallError`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise NvcfCallError("the control plane's URL has no valid port") from error
    if not host:
        raise NvcfCallError("the control plane's URL has no host")
    host = f"[{host}]" if ":" in host else host
    if parts.scheme != "https":
        return grpc.aio.insecure_channel(f"{host}:{port or 80}", _OPTIONS)
    credentials = grpc.ssl_channel_credentials(_authorities(ca_file))
    return grpc.aio.secure_channel(f"{host}:{port or 443}", credentials, _OPTIONS)


def _authorities(ca_file: Path | None) -> bytes | None:
    """Return the trusted authorities; `None` for those that grpcio brings."""
    path = ca_file or ssl.get_default_verify_paths().cafile
    return None if path is None else Path(path).read_bytes()
