"""What heartbeats of external workers cost: ``python -m loadtests.external_workers``.

So many workers register with one token and send heartbeats as agents do, three times per lease. The
gateway is a process that leads and one that serves the API, or with ``--together`` one that does
both. Printed is the CPU of every process, and the memory by which each has grown. Exit code 1: the
gateway's processes took more than 3 % of a core above what they take idle, one has grown by more
than 100 MB, or a heartbeat failed.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx

from loadtests.proc import all_on_cpu_s
from tests.support.nats_server import NatsServer
from tests.support.programs import Program, gateway, resident_bytes
from wire.worker_api import CONNECT_PATH, HEARTBEAT_PATH
from worker_agent.registration import ConnectError, HttpApi

MAX_CPU = 0.03
MAX_GROWTH_BYTES = 100_000_000
_LEASE_S = 15.0
_CLUSTERS = [
    {
        "name": "ours",
        "backend": "external",
        "gpus": [{"name": "L40S", "instance_types": [{"name": "any"}]}],
    }
]
_GPU = {"name": "NVIDIA L40S", "memoryMiB": 46068, "uuid": f"GPU-{'0' * 36}"}


class Fleet:
    """Workers of one version, as far as the API sees them."""

    def __init__(self, url: str, admin_token: str) -> None:
        self.url = url
        self._admin = {"authorization": f"Bearer {admin_token}"}
        self._admin_client = httpx.AsyncClient(base_url=url, timeout=60)
        self._workers: list[tuple[HttpApi, str, str]] = []
        self.beats = self.failed = 0

    async def deploy(self, workers: int) -> str:
        """Register and deploy a function; return the path of its version."""
        api = self._admin_client
        image = {"name": "busy", "inferenceUrl": "/", "containerImage": "any"}
        made = await api.post("/v2/nvcf/functions", json=image, headers=self._admin)
        function = made.json()["function"]
        path = f"functions/{function['id']}/versions/{function['versionId']}"
        spec = {"gpu": "L40S", "backend": "ours", "minInstances": 1, "maxInstances": workers}
        deployed = await api.post(
            f"/v2/nvcf/deployments/{path}",
            json={"deploymentSpecifications": [spec]},
            headers=self._admin,
        )
        deployed.raise_for_status()
        return path

    async def register(self, path: str, workers: int) -> None:
        made = await self._admin_client.post(
            f"/v2/nvcf/registrationTokens/{path}", json={}, headers=self._admin
        )
        token = made.json()["token"]
        limit = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            facts = {"node": f"gpu-{number}", "pid": number, "gpus": [_GPU] * 8}
            api = HttpApi(self.url, 60.0)
            async with limit:
                response = await api.post(
                    CONNECT_PATH, token, {"worker": {**facts, "agentVersion": "0.1.0"}}
                )
            self._workers.append((api, str(response["instanceId"]), str(response["token"])))

        await asyncio.gather(*(one(number) for number in range(workers)))

    async def beat(self, seconds: float) -> None:
        """Send heartbeats of every worker, three per lease, each over its own connection."""
        until = time.monotonic() + seconds

        async def one(api: HttpApi, instance_id: str, token: str) -> None:
            await asyncio.sleep(random.random() * _LEASE_S / 3)
            while time.monotonic() < until:
                begun = time.monotonic()
                body = {"instanceId": instance_id, "healthy": True, "slots": 8, "busy": 1}
                try:
                    await api.post(HEARTBEAT_PATH, token, body)
                except ConnectError:
                    self.failed += 1
                self.beats += 1
                await asyncio.sleep(max(_LEASE_S / 3 - (time.monotonic() - begun), 0))

        await asyncio.gather(*(one(*worker) for worker in self._workers))

    async def close(self) -> None:
        await self._admin_client.aclose()
        for api, _, _ in self._workers:
            api.close()


class Gateways:
    """The processes of a gateway, by what they do."""

    def __init__(self, nats: NatsServer, folder: Path) -> None:
        self._env = {
            "CLUSTERS": json.dumps(_CLUSTERS),
            "NATS__URLS": nats.url,
            "EDGE__LISTEN": "127.0.0.1:0",
            "ATTACH__LISTEN": "127.0.0.1:0",
            "ADMIN__LISTEN": "127.0.0.1:0",
            "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
            "CONTROL__WORKER_LEASE_S": str(_LEASE_S),
            "PROVISION__FOLDER": str(folder / "instances"),
            "OBJECTS__FOLDER": str(folder / "objects"),
            "DRAIN__GRACE_S": "0",
        }
        self.programs: dict[str, Program] = {}

    def start(self, name: str, roles: str) -> str:
        """Start a process; return its URL."""
        env = {f"GATEWAY_{name}": value for name, value in self._env.items()}
        program = gateway("serve", env={**env, "GATEWAY_ROLES": roles})
        self.programs[name] = program
        return f"http://{program.wait_event('gateway.ready', 120.0)['listen'][0]}"

    async def token(self, name: str, url: str) -> str:
        """Return an admin token from the process called ``name``."""
        secret = self.programs[name].output.split("Bootstrap secret: ")[1].split()[0]
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            bearer = {"authorization": f"Bearer {secret}"}
            made = await client.post("/v1/admin/keys", headers=bearer)
        return str(made.json()["value"])

    def stop(self) -> None:
        for program in self.programs.values():
            program.stop(signal.SIGKILL)


class Reading(NamedTuple):
    """What heartbeats cost: parts of a core by process, idle and busy, and bytes of growth."""

    idle: dict[str, float]
    busy: dict[str, float]
    grown: dict[str, int]
    beats: int
    seconds: float


async def measure(workers: int, seconds: float, folder: Path, *, is_together: bool) -> int:
    nats = NatsServer(folder)
    await nats.start()
    gateways = Gateways(nats, folder)
    try:
        if is_together:
            url = gateways.start("api", "api,invocation,provision")
        else:
            url = gateways.start("api", "api,invocation")
            gateways.start("leader", "provision")
        token = await gateways.token("api", url)
        fleet = Fleet(url, token)
        path = await fleet.deploy(workers)
        await asyncio.sleep(5.0)
        pids = {name: program.pid for name, program in gateways.programs.items()}
        reading = await read(fleet, pids, nats.pid, lambda: fleet.register(path, workers), seconds)
        shown = await _shown(url, token, path)
        await fleet.close()
    finally:
        gateways.stop()
        await nats.kill()
    rate = reading.beats / reading.seconds
    print(f"{workers} workers, {rate:.0f} heartbeats/s, {fleet.failed} failed")
    print(f"version {shown}")
    for name, part in reading.busy.items():
        more = f", {reading.grown[name] / 1e6:+.0f} MB" if name in pids else ""
        print(
            f"{name:8} {100 * part:5.1f} % of a core (idle: {100 * reading.idle[name]:.1f} %){more}"
        )
    extra = sum(reading.busy[name] - reading.idle[name] for name in pids)
    print(
        f"gateway  {100 * extra:5.1f} % of a core more than idle, {1e6 * extra / rate:.0f} µs each"
    )
    is_big = any(more > MAX_GROWTH_BYTES for more in reading.grown.values())
    return int(extra > MAX_CPU or is_big or fleet.failed > 0)


async def read(
    fleet: Fleet,
    pids: dict[str, int],
    broker: int,
    register: Callable[[], Awaitable[None]],
    seconds: float,
) -> Reading:
    """Measure the processes idle, then with the heartbeats of those that ``register`` adds."""
    memory = {name: resident_bytes(pid) for name, pid in pids.items()}
    watched = {**pids, "nats": broker}
    idle = await _cpu(watched, 10.0)
    await register()
    warm_s = 2 * _LEASE_S
    beating = asyncio.ensure_future(  # noqa: TID251  a script
        fleet.beat(warm_s + seconds + _LEASE_S)
    )
    await asyncio.sleep(warm_s)
    begun, fleet.beats = time.monotonic(), 0
    busy = await _cpu(watched, seconds)
    beats, lasted_s = fleet.beats, time.monotonic() - begun
    grown = {name: resident_bytes(pid) - memory[name] for name, pid in pids.items()}
    await beating
    return Reading(idle, busy, grown, beats, lasted_s)


async def _cpu(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """Return the parts of a core that the processes take for ``seconds``."""
    before = {name: all_on_cpu_s(pid) for name, pid in pids.items()}
    begun = time.monotonic()
    await asyncio.sleep(seconds)
    lasted_s = time.monotonic() - begun
    return {name: (all_on_cpu_s(pid) - before[name]) / lasted_s for name, pid in pids.items()}


async def _shown(url: str, token: str, path: str) -> str:
    bearer = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=bearer) as client:
        function = (await client.get(f"/v2/nvcf/{path}")).json()["function"]
    healthy = sum(one["healthy"] for one in function["activeInstances"])
    return f"{function['status']}, {healthy} healthy instances"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--together", action="store_true", help="one process for everything")
    options = parser.parse_args()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    with tempfile.TemporaryDirectory(prefix="external-workers-") as folder:
        return asyncio.run(
            measure(options.workers, options.seconds, Path(folder), is_together=options.together)
        )


if __name__ == "__main__":
    sys.exit(main())
