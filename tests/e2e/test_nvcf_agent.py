"""Our agent as a worker of a control plane that speaks ``nvcf.Worker``, with NVIDIA's variables."""

import asyncio
import io
import json
import os
import signal
import zipfile
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.control_plane import V2
from tests.support.nvidia_world import NvidiaWorld, running_nvidia_world
from tests.support.programs import Program, worker_agent
from tests.support.raw_server import HEALTHY, Peer, RawServer
from tests.support.waiting import PATIENCE_S, until


class Container:
    """A function's server: its response by the path, a large one to `/large`."""

    def __init__(self) -> None:
        self.large = os.urandom(6_000_000)
        self.later = asyncio.Event()
        self.request_ids: list[str] = []
        self.server = RawServer(self._serve)

    async def _serve(self, peer: Peer) -> None:
        while head := await peer.head():
            lines = [line.partition(": ") for line in head.decode().split("\r\n")]
            values = {name.lower(): value for name, _, value in lines}
            if " /v2/health/ready " in head.decode():
                await peer.send(HEALTHY)
                continue
            asked = await peer.reader.readexactly(int(values.get("content-length", 0)))
            if head.startswith(b"POST"):
                self.request_ids.append(values["nvcf-reqid"])
            await peer.send(self._response(head, asked))

    def _response(self, head: bytes, asked: bytes) -> bytes:
        if head.startswith(b"GET"):
            # A poll of what was accepted with 202.
            return http_response(200, b"later") if self.later.is_set() else http_response(202, b"")
        if asked == b"large":
            return http_response(200, self.large)
        if asked == b"fails":
            return http_response(422, b'{"error": "no such picture"}')
        return http_response(202 if asked == b"accept" else 200, b"hello")


def http_response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def start_agent(world: NvidiaWorld, container: Container, folder: Path, **env: str) -> Program:
    """Start an agent as NVIDIA's cluster agent would start theirs."""
    return worker_agent(
        {
            "NVCF_FQDN_GRPC": f"http://{world.grpc_address}",
            "NVCF_FQDN_NATS": world.nats_url,
            "NVCF_WORKER_TOKEN": world.token,
            "FUNCTION_ID": world.plane.function_id,
            "FUNCTION_VERSION_ID": world.plane.version_id,
            "INSTANCE_ID": "pod-1",
            "NCA_ID": "the owner",
            "INFERENCE_PORT": str(container.server.port),
            "MAX_REQUEST_CONCURRENCY": "4",
            "SHARED_CONFIG_DIR": str(folder / "shared"),
            "ESS_AGENT_CONFIG_DIR": str(folder / "ess"),
            "SECRETS_ASSERTION_TOKEN": "any",
            "BASE_ASSET_DIR": str(folder / "assets"),
            "BASE_RESPONSE_DIR": str(folder / "output"),
            "WORKER_NVCF__METADATA_FILE": str(folder / "info" / "self"),
            "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
            **env,
        }
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["callout", "open"])
async def test_our_agent_registers_and_serves_as_nvidias_worker_does(
    kind: str, tmp_path: Path
) -> None:
    container = Container()
    async with running_nvidia_world(kind, tmp_path, 1) as world, AsyncExitStack() as stack:
        await container.server.start()
        stack.callback(container.server.stop)
        for folder in ("assets", "output"):
            (tmp_path / folder).mkdir()
        agent = start_agent(world, container, tmp_path)
        stack.callback(agent.stop, signal.SIGKILL)
        await world.until_status("ACTIVE")
        called = await world.invoke(b"x")
        assert (called.status_code, called.content) == (200, b"hello")
        pexec = f"{V2}/pexec/functions/{world.plane.function_id}"

        failed = await world.plane.api.post(pexec, content=b"fails")
        assert failed.status_code == 422
        assert failed.json()["detail"] == "no such picture"

        large = await world.plane.api.post(pexec, content=b"large")
        assert large.status_code == 302, large.text
        async with httpx.AsyncClient(timeout=PATIENCE_S) as anyone:
            stored = await anyone.get(large.headers["location"])
        with zipfile.ZipFile(io.BytesIO(stored.content)) as archive:
            name = f"{large.headers['nvcf-reqid']}.response"
            assert archive.read(name) == container.large

        seconds = {"nvcf-poll-seconds": "1"}
        accepted = await world.plane.api.post(pexec, content=b"accept", headers=seconds)
        assert accepted.status_code == 202
        container.later.set()
        request_id = accepted.headers["nvcf-reqid"]
        polled = await world.plane.api.get(f"{V2}/pexec/status/{request_id}", headers=seconds)
        assert (polled.status_code, polled.content) == (200, b"later")
        assert container.request_ids[-1] == request_id

        for path in (tmp_path / "info" / "self", tmp_path / "ess" / "jwt.token"):
            await until(path.exists)
            assert path.read_text().count(".") == 2
            assert path.stat().st_mode & 0o777 == 0o644
        assert await asyncio.to_thread(agent.stop) == 0


@pytest.mark.timeout(180)
async def test_an_agent_that_starts_again_uses_the_token_that_it_has_kept(tmp_path: Path) -> None:
    container = Container()
    async with running_nvidia_world("open", tmp_path, 1) as world, AsyncExitStack() as stack:
        await container.server.start()
        stack.callback(container.server.stop)
        kept = tmp_path / "shared" / "nvcf-worker-token.json"
        kept.parent.mkdir()
        document = {"access_token": world.token, "expiry": "2999-01-01T00:00:00.123456789Z"}
        kept.write_text(json.dumps(document))
        agent = start_agent(world, container, tmp_path, NVCF_WORKER_TOKEN="long expired")
        stack.callback(agent.stop, signal.SIGKILL)
        await world.until_status("ACTIVE")
        kept.write_text(json.dumps({**document, "expiry": "2020-01-01T00:00:00Z"}))
        assert await asyncio.to_thread(agent.stop) == 0
        again = start_agent(world, container, tmp_path, NVCF_WORKER_TOKEN="long expired")
        stack.callback(again.stop, signal.SIGKILL)
        told = await asyncio.to_thread(again.wait_event, "nvcf.away")
        assert "PERMISSION_DENIED" in told["error"]
        assert await asyncio.to_thread(again.stop) == 0
