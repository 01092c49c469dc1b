"""Workers that somebody else starts: a gateway, and agents with a URL and a token only."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.free_ports import free_port
from tests.support.inference_server import InferenceServer
from tests.support.nats_logins import guarded
from tests.support.programs import ROOT, Program, gateway, worker_agent
from tests.support.redis_server import RedisServer
from tests.support.stack import metrics, start
from tests.support.waiting import PATIENCE_S, until

CLUSTERS = [
    {
        "name": "ours",
        "backend": "external",
        "gpus": [{"name": "L40S", "instance_types": [{"name": "any"}]}],
    }
]
V2 = "/v2/nvcf"


class World:
    """One gateway, an inference server, and the agents that a test starts."""

    def __init__(self, program: Program, url: str, inference: InferenceServer, token: str) -> None:
        self.program = program
        self.url = url
        self.inference = inference
        self.agents: list[Program] = []
        self.api = httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=PATIENCE_S
        )
        self.function_id = self.version_id = ""
        self.settings: dict[str, str] = {}

    @property
    def path(self) -> str:
        return f"functions/{self.function_id}/versions/{self.version_id}"

    async def call(self, method: str, path: str, json: object = None) -> Any:
        response = await self.api.request(method, f"{V2}/{path}", json=json)
        assert response.is_success, response.text
        return response.json() if response.content else None

    async def register(self) -> None:
        made = await self.call(
            "POST",
            "functions",
            {
                "name": "echo",
                "inferenceUrl": "/",
                "containerImage": "anything",
                "inferencePort": self.inference.port,
                "health": {
                    "protocol": "HTTP",
                    "uri": "/health",
                    "port": self.inference.port,
                    "timeout": "PT5S",
                    "expectedStatusCode": 200,
                },
            },
        )
        self.function_id = made["function"]["id"]
        self.version_id = made["function"]["versionId"]

    async def deploy(self, least: int, most: int) -> None:
        spec = {"gpu": "L40S", "backend": "ours", "minInstances": least, "maxInstances": most}
        body = {"deploymentSpecifications": [{**spec, "maxRequestConcurrency": 4}]}
        await self.call("POST", f"deployments/{self.path}", body)

    async def token(self) -> tuple[str, str]:
        made = await self.call("POST", f"registrationTokens/{self.path}", {})
        return made["token"], made["tokenId"]

    def agent(self, token: str) -> Program:
        """Start an agent that knows nothing else; port 0, because all are on one machine."""
        program = worker_agent(
            {
                "WORKER_CONTROL__URL": self.url,
                "WORKER_CONTROL__TOKEN": token,
                "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
            }
        )
        self.agents.append(program)
        return program

    async def ready(self, agent: Program) -> None:
        await asyncio.to_thread(agent.wait_event, "worker.ready")

    async def shown(self) -> Any:
        return (await self.call("GET", self.path))["function"]

    async def until_status(self, status: str, instances: int) -> Any:
        def is_so(shown: Any) -> bool:
            running = [one for one in shown.get("activeInstances", ()) if one["healthy"]]
            return bool(shown["status"] == status and len(running) == instances)

        return await until(self.shown, is_so)

    async def invoke(self, path: str = "/echo") -> httpx.Response:
        return await self.api.post(f"/f/{self.function_id}{path}", content=b"hello")


@asynccontextmanager
async def broker(kind: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """Run a broker that asks for logins; return the gateway's settings for it."""
    if kind == "nats":
        nats = guarded(folder)
        await nats.server.start()
        try:
            yield {
                "NATS__URLS": nats.url,
                "NATS__CREDENTIALS_FILE": str(nats.logins.gateway_credentials),
                "NATS__SYSTEM_CREDENTIALS_FILE": str(nats.logins.system_credentials),
                "NATS__OPERATOR_SEED_FILE": str(nats.logins.operator_seed),
            }
        finally:
            await nats.server.kill()
        return
    acl = ["user default off", "user gateway on >sesame ~* &* +@all"]
    server = RedisServer(acl=acl, login=("gateway", "sesame"))
    await server.start()
    try:
        yield {"QUEUE__BACKEND": "redis", "STORE__BACKEND": "redis", "REDIS__URLS": server.url}
    finally:
        await server.close()


