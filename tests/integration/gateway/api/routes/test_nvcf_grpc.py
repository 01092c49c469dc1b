"""gRPC ``nvcf.Worker`` as NVIDIA's worker calls it, and which of its tokens log in to NATS."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from grpc import StatusCode

from gateway.api.nvcf_objects import NvcfObjects
from gateway.api.nvcf_workers import NvcfLogins, NvcfTokens, NvcfWorkers
from gateway.app.identity import Master
from gateway.dispatch.nvcf_grpc import GrpcAddresses, WorkerGrpcServer
from gateway.domain.model import InstanceKey, Phase
from gateway.domain.queued_request import QueuedRequest
from gateway.objects.large_responses import LargeResponseObjects
from queueing.interface import TokenRefused
from runtime.ids import new_uuid
from tests.support.certificates import Authority
from tests.support.control import SCOPES, Client, SetQueue
from tests.support.identity import Clock, IdentityPlane
from tests.support.nvcf_calls import NvcfCalls, NvcfIds, nvcf_calls
from tests.support.objects import local_objects
from tests.support.waiting import PATIENCE_S, until
from wire.nvcf_worker_pb2 import WorkerConnect

TOKENS = "/v2/nvcf/registrationTokens"


OTHER_REGION = "another"


class Grpc:
    """The service, and functions that wait for workers."""

    def __init__(self, plane: IdentityPlane, client: Client, key_file: Path, clock: Clock) -> None:
        self.plane = plane
        self.client = client
        self.tokens = NvcfTokens(plane.api.authenticate, plane.api.registrations, clock)
        self.workers = NvcfWorkers(
            replace(plane.api, other_regions=(OTHER_REGION,)),
            plane.workers,
            self.tokens,
            Master(key_file).signer,
            600.0,
        )
        large = LargeResponseObjects(
            local_objects(Path("/nonexistent")), max_bytes=0, lifetime_s=60.0, clock=clock
        )
        self.objects = NvcfObjects(plane.api, self.tokens, large, "http://10.0.0.1:8090")
        self.server = WorkerGrpcServer(self.workers, self.objects, GrpcAddresses(("127.0.0.1:0",)))
        self.logins = NvcfLogins(self.tokens, plane.catalog, 600.0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.ports[0]}"

    async def deployed(self, **changes: object) -> tuple[str, str]:
        ids = await self.client.deployed(backend="anywhere", gpu="A10G", **changes)
        await self.plane.catalog.until(lambda: self.plane.catalog.deployment(ids[1]) is not None)
        return ids

    async def token(self, function_id: str, version_id: str) -> tuple[str, str]:
        """Return a new registration token and its id."""
        path = f"{TOKENS}/functions/{function_id}/versions/{version_id}"
        made = await self.client.post(path, {})
        return made.body["token"], made.body["tokenId"]

    async def worker(self, name: str = "pod-7") -> tuple[NvcfIds, str, str]:
        """Return what a worker of a new version is started with, and its token's id."""
        ids = await self.deployed(maxInstances=1)
        token, token_id = await self.token(*ids)
        return NvcfIds(name, *ids), token, token_id


@pytest.fixture
async def served(plane: IdentityPlane, key_file: Path, clock: Clock) -> AsyncIterator[Grpc]:
    served = Grpc(plane, await plane.client("has-workers", SCOPES), key_file, clock)
    await served.server.start()
    yield served
    await served.server.stop()


async def status_of(calls: NvcfCalls) -> StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await calls.connect_once()
    return raised.value.code()


