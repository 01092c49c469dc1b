"""Workers that somebody else starts: a gateway, and agents with a URL and a token only."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.control_plane import ControlPlane, running_control_plane
from tests.support.free_ports import free_port
from tests.support.inference_server import InferenceServer
from tests.support.nats_logins import guarded
from tests.support.programs import ROOT, Program, gateway, worker_agent
from tests.support.redis_server import RedisServer
from tests.support.server_process import ServerProcess
from tests.support.stack import metrics, start
from tests.support.waiting import until


class World:
    """One control plane with its broker, an inference server, and the agents that a test starts."""

    def __init__(
        self, plane: ControlPlane, broker: ServerProcess, inference: InferenceServer
    ) -> None:
        self.plane = plane
        self.broker = broker
        self.inference = inference
        self.agents: list[Program] = []

    async def register(self) -> None:
        port = self.inference.port
        health = {"protocol": "HTTP", "uri": "/health", "port": port, "timeout": "PT5S"}
        await self.plane.register(inferencePort=port, health={**health, "expectedStatusCode": 200})

    async def deploy(self, least: int, most: int) -> None:
        await self.plane.deploy(least, most, maxRequestConcurrency=4)

    def agent(self, token: str) -> Program:
        """Start an agent that knows nothing else; port 0, because all are on one machine."""
        program = worker_agent(
            {
                "WORKER_CONTROL__URL": self.plane.url,
                "WORKER_CONTROL__TOKEN": token,
                "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
            }
        )
        self.agents.append(program)
        return program

    async def ready(self, agent: Program) -> None:
        await asyncio.to_thread(agent.wait_event, "worker.ready")

    async def until_status(self, status: str, instances: int) -> Any:
        def is_so(shown: Any) -> bool:
            running = [one for one in shown.get("activeInstances", ()) if one["healthy"]]
            return bool(shown["status"] == status and len(running) == instances)

        return await until(self.plane.shown, is_so)

    async def invoke(self, path: str = "/echo") -> httpx.Response:
        return await self.plane.api.post(f"/f/{self.plane.function_id}{path}", content=b"hello")


@asynccontextmanager
async def running_broker(
    kind: str, folder: Path
) -> AsyncIterator[tuple[ServerProcess, dict[str, str]]]:
    """Run a broker that asks for logins; return it, and the gateway's settings for it."""
    if kind == "nats":
        nats = guarded(folder)
        await nats.server.start()
        try:
            yield (
                nats.server,
                {
                    "NATS__URLS": nats.url,
                    "NATS__CREDENTIALS_FILE": str(nats.logins.gateway_credentials),
                    "NATS__SYSTEM_CREDENTIALS_FILE": str(nats.logins.system_credentials),
                    "NATS__OPERATOR_SEED_FILE": str(nats.logins.operator_seed),
                },
            )
        finally:
            await nats.server.kill()
        return
    acl = ["user default off", "user gateway on >sesame ~* &* +@all"]
    server = RedisServer(acl=acl, login=("gateway", "sesame"))
    await server.start()
    try:
        settings = {"QUEUE__BACKEND": "redis", "STORE__BACKEND": "redis"}
        yield server, {**settings, "REDIS__URLS": server.url}
    finally:
        await server.close()


@asynccontextmanager
async def running_world(kind: str, folder: Path, **more: str) -> AsyncIterator[World]:
    """Run a gateway with all roles; ``more`` are settings as environment variables."""
    async with AsyncExitStack() as stack:
        broker, settings = await stack.enter_async_context(running_broker(kind, folder))
        inference = InferenceServer()
        await inference.start()
        stack.push_async_callback(inference.kill)
        settings |= {"CONTROL__WORKER_LEASE_S": "3", **more}
        plane = await stack.enter_async_context(running_control_plane(folder, settings))
        world = World(plane, broker, inference)
        try:
            yield world
        finally:
            for agent in world.agents:
                await asyncio.to_thread(agent.stop, signal.SIGKILL)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["nats", "valkey"])
async def test_agents_with_a_token_serve_are_counted_drained_and_refused(
    kind: str, tmp_path: Path
) -> None:
    async with running_world(kind, tmp_path) as world:
        await world.register()
        token, token_id = await world.plane.token()
        first = world.agent(token)
        await asyncio.to_thread(first.wait_event, "control.no_place")
        await world.deploy(2, 2)
        assert (await world.plane.shown())["status"] == "DEPLOYING"
        second = world.agent(token)
        await world.ready(first)
        await world.ready(second)
        shown = await world.until_status("ACTIVE", 2)
        assert {one["worker"]["pid"] for one in shown["activeInstances"]} == {
            first.pid,
            second.pid,
        }
        for _ in range(8):
            assert (await world.invoke()).text == "hello"

        standby = world.agent(token)
        waits = await asyncio.to_thread(standby.wait_event, "control.no_place")
        assert "maxInstances" in waits["error"]
        await asyncio.to_thread(second.stop, signal.SIGKILL)
        answered = [await world.invoke() for _ in range(8)]
        assert [response.status_code for response in answered] == [200] * 8
        await world.ready(standby)
        await world.until_status("ACTIVE", 2)

        slow = start(world.invoke("/slow?seconds=2"))
        await until(world.plane.shown, lambda one: any(i["busy"] for i in one["activeInstances"]))
        await world.plane.call("DELETE", f"deployments/{world.plane.path}?graceful=true")
        assert (await slow).status_code == 200
        for agent in (first, standby):
            assert await asyncio.to_thread(agent.wait_end) == 0
            assert "worker.told_to_stop" in agent.output

        async def is_gone() -> bool:
            response = await world.plane.api.get(f"/v2/nvcf/deployments/{world.plane.path}")
            return response.status_code == 404

        await until(is_gone, lambda gone: gone)
        await world.deploy(1, 1)
        last = world.agent(token)
        await world.ready(last)
        await world.until_status("ACTIVE", 1)
        await world.plane.call("DELETE", f"registrationTokens/{token_id}")
        assert await asyncio.to_thread(last.wait_end) == 0
        await world.until_status("DEGRADED", 0)
        refused = world.agent(token)
        assert await asyncio.to_thread(refused.wait_end) == 1
        assert [word in refused.output for word in ("control.refused", "Traceback")] == [
            True,
            False,
        ]


