"""A control plane that speaks ``nvcf.Worker`` and says what a test sets, by grpcio."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from wire import nvcf_worker_pb2 as pb2


class StandInControl:
    """What it says, and which calls came: their names, messages and tokens."""

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.regions = ["us-west-1"]
        self.life_s = 3600.0
        self.refuses: grpc.StatusCode | None = None
        self.leaves_out: set[str] = set()
        """Assets that it does not renew."""
        self.calls: list[tuple[str, Any, str]] = []
        self.address = ""
        self._server: grpc.aio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def count(self, method: str) -> int:
        return sum(name == method for name, _, _ in self.calls)

    async def start(self) -> None:
        """Serve; at the address of the time before, if there was one."""
        server = self._server = grpc.aio.server()
        methods = {
            "ConnectOnce": (pb2.WorkerConnect, self._connect),
            "ProvisionRegionalWorker": (pb2.ProvisionWorkerRequest, self._provision),
            "RequestFunctionMetadataCredentials": (
                pb2.FunctionMetadataCredentialsRequest,
                self._statement,
            ),
            "RequestSecretCredentials": (pb2.SecretCredentialsRequest, self._statement),
            "RequestLargeResponseDownloadCredentials": (
                pb2.LargeResponseDownloadCredentialsRequest,
                self._download,
            ),
            "RefreshLargeUploadCredentials": (
                pb2.RefreshLargeUploadCredentialsRequest,
                self._upload,
            ),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._recorded(name, handle),
                request_deserializer=kind.FromString,
                response_serializer=lambda response: response.SerializeToString(),
            )
            for name, (kind, handle) in methods.items()
        }
        handlers["RefreshAssetDownloadCredentials"] = grpc.stream_stream_rpc_method_handler(
            self._assets,
            request_deserializer=pb2.RefreshAssetDownloadCredentialsRequest.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("nvcf.Worker", handlers),)
        )
        port = server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    def _recorded(self, name: str, handle: Any) -> Any:
        async def serve(message: Any, context: Any) -> Any:
            self.calls.append((name, message, token_of(context)))
            if self.refuses is not None:
                await context.abort(self.refuses, "as the test says")
            return handle(message)

        return serve

    def _connect(self, message: Any) -> Any:
        return pb2.WorkerConnectOnceResponse(
            connectedRegion=self.regions[0],
            otherRegions=self.regions[1:],
            nvcfWorkerToken=f"token-{self.count('ConnectOnce')}",
            expiration=self._end(),
        )

    def _provision(self, message: Any) -> Any:
        return pb2.ProvisionWorkerResponse()

    def _statement(self, message: Any) -> Any:
        return pb2.CredentialsResponse(token=f"of {message.functionId}", expiration=self._end())

    def _download(self, message: Any) -> Any:
        url = f"https://{self.name}/down/{message.ncaId}/{message.requestId}"
        return pb2.LargeResponseDownloadCredentialsResponse(url=url)

    def _upload(self, message: Any) -> Any:
        url = f"https://{self.name}/up/{message.requestId}"
        return pb2.RefreshLargeUploadCredentialsResponse(largeResponseUrl=url)

    async def _assets(self, messages: Any, context: Any) -> AsyncIterator[Any]:
        async for message in messages:
            self.calls.append(("assets", message, token_of(context)))
            if message.assetId in self.leaves_out:
                continue
            reference = pb2.AssetReference(
                assetId=message.assetId,
                reference=f"https://{self.name}/asset/{message.assetId}",
                contentType="image/png",
            )
            yield pb2.RefreshAssetDownloadCredentialsResponse(inputAssetReference=reference)

    def _end(self) -> Timestamp:
        found = Timestamp()
        found.FromNanoseconds(int((time.time() + self.life_s) * 1e9))
        return found


def token_of(context: Any) -> str:
    """Return the bearer token of a call."""
    return str(dict(context.invocation_metadata())["authorization"]).removeprefix("Bearer ")


@asynccontextmanager
async def control_plane(name: str = "main") -> AsyncIterator[StandInControl]:
    """Serve while the block runs."""
    plane = StandInControl(name)
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()