async def test_a_worker_connects_again_and_again_as_one_instance(served: Grpc) -> None:
    ids, token, token_id = await served.worker()
    catalog = served.plane.catalog
    async with nvcf_calls(served.address, token, ids) as calls:
        for _ in range(2):
            told = await calls.connect_once()
            assert told.connectedRegion == served.plane.api.region
            assert list(told.otherRegions) == [OTHER_REGION]
            assert told.expiration.seconds > time.time() + 60
            # A worker that starts again with what it has stored still registers.
            calls.token = told.nvcfWorkerToken
        for region in (told.connectedRegion, OTHER_REGION):
            await calls.provision(region)
    await catalog.until(lambda: len(catalog.instances(ids.version_id)) == 1)
    (instance,) = catalog.instances(ids.version_id)
    assert (instance.registered_with, instance.is_connected) == (token_id, True)
    assert instance.facts["pod"] == "pod-7"
    async with nvcf_calls(served.address, token, ids._replace(instance_id="pod-8")) as calls:
        assert await status_of(calls) is StatusCode.FAILED_PRECONDITION


async def test_it_gets_signed_statements_that_are_no_credentials(served: Grpc) -> None:
    ids, token, _ = await served.worker()
    async with nvcf_calls(served.address, token, ids) as calls:
        for response in (await calls.metadata(), await calls.secrets()):
            assert time.time() < response.expiration.seconds <= time.time() + 600
            told = await served.plane.holder(response.token).get("/v2/nvcf/functions")
            assert told.status == 401


async def test_a_worker_without_a_good_token_is_refused(served: Grpc, clock: Clock) -> None:
    ids, token, token_id = await served.worker()
    others, other_token, _ = await served.worker()
    for bad in ("", "nonsense", other_token, token[:-4] + "AAAA", "nvapi-x"):
        async with nvcf_calls(served.address, bad, ids) as calls:
            assert await status_of(calls) is StatusCode.PERMISSION_DENIED
    for wrong in (ids._replace(version_id=others.version_id), ids._replace(function_id="")):
        async with nvcf_calls(served.address, token, wrong) as calls:
            assert await status_of(calls) is StatusCode.PERMISSION_DENIED
    async with nvcf_calls(served.address, token, ids._replace(instance_id="")) as calls:
        assert await status_of(calls) is StatusCode.INVALID_ARGUMENT
    async with nvcf_calls(served.address, token, ids) as calls:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await calls.provision("elsewhere")
        assert raised.value.code() is StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await calls.call("StreamArtifacts", WorkerConnect(), WorkerConnect)
        assert raised.value.code() is StatusCode.UNIMPLEMENTED
        await calls.connect_once()
        await served.client.delete(f"{TOKENS}/{token_id}")
        await served.plane.until_revoked(ids.version_id, token_id)
        assert await status_of(calls) is StatusCode.PERMISSION_DENIED
    async with nvcf_calls(served.address, other_token, others) as calls:
        clock.ahead_s = 40 * 86_400.0
        assert await status_of(calls) is StatusCode.PERMISSION_DENIED


async def test_a_worker_asks_about_requests_of_its_own_version_only(served: Grpc) -> None:
    ids, token, _ = await served.worker()
    others, _, _ = await served.worker()
    mine, theirs, unknown = new_uuid(), new_uuid(), new_uuid()
    requests = served.plane.api.requests
    assert isinstance(requests, SetQueue)
    for request_id, its in ((mine, ids), (theirs, others)):
        found = QueuedRequest(its.function_id, its.version_id, "caller", 0, "https://outside")
        requests.in_line[request_id] = found
    async with nvcf_calls(served.address, token, ids) as calls:
        for request_id in (theirs, unknown, "", mine.upper()):
            for ask in (calls.large_upload, calls.large_download):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await ask(request_id)
                assert raised.value.code() is StatusCode.NOT_FOUND, request_id
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await calls.assets(request_id, [new_uuid()])
            assert raised.value.code() is StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await calls.assets(mine, ["not an id"])
        assert raised.value.code() is StatusCode.NOT_FOUND
        assert await calls.assets(mine, []) == []
    async with nvcf_calls(served.address, "nvapi-x", ids) as calls:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await calls.large_download(mine)
        assert raised.value.code() is StatusCode.PERMISSION_DENIED


