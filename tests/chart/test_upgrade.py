"""From one version of chart and program to the next under load: no call fails.

Processes stand for pods, and HAProxy for the Service: a pod gets connections while its readiness
probe succeeds. They are replaced as the Deployment does it, with ``maxSurge: 1`` and
``maxUnavailable: 0``: a new pod is ready before an old one gets SIGTERM.
"""

import asyncio
import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.chart.pods import GatewayPods, run_from, running_nats
from tests.support.free_ports import free_ports
from tests.support.inference_server import InferenceServer
from tests.support.programs import ROOT, Program
from tests.support.provisioned import Calls, Version
from tests.support.proxies import find
from tests.support.rendered_chart import VALUES, Release, render
from tests.support.waiting import PATIENCE_S, until, until_blocking

PREVIOUS = "79b5bac1f735ba86ef4c94e9db052a753ca7ba56"
"""The version that is upgraded: a release, as soon as there is one."""
GRACE_S = 3
OPTIONS = ("--set", f"replicas=2,objects.backend=claim,drain.graceSeconds={GRACE_S}")
SERVICE = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 120s
    timeout server 120s
frontend service
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance roundrobin
    option httpchk GET /health/ready
    retries 0
    default-server check inter 100ms fall 1 rise 1
"""


class Ports(NamedTuple):
    """The ports of one pod; it has an address of its own, and a process of this machine has not."""

    edge: int
    attach: int
    admin: int

    def overrides(self, url: str, nats_urls: str) -> dict[str, str]:
        """Return what differs for a process of this machine."""
        return {
            "GATEWAY_EDGE__LISTEN": f"127.0.0.1:{self.edge}",
            "GATEWAY_ATTACH__LISTEN": f"127.0.0.1:{self.attach}",
            "GATEWAY_ATTACH__ADVERTISE": "127.0.0.1",
            "GATEWAY_ADMIN__LISTEN": f"127.0.0.1:{self.admin}",
            "GATEWAY_CONTROL__API_URL": url,
            "GATEWAY_CONTROL__NATS_URLS": nats_urls,
        }


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """Return the source tree of the previous version."""
    command = ["git", "archive", PREVIOUS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"there is no history with {PREVIOUS}: {found.stderr.decode()}")
    folder = tmp_path / "previous"
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@contextmanager
def service(folder: Path, pods: list[Ports]) -> Iterator[str]:
    """Run HAProxy as the Service of the pods; yield its URL."""
    program = find("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    (port,) = free_ports(1)
    text = SERVICE.format(port=port)
    for number, one in enumerate(pods):
        text += f"    server pod{number} 127.0.0.1:{one.edge} port {one.admin}\n"
    file = folder / "haproxy.cfg"
    file.write_text(text)
    running = Program([program, "-db", "-f", str(file)])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.stop()


async def serving(url: str, secret: str, inference: InferenceServer) -> tuple[Version, str]:
    """Deploy a function that external workers serve; return it and their token."""
    api = httpx.AsyncClient(base_url=url, timeout=PATIENCE_S)

    async def first_key() -> httpx.Response | None:
        bearer = {"authorization": f"Bearer {secret}"}
        try:
            made = await api.post("/v1/admin/keys", headers=bearer)
        except httpx.HTTPError:
            return None
        return made if made.status_code == 200 else None

    made = await until(first_key)
    assert made is not None
    api.headers["authorization"] = f"Bearer {made.json()['value']}"
    function: dict[str, Any] = {
        "name": "demo",
        "inferenceUrl": "/echo",
        "containerImage": "demo",
        "inferencePort": inference.port,
        "health": {
            "protocol": "HTTP",
            "uri": "/health",
            "port": inference.port,
            "timeout": "PT5S",
            "expectedStatusCode": 200,
        },
    }
    ids = (await api.post("/v2/nvcf/functions", json=function)).json()["function"]
    version = Version(api, ids["id"], ids["versionId"])
    spec = {"gpu": "any", "minInstances": 2, "maxInstances": 4, "maxRequestConcurrency": 8}
    body = {"deploymentSpecifications": [spec]}
    await version.call("POST", f"deployments/{version.path}", body)
    token = await version.call("POST", f"registrationTokens/{version.path}", {})
    return version, token["token"]


def agent(code: Path, url: str, token: str) -> Program:
    environ = {
        "WORKER_CONTROL__URL": url,
        "WORKER_CONTROL__TOKEN": token,
        "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
    }
    return run_from(code, "worker_agent", [], environ)


def is_ready(pod: Ports) -> bool:
    """Ask what the readiness probe asks."""
    try:
        return httpx.get(f"http://127.0.0.1:{pod.admin}/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


def end(program: Program, within_s: float) -> None:
    """End a pod with SIGTERM; it must end by itself, within its grace period."""
    began = time.monotonic()
    assert program.stop(timeout_s=within_s) == 0, program.output[-2000:]
    assert time.monotonic() - began < within_s


def grace_of(release: Release) -> float:
    return float(next(release.gateways())["terminationGracePeriodSeconds"])


@pytest.mark.timeout(240)
async def test_an_upgrade_of_chart_and_program_fails_no_call(
    helm: Path, previous: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart = "deploy/helm/invocation-gateway"
    before = render(helm, VALUES["quickstart"], *OPTIONS, chart=previous / chart)
    after = render(helm, VALUES["quickstart"], *OPTIONS)
    inference = InferenceServer()
    await inference.start()
    slots = [Ports(*free_ports(3)) for _ in range(4)]
    programs: list[Program] = []
    with running_nats(before, tmp_path, monkeypatch) as nats, service(tmp_path, slots) as url:
        pods = GatewayPods(nats, tmp_path)

        def start(release: Release, pod: Ports, code: Path) -> Program:
            overrides = pod.overrides(url, ",".join(nats.urls))
            programs.append(pods.start(release, overrides, code))
            until_blocking(lambda: is_ready(pod), what="a pod to be ready", timeout_s=60)
            return programs[-1]

        try:
            old = [await asyncio.to_thread(start, before, one, previous) for one in slots[:2]]
            version, token = await serving(url, pods.bootstrap_secret, inference)
            workers = [agent(previous, url, token) for _ in range(2)]
            programs += workers
            await version.until("ACTIVE", 2)
            calls = Calls(version)
            await calls.more()
            for program, pod in zip(old, slots[2:], strict=True):
                await asyncio.to_thread(start, after, pod, ROOT)
                await asyncio.to_thread(end, program, grace_of(before))
                await calls.more()
            for worker in workers:
                programs.append(agent(ROOT, url, token))
                await asyncio.to_thread(programs[-1].wait_event, "worker.ready")
                await asyncio.to_thread(end, worker, PATIENCE_S)
                await calls.more()
            await calls.stop()
            assert calls.failures == []
            assert calls.count > 100
            await version.until("ACTIVE", 2)
            await version.client.aclose()
        finally:
            for program in programs:
                program.process.kill()
                program.wait_end()
            await inference.kill()
