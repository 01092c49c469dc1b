"""The gRPC calls of NVIDIA's worker to the control plane, by grpcio."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import grpc.aio

from tests.support.waiting import PATIENCE_S
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


class NvcfIds(NamedTuple):
    """What the environment of a worker says: INSTANCE_ID, FUNCTION_ID, FUNCTION_VERSION_ID."""

    instance_id: str
    function_id: str
    version_id: str


class NvcfCalls:
    """The calls, with one token after another."""

    def __init__(self, channel: grpc.aio.Channel, token: str, ids: NvcfIds) -> None:
        self._channel = channel
        self.token = token
        self.ids = ids

    async def connect_once(self) -> Any:
        message = WorkerConnect(
            instanceId=self.ids.instance_id,
            functionId=self.ids.function_id,
            functionVersionId=self.ids.version_id,
        )
        return await self.call("ConnectOnce", message, WorkerConnectOnceResponse)

    async def provision(self, region: str) -> Any:
        message = ProvisionWorkerRequest(
            instanceId=self.ids.instance_id,
            functionId=self.ids.function_id,
            functionVersionId=self.ids.version_id,
            regionToProvision=region,
        )
        return await self.call("ProvisionRegionalWorker", message, ProvisionWorkerResponse)

    async def metadata(self) -> Any:
        message = FunctionMetadataCredentialsRequest(
            ncaId="owner", functionId=self.ids.function_id, functionVersionId=self.ids.version_id
        )
        return await self.call("RequestFunctionMetadataCredentials", message, CredentialsResponse)

    async def secrets(self) -> Any:
        message = SecretCredentialsRequest(
            functionId=self.ids.function_id, functionVersionId=self.ids.version_id
        )
        return await self.call("RequestSecretCredentials", message, CredentialsResponse)

    async def large_upload(self, request_id: str) -> str:
        message = RefreshLargeUploadCredentialsRequest(
            requestId=request_id,
            functionId=self.ids.function_id,
            functionVersionId=self.ids.version_id,
        )
        found = await self.call(
            "RefreshLargeUploadCredentials", message, RefreshLargeUploadCredentialsResponse
        )
        return str(found.largeResponseUrl)

    async def large_download(self, request_id: str) -> str:
        message = LargeResponseDownloadCredentialsRequest(
            functionId=self.ids.function_id,
            functionVersionId=self.ids.version_id,
            requestId=request_id,
            ncaId="of anyone",
        )
        found = await self.call(
            "RequestLargeResponseDownloadCredentials",
            message,
            LargeResponseDownloadCredentialsResponse,
        )
        return str(found.url)

    async def assets(self, request_id: str, asset_ids: Sequence[str]) -> list[Any]:
        """Send one message for each asset, then wait for the responses."""
        called = self._channel.stream_stream(
            "/nvcf.Worker/RefreshAssetDownloadCredentials",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=RefreshAssetDownloadCredentialsResponse.FromString,
        )
        messages = [
            RefreshAssetDownloadCredentialsRequest(
                requestId=request_id,
                functionId=self.ids.function_id,
                functionVersionId=self.ids.version_id,
                assetId=asset_id,
            )
            for asset_id in asset_ids
        ]
        stream = called(iter(messages), metadata=self._metadata(), timeout=PATIENCE_S)
        return [response.inputAssetReference async for response in stream]

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    async def call(self, method: str, message: Any, response: Any) -> Any:
        """Return the response. Raises `grpc.aio.AioRpcError`."""
        called = self._channel.unary_unary(
            f"/nvcf.Worker/{method}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return await called(message, metadata=self._metadata(), timeout=PATIENCE_S)


@asynccontextmanager
async def nvcf_calls(
    address: str, token: str, ids: NvcfIds, ca: bytes | None = None
) -> AsyncIterator[NvcfCalls]:
    """Connect to ``address``, with TLS if the authority ``ca`` is given."""
    if ca is None:
        channel = grpc.aio.insecure_channel(address)
    else:
        channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca))
    async with channel:
        yield NvcfCalls(channel, token, ids)
