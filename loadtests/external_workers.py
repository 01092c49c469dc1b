"""What heartbeats of external workers cost: ``python -m loadtests.external_workers``.

A gateway process that leads and serves no API, one that serves the API, and so many workers that
register with one token and send heartbeats as agents do, three times per lease. Printed is the CPU
of both processes and of NATS, and the memory by which each has grown. Exit code 1: the leader took
more than 3 % of a core or 100 MB.
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
from pathlib import Path

import httpx

from loadtests.proc import on_cpu_s
from tests.support.nats_server import NatsServer
from tests.support.programs import Program, gateway, resident_bytes

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
    """Workers of one version, as far as the API sees them, over some connections."""

    def __init__(self, url: str, admin_token: str) -> None:
        self.url = url
        self._admin = {"authorization": f"Bearer {admin_token}"}
        self._clients = [httpx.AsyncClient(base_url=url, timeout=60) for _ in range(8)]
        self._workers: list[tuple[str, str]] = []
        self.beats = self.failed = 0

    async def deploy(self, workers: int) -> str:
        """Register and deploy a function; return the path of its version."""
        api = self._clients[0]
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
        made = await self._clients[0].post(
            f"/v2/nvcf/registrationTokens/{path}", json={}, headers=self._admin
        )
        token = made.json()["token"]
        limit = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            facts = {"node": f"gpu-{number}", "pid": number, "gpus": [_GPU] * 8}
            async with limit:
                told = await self._clients[number % 8].post(
                    "/v2/nvcf/worker/connect",
                    json={"worker": {**facts, "agentVersion": "0.1.0"}},
                    headers={"authorization": f"Bearer {token}"},
                )
            told.raise_for_status()
            self._workers.append((told.json()["instanceId"], told.json()["token"]))

        await asyncio.gather(*(one(number) for number in range(workers)))

    async def beat(self, seconds: float) -> None:
        """Send heartbeats of every worker, three per lease."""
        until = time.monotonic() + seconds

        async def one(number: int, instance_id: str, token: str) -> None:
            await asyncio.sleep(random.random() * _LEASE_S / 3)
            while time.monotonic() < until:
                begun = time.monotonic()
                body = {"instanceId": instance_id, "healthy": True, "slots": 8, "busy": 1}
                told = await self._clients[number % 8].post(
                    "/v2/nvcf/worker/heartbeat",
                    json=body,
                    headers={"authorization": f"Bearer {token}"},
                )
                self.beats += 1
                self.failed += told.status_code != 200
                await asyncio.sleep(max(_LEASE_S / 3 - (time.monotonic() - begun), 0))

        await asyncio.gather(*(one(i, *worker) for i, worker in enumerate(self._workers)))

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


async def measure(workers: int, seconds: float, folder: Path) -> int:
    nats = NatsServer(folder)
    await nats.start()
    programs: list[Program] = []

    def start(roles: str) -> tuple[Program, str]:
        env = {
            "CLUSTERS": json.dumps(_CLUSTERS),
            "NATS__URLS": nats.url,
            "ROLES": roles,
            "EDGE__LISTEN": "127.0.0.1:0",
            "ATTACH__LISTEN": "127.0.0.1:0",
            "ADMIN__LISTEN": "127.0.0.1:0",
            "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
            "CONTROL__WORKER_LEASE_S": str(_LEASE_S),
            "PROVISION__FOLDER": str(folder / "instances"),
            "OBJECTS__FOLDER": str(folder / "objects"),
            "DRAIN__GRACE_S": "0",
        }
        program = gateway("serve", env={f"GATEWAY_{name}": value for name, value in env.items()})
        programs.append(program)
        ready = program.wait_event("gateway.ready", 120.0)
        return program, f"http://{ready['listen'][0]}"

    try:
        api, url = start("api,invocation")
        leader, _ = start("provision")
        secret = api.output.split("Bootstrap secret: ")[1].split()[0]
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            bearer = {"authorization": f"Bearer {secret}"}
            token = (await client.post("/v1/admin/keys", headers=bearer)).json()["value"]
        fleet = Fleet(url, token)
        path = await fleet.deploy(workers)
        await asyncio.sleep(5.0)
        pids = {"leader": leader.pid, "api": api.pid}
        memory = {name: resident_bytes(pid) for name, pid in pids.items()}
        idle = await _cpu(pids, 10.0, None)
        await fleet.register(path, workers)
        await fleet.beat(_LEASE_S)
        fleet.beats = 0
        begun = time.monotonic()
        beating = asyncio.ensure_future(fleet.beat(seconds))  # noqa: TID251  a script
        busy = await _cpu(pids, seconds, beating)
        lasted_s = time.monotonic() - begun
        grown = {name: resident_bytes(pid) - memory[name] for name, pid in pids.items()}
        shown = await _shown(url, token, path)
        await fleet.close()
    finally:
        for program in programs:
            program.stop(signal.SIGKILL)
        await nats.kill()
    print(f"{workers} workers, {fleet.beats / lasted_s:.0f} heartbeats/s, {fleet.failed} failed")
    print(f"version {shown}")
    for name in pids:
        print(
            f"{name:8} {100 * busy[name]:5.1f} % of a core (idle: {100 * idle[name]:.1f} %), "
            f"{grown[name] / 1e6:+.0f} MB"
        )
    extra = busy["leader"] - idle["leader"]
    return int(extra > MAX_CPU or grown["leader"] > MAX_GROWTH_BYTES or fleet.failed > 0)


async def _cpu(
    pids: dict[str, int], seconds: float, work: "asyncio.Future[None] | None"
) -> dict[str, float]:
    """Return the parts of a core that the processes take meanwhile."""
    before = {name: on_cpu_s(pid) for name, pid in pids.items()}
    begun = time.monotonic()
    await (asyncio.sleep(seconds) if work is None else work)
    lasted_s = time.monotonic() - begun
    return {name: (on_cpu_s(pid) - before[name]) / lasted_s for name, pid in pids.items()}


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
    options = parser.parse_args()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    with tempfile.TemporaryDirectory(prefix="external-workers-") as folder:
        return asyncio.run(measure(options.workers, options.seconds, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