@asynccontextmanager
async def running_world(kind: str, folder: Path, **more: str) -> AsyncIterator[World]:
    """Run a gateway with all roles; ``more`` are settings as environment variables."""
    async with AsyncExitStack() as stack:
        settings = await stack.enter_async_context(broker(kind, folder))
        inference = InferenceServer()
        await inference.start()
        stack.push_async_callback(inference.kill)
        env = {
            **settings,
            "CLUSTERS": json.dumps(CLUSTERS),
            "EDGE__LISTEN": "127.0.0.1:0",
            "ATTACH__LISTEN": "127.0.0.1:0",
            "ADMIN__LISTEN": "127.0.0.1:0",
            "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
            "CONTROL__WORKER_LEASE_S": "3",
            "PROVISION__FOLDER": str(folder / "instances"),
            "OBJECTS__FOLDER": str(folder / "objects"),
            "DRAIN__GRACE_S": "0",
            **more,
        }
        env = {f"GATEWAY_{name}": value for name, value in env.items()}
        program = gateway("serve", env=env)
        stack.callback(program.stop, signal.SIGKILL)
        ready = await asyncio.to_thread(program.wait_event, "gateway.ready")
        url = f"http://{ready['listen'][0]}"
        secret = program.output.split("Bootstrap secret: ")[1].split()[0]
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            bearer = {"authorization": f"Bearer {secret}"}
            token = (await client.post("/v1/admin/keys", headers=bearer)).json()["value"]
        world = World(program, url, inference, token)
        world.settings = env
        stack.push_async_callback(world.api.aclose)
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
        token, token_id = await world.token()
        first = world.agent(token)
        await asyncio.to_thread(first.wait_event, "control.no_place")
        await world.deploy(2, 2)
        assert (await world.shown())["status"] == "DEPLOYING"
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
        await until(world.shown, lambda one: any(i["busy"] for i in one["activeInstances"]))
        await world.call("DELETE", f"deployments/{world.path}?graceful=true")
        assert (await slow).status_code == 200
        for agent in (first, standby):
            assert await asyncio.to_thread(agent.wait_end) == 0
            assert "worker.told_to_stop" in agent.output

        async def is_gone() -> bool:
            response = await world.api.get(f"{V2}/deployments/{world.path}")
            return response.status_code == 404

        await until(is_gone, lambda gone: gone)
        await world.deploy(1, 1)
        last = world.agent(token)
        await world.ready(last)
        await world.until_status("ACTIVE", 1)
        await world.call("DELETE", f"registrationTokens/{token_id}")
        assert await asyncio.to_thread(last.wait_end) == 0
        await world.until_status("DEGRADED", 0)
        refused = world.agent(token)
        assert await asyncio.to_thread(refused.wait_end) == 1
        assert "control.refused" in refused.output


@pytest.mark.timeout(120)
async def test_an_agent_serves_a_region_that_has_no_worker(tmp_path: Path) -> None:
    """The API gives it regions and login; the gateway of the other region has no role but calls."""
    names = {"NATS__REGION_TAG": "region", "QUEUE__REGION": "eu", "QUEUE__OTHER_REGIONS": "us"}
    async with running_world("nats", tmp_path, **names) as world:
        await world.register()
        await world.deploy(1, 1)
        agent = world.agent((await world.token())[0])
        await world.ready(agent)
        await world.until_status("ACTIVE", 1)
        swapped = {"GATEWAY_QUEUE__REGION": "us", "GATEWAY_QUEUE__OTHER_REGIONS": "eu"}
        env = {**world.settings, **swapped, "GATEWAY_ROLES": "invocation"}
        other = gateway("serve", env=env)
        try:
            ready = await asyncio.to_thread(other.wait_event, "gateway.ready")
            url = f"http://{ready['listen'][0]}/f/{world.function_id}"
            for _ in range(2):
                assert (await world.invoke()).text == "hello"
                reflected = await world.api.get(f"{url}/reflect/x")
                headers = dict(reflected.json()["headers"])
                assert headers["nvcf-invocation-region"] == "us"
                assert (await world.api.post(f"{url}/echo", content=b"there")).text == "there"
            # It has not become a worker of that region, to which calls go at once.
            sent = await metrics(f"http://{ready['admin']}")
            assert sent['gateway_dispatched_total{dispatch="direct"}'] == 0
        finally:
            await asyncio.to_thread(other.stop, signal.SIGKILL)
        port = (await asyncio.to_thread(agent.wait_event, "worker.ready"))["admin_port"]
        async with httpx.AsyncClient() as client:
            shown = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        assert re.search(r'nats_connected_sec_regions\{[^}]*regions="us"[^}]*\} 1\n', shown)
        await world.call("DELETE", f"deployments/{world.path}")
        assert await asyncio.to_thread(agent.wait_end) == 0


@pytest.mark.timeout(180)
async def test_an_agent_rides_out_a_gateway_that_has_lost_its_record(tmp_path: Path) -> None:
    async with running_world("nats", tmp_path) as world:
        await world.register()
        token, _ = await world.token()
        await world.deploy(1, 1)
        agent = world.agent(token)
        await world.ready(agent)
        shown = await world.until_status("ACTIVE", 1)
        (before,) = shown["activeInstances"]
        world.program.pause()
        await asyncio.to_thread(agent.wait_event, "control.away")
        world.program.send(signal.SIGCONT)
        await asyncio.to_thread(agent.wait_event, "control.back")
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
    ready = {
        "nats-server": f"until (exec 3<>/dev/tcp/127.0.0.1/{ports['4222']}) 2>/dev/null; "
        "do sleep 0.1; done",
        "gateway serve": "until grep -q gateway.ready gateway.log; do sleep 0.1; done",
        "worker-agent": "until grep -q worker.ready agent.log; do sleep 0.1; done",
    }
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
        script += [wait for program, wait in ready.items() if program in line]
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
