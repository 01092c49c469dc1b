"""NVIDIA's worker as an external worker, without anything in between."""

import io
import os
import zipfile
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import httpx
import pytest
from grpc import StatusCode

from tests.support.control_plane import V2
from tests.support.nvidia_world import running_nvidia_world
from tests.support.waiting import PATIENCE_S, until


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["callout", "open"])
async def test_nvidias_workers_make_a_version_active_and_answer_its_calls(
    kind: str, tmp_path: Path
) -> None:
    async with running_nvidia_world(kind, tmp_path) as world, AsyncExitStack() as stack:
        one = await world.worker(stack, "pod-1")
        async with AsyncExitStack() as leaving:
            await world.worker(leaving, "pod-2")
            await world.until_status("ACTIVE")
            answers = [await world.invoke(b"hello") for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 6
            assert {answer.json()["body"] for answer in answers} == {"hello"}
        await world.until_status("DEGRADING")
        answer = await world.invoke(b"again")
        assert answer.json() == {"worker": "pod-1", "body": "again"}
        await world.plane.call("DELETE", f"registrationTokens/{world.token_id}")

        async def is_refused() -> bool:
            try:
                await one.calls.connect_once()
            except grpc.aio.AioRpcError as error:
                return error.code() is StatusCode.PERMISSION_DENIED
            return False

        await until(is_refused)
        if kind == "callout":
            await until(lambda: one.client.is_closed, timeout_s=2 * PATIENCE_S)
            await world.until_status("DEGRADED")


@pytest.mark.timeout(180)
async def test_nvidias_worker_gets_assets_and_stores_a_large_response(tmp_path: Path) -> None:
    async with running_nvidia_world("open", tmp_path) as world, AsyncExitStack() as stack:
        for name in ("pod-1", "pod-2"):
            await world.worker(stack, name)
        await world.until_status("ACTIVE")
        body = os.urandom(6_000_000)
        made = await world.plane.call(
            "POST", "assets", {"contentType": "image/png", "description": "a picture"}
        )
        upload = await world.plane.api.put(
            made["uploadUrl"],
            content=body,
            headers={
                "content-type": "image/png",
                "x-amz-meta-nvcf-asset-description": "a picture",
                "authorization": "",
            },
        )
        assert upload.status_code == 200, upload.text
        redirected = await world.plane.api.post(
            f"{V2}/pexec/functions/{world.plane.function_id}",
            content=b"{}",
            headers={"nvcf-input-asset-references": made["assetId"]},
        )
        assert redirected.status_code == 302, redirected.text
        location = redirected.headers["location"]
        assert location.startswith(str(world.plane.api.base_url))
        async with httpx.AsyncClient() as client:
            packed = await client.get(location)
        with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
            (name,) = archive.namelist()
            assert name == f"{redirected.headers['nvcf-reqid']}.response"
            assert archive.read(name) == body
