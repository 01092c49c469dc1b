"""The agent's side of ``nvcf.Worker``, against a control plane that behaves as NVIDIA's."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from runtime.lifecycle import Lifecycle
from runtime.settings import load
from tests.support.nvcf_control import StandInControl, control_plane
from tests.support.waiting import until
from wire.decoded_envelope import InputAssetReference, decode_envelope
from wire.nvcf_pb2 import WorkerInvokeFunctionRequest
from worker_agent.compat.transfers import ResponseUrls, TransferError
from worker_agent.nvcf.membership import NvcfMembership
from worker_agent.registration import ConnectError
from worker_agent.settings import ENV_PREFIX, NVCF_ALIASES, WorkerSettings

FUNCTION = "01234567-89ab-4def-8123-456789abcdef"
VERSION = "11234567-89ab-4def-8123-456789abcdef"
ASSETS = ["21234567-89ab-4def-8123-456789abcdef", "31234567-89ab-4def-8123-456789abcdef"]


class Member:
    """An agent's membership, with what it is told."""

    def __init__(self, plane: StandInControl, folder: Path, refused_s: float = 300.0) -> None:
        self.folder = folder
        environ = {
            "NVCF_FQDN_GRPC": plane.url,
            "NVCF_WORKER_TOKEN": "the first token",
            "FUNCTION_ID": FUNCTION,
            "FUNCTION_VERSION_ID": VERSION,
            "INSTANCE_ID": "pod-1",
            "NCA_ID": "owner",
            "SHARED_CONFIG_DIR": str(folder / "shared"),
            "WORKER_NVCF__METADATA_FILE": str(folder / "info" / "self"),
        }
        settings = load(WorkerSettings, None, ENV_PREFIX, environ=environ, aliases=NVCF_ALIASES)
        self.stopped: list[str] = []
        self.stack = AsyncExitStack()
        self.membership = NvcfMembership(settings, self.stopped.append, refused_s)


@pytest.fixture
async def plane() -> AsyncIterator[StandInControl]:
    async with control_plane() as plane:
        yield plane


@pytest.fixture
async def member(plane: StandInControl, tmp_path: Path) -> AsyncIterator[Member]:
    member = Member(plane, tmp_path)
    async with member.stack:
        yield member


async def test_it_gets_region_and_token_and_keeps_both_fresh(
    plane: StandInControl, member: Member
) -> None:
    plane.life_s = 4.0
    found = await member.membership.begin(member.stack, Lifecycle())
    assert found is not None
    assert (found.region, found.token) == ("us-west-1", "token-1")
    name, message, token = plane.calls[0]
    assert (name, token, message.instanceId) == ("ConnectOnce", "the first token", "pod-1")
    assert (plane.calls[1][0], plane.calls[1][1].regionToProvision, plane.calls[1][2]) == (
        "ProvisionRegionalWorker",
        "us-west-1",
        "token-1",
    )
    await until(lambda: plane.count("ConnectOnce") >= 2)
    tokens = [token for name, _, token in plane.calls if name == "ConnectOnce"]
    assert tokens[:2] == ["the first token", "token-1"]
    kept = member.folder / "shared" / "nvcf-worker-token.json"

    def is_renewed() -> bool:
        return bool(json.loads(kept.read_text())["access_token"] != "token-1")

    await until(is_renewed)
    assert kept.stat().st_mode & 0o777 == 0o600
    statement = member.folder / "info" / "self"
    await until(statement.exists)
    assert statement.read_text() == f"of {FUNCTION}"


async def test_a_control_plane_that_is_away_is_ridden_out(
    plane: StandInControl, member: Member
) -> None:
    plane.life_s = 4.0
    await member.membership.begin(member.stack, Lifecycle())
    await plane.stop()
    await until(lambda: member.membership.is_renewal_failing)
    await plane.start()
    await until(lambda: not member.membership.is_renewal_failing)
    assert member.stopped == []


async def test_a_worker_that_is_refused_for_long_drains(
    plane: StandInControl, tmp_path: Path
) -> None:
    member = Member(plane, tmp_path, 0.5)
    plane.life_s = 4.0
    async with member.stack:
        await member.membership.begin(member.stack, Lifecycle())
        plane.refuses = grpc.StatusCode.PERMISSION_DENIED
        await until(lambda: member.stopped)
    assert "PERMISSION_DENIED" in member.stopped[0]


async def test_a_worker_that_was_never_let_in_gives_up(
    plane: StandInControl, tmp_path: Path
) -> None:
    member = Member(plane, tmp_path, 0.5)
    plane.refuses = grpc.StatusCode.PERMISSION_DENIED
    async with member.stack:
        with pytest.raises(ConnectError, match="PERMISSION_DENIED"):
            await member.membership.begin(member.stack, Lifecycle())


async def test_another_region_makes_it_start_again(plane: StandInControl, member: Member) -> None:
    plane.life_s = 4.0
    await member.membership.begin(member.stack, Lifecycle())
    plane.regions = ["eu-north-1"]
    await until(lambda: member.stopped)
    assert "region" in member.stopped[0]


def encoded(age_s: float, regional: str = "", upload: str = "") -> bytes:
    """Return the envelope of a request that was made ``age_s`` ago."""
    message = WorkerInvokeFunctionRequest(
        requestId="a request", ncaId="caller", largeResponseUrl=upload, directResponseUrl=regional
    )
    message.requestTime.FromNanoseconds(int((time.time() - age_s) * 1e9))
    config = message.statelessConfig.connectionConfigs.add().http1Config
    config.targetURI, config.responseAuthorizationToken = "http://gateway", "t"
    for asset_id in ASSETS:
        message.inputAssetReference.add(assetId=asset_id, reference="https://first", contentType="")
    return message.SerializeToString()


async def test_large_responses_go_where_the_control_plane_of_the_region_says(
    plane: StandInControl, member: Member
) -> None:
    objects = member.membership.objects
    async with member.stack, control_plane("region") as region:
        await member.membership.begin(member.stack, Lifecycle())
        down = "https://main/down/caller/a request"
        for age_s, upload, expected in (
            (0, "https://in.envelope", "https://in.envelope"),
            (0, "", "https://region/up/a request"),
            (1900, "https://in.envelope", "https://region/up/a request"),
        ):
            data = encoded(age_s, region.url, upload)
            found = await objects.response_urls(decode_envelope(data), data)
            assert found == ResponseUrls(expected, down)
        data = encoded(0)
        found = await objects.response_urls(decode_envelope(data), data)
        assert found.upload == "https://main/up/a request"


async def test_assets_of_an_old_request_get_new_urls(plane: StandInControl, member: Member) -> None:
    objects = member.membership.objects
    await member.membership.begin(member.stack, Lifecycle())
    fresh, old = encoded(0), encoded(1900)
    assert {one.url for one in await objects.assets(decode_envelope(fresh), fresh)} == {
        "https://first"
    }
    assert plane.count("assets") == 0
    assert list(await objects.assets(decode_envelope(old), old)) == [
        InputAssetReference(asset_id, f"https://main/asset/{asset_id}", "image/png")
        for asset_id in ASSETS
    ]
    plane.leaves_out = {ASSETS[1]}
    with pytest.raises(TransferError):
        await objects.assets(decode_envelope(old), old)