@pytest.mark.timeout(120)
async def test_an_agent_serves_a_region_that_has_no_worker(tmp_path: Path) -> None:
    """The API gives it regions and login; the gateway of the other region has no role but calls."""
    names = {"NATS__REGION_TAG": "region", "QUEUE__REGION": "eu", "QUEUE__OTHER_REGIONS": "us"}
    async with running_world("nats", tmp_path, **names) as world:
        await world.register()
        await world.deploy(1, 1)
        agent = world.agent((await world.plane.token())[0])
        await world.ready(agent)
        await world.until_status("ACTIVE", 1)
        swapped = {"GATEWAY_QUEUE__REGION": "us", "GATEWAY_QUEUE__OTHER_REGIONS": "eu"}
        env = {**world.plane.environment, **swapped, "GATEWAY_ROLES": "invocation"}
        other = gateway("serve", env=env)
        try:
            ready = await asyncio.to_thread(other.wait_event, "gateway.ready")
            url = f"http://{ready['listen'][0]}/f/{world.plane.function_id}"
            for _ in range(2):
                assert (await world.invoke()).text == "hello"
                reflected = await world.plane.api.get(f"{url}/reflect/x")
                headers = dict(reflected.json()["headers"])
                assert headers["nvcf-invocation-region"] == "us"
                assert (await world.plane.api.post(f"{url}/echo", content=b"there")).text == "there"
            # It has not become a worker of that region, to which calls go at once.
            sent = await metrics(f"http://{ready['admin']}")
            assert sent['gateway_dispatched_total{dispatch="direct"}'] == 0
        finally:
            await asyncio.to_thread(other.stop, signal.SIGKILL)
        port = (await asyncio.to_thread(agent.wait_event, "worker.ready"))["admin_port"]
        async with httpx.AsyncClient() as client:
            shown = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        assert re.search(r'nats_connected_sec_regions\{[^}]*regions="us"[^}]*\} 1\n', shown)
        await world.plane.call("DELETE", f"deployments/{world.plane.path}")
        assert await asyncio.to_thread(agent.wait_end) == 0


@pytest.mark.timeout(180)
async def test_an_agent_rides_out_a_gateway_that_pauses_and_a_broker_that_loses_its_record(
    tmp_path: Path,
) -> None:
    async with running_world("nats", tmp_path) as world:
        await world.register()
        token, _ = await world.plane.token()
        await world.deploy(1, 1)
        agent = world.agent(token)
        await world.ready(agent)
        shown = await world.until_status("ACTIVE", 1)
        (before,) = shown["activeInstances"]
        world.plane.program.pause()
        await asyncio.to_thread(agent.wait_event, "control.away")
        world.plane.program.send(signal.SIGCONT)
        await asyncio.to_thread(agent.wait_event, "control.back")
        await world.broker.restart()
        await asyncio.to_thread(agent.wait_event, "control.registered_again")
        (after,) = (await world.until_status("ACTIVE", 1))["activeInstances"]
        assert after["instanceId"] == before["instanceId"]
        assert (await world.invoke()).text == "hello"
        assert await asyncio.to_thread(agent.stop) == 0
        await world.until_status("DEGRADED", 0)


def documented_commands() -> list[str]:
    """Return the commands of docs/external-workers.md up to the first call, in order."""
    page = (ROOT / "docs" / "external-workers.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.timeout(180)
async def test_the_documented_commands_lead_to_an_answered_call(tmp_path: Path) -> None:
    inference = InferenceServer()
    await inference.start()
    ports = {"8080": free_port(), "8090": free_port(), "4222": free_port()}
    commands = documented_commands()
    assert len(commands) <= 10
    script = ["set -e"]
    for command in commands:
        if command.startswith("pip install"):
            continue
        line = command.replace("gateway-host", "127.0.0.1")
        line = line.replace("nats-server --", "nats-server -p 4222 --")
        line = line.replace("--inference-port 8000", f"--inference-port {inference.port}")
        for documented, port in ports.items():
            line = line.replace(documented, str(port))
        if "workers token" in line:
            line = f"TOKEN=$({line})"
        elif line.endswith("worker-agent"):
            line += " > agent.log 2>&1 &"
        script.append(line)
    env = {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GATEWAY_NATS__URLS": f"nats://127.0.0.1:{ports['4222']}",
        "GATEWAY_ADMIN__LISTEN": "127.0.0.1:0",
        "GATEWAY_API_URL": f"http://127.0.0.1:{ports['8080']}",
        "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
    }
    script.append("echo; echo answered; sleep infinity")
    shell = Program(["bash", "-c", "\n".join(script)], env, tmp_path)
    try:
        await asyncio.to_thread(shell.wait_line, lambda line: line == "answered\n", 120.0)
        assert "hello" in shell.output.splitlines()
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        await asyncio.to_thread(shell.wait_end)
        await inference.kill()