async def test_a_stream_on_which_nothing_comes_ends(served: Grpc) -> None:
    """It takes one of the calls that the service has at a time, also without a token."""
    server = WorkerGrpcServer(
        served.workers, served.objects, GrpcAddresses(("127.0.0.1:0",)), stream_s=0.2
    )
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports[0]}") as channel:
            stream = channel.stream_stream("/nvcf.Worker/RefreshAssetDownloadCredentials")()
            async with asyncio.timeout(PATIENCE_S):
                assert await stream.code() is StatusCode.DEADLINE_EXCEEDED
    finally:
        await server.stop()


async def test_a_worker_that_is_to_stop_is_refused(served: Grpc) -> None:
    ids, token, _ = await served.worker()
    async with nvcf_calls(served.address, token, ids) as calls:
        await calls.connect_once()
        catalog, store = served.plane.catalog, served.plane.store
        await catalog.until(lambda: len(catalog.instances(ids.version_id)) == 1)
        (instance,) = catalog.instances(ids.version_id)
        found = await store.get(InstanceKey(ids.version_id, instance.instance_id))
        assert found is not None
        await store.put(replace(instance, phase=Phase.STOPPING), found[1])
        assert await status_of(calls) is StatusCode.PERMISSION_DENIED


async def test_a_worker_cannot_take_the_place_of_another(served: Grpc) -> None:
    ids, token, _ = await served.worker()
    other_token, other_id = await served.token(ids.function_id, ids.version_id)
    catalog = served.plane.catalog
    async with nvcf_calls(served.address, token, ids) as calls:
        await calls.connect_once()
    await catalog.until(lambda: len(catalog.instances(ids.version_id)) == 1)
    async with nvcf_calls(served.address, other_token, ids) as calls:
        assert await status_of(calls) is StatusCode.FAILED_PRECONDITION
        store = served.plane.store
        (instance,) = catalog.instances(ids.version_id)
        found = await store.get(InstanceKey(ids.version_id, instance.instance_id))
        assert found is not None
        await store.put(replace(instance, lease_until=0), found[1])
        await catalog.until(lambda: catalog.instances(ids.version_id)[0].lease_until == 0)
        await calls.connect_once()
    await catalog.until(lambda: catalog.instances(ids.version_id)[0].registered_with == other_id)


async def test_only_a_good_token_of_a_deployed_version_logs_in(served: Grpc, clock: Clock) -> None:
    ids, token, token_id = await served.worker()
    login = served.logins.check(token)
    assert login.version_id == ids.version_id
    assert login.expires_at <= clock() + 600.0
    idle = await served.client.create()
    idle_token, _ = await served.token(*idle)
    admin = await served.plane.client("somebody", SCOPES)
    assert admin is not None
    for bad in ("", "nonsense", "\x00\n", "ü", token + "x", idle_token, new_uuid()):
        with pytest.raises(TokenRefused):
            served.logins.check(bad)
    await served.client.delete(f"{TOKENS}/{token_id}")
    await served.plane.until_revoked(ids.version_id, token_id)
    with pytest.raises(TokenRefused, match="revoked"):
        served.logins.check(token)


async def test_the_service_speaks_tls_with_the_certificate_of_the_moment(
    served: Grpc, tmp_path: Path
) -> None:
    ids, token, _ = await served.worker()
    first = Authority(tmp_path)
    certificate, key = first.issue("gateway", "localhost")
    addresses = GrpcAddresses(("127.0.0.1:0",), certificate, key)
    server = WorkerGrpcServer(served.workers, served.objects, addresses)
    await server.start()
    address = f"localhost:{server.ports[0]}"
    try:
        async with nvcf_calls(address, token, ids, first.file.read_bytes()) as calls:
            await calls.connect_once()
        second = Authority(tmp_path)
        second.issue("gateway", "localhost")

        async def connects() -> bool:
            async with nvcf_calls(address, token, ids, second.file.read_bytes()) as calls:
                try:
                    await calls.connect_once()
                except grpc.aio.AioRpcError:
                    return False
                return True

        await until(connects)
    finally:
        await server.stop()
