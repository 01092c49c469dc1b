"""Pods of a release as processes of this machine, with what the chart gives them."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.deploy_files import make_secrets
from tests.support.free_ports import free_ports
from tests.support.programs import ROOT, Program
from tests.support.rendered_chart import Release, environment


class NatsPods(NamedTuple):
    """The NATS servers of a release on this machine, and the logins that its job makes."""

    secret: dict[str, bytes]
    urls: list[str]
    programs: list[Program]


@contextmanager
def running_nats(
    release: Release, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NatsPods]:
    """Run each server of the StatefulSet with the configuration and environment of its pod."""
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{scripts}:{os.environ['PATH']}")
    secret = make_secrets.nats_logins()
    (stateful,) = release.of_kind("StatefulSet")
    name, count = stateful["metadata"]["name"], stateful["spec"]["replicas"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    config = release.named("ConfigMap", name)["data"]["nats-server.conf"]
    clients, routes, monitors = (free_ports(count) for _ in range(3))
    programs = []
    for number in range(count):
        home = folder / f"{name}-{number}"
        (home / "logins").mkdir(parents=True)
        (home / "logins" / "accounts.conf").write_bytes(secret["accounts.conf"])
        file = home / "nats-server.conf"
        listens = {4222: clients[number], 6222: routes[number], 8222: monitors[number]}
        text = config.replace('"/data', f'"{home}/data')
        for port, own in listens.items():
            text = text.replace(f'"0.0.0.0:{port}"', f'"127.0.0.1:{own}"')
        file.write_text(text)
        environ = {"POD_NAME": f"{name}-{number}"}
        for one in container["env"]:
            if "value" in one:
                password = secret["route-password"].decode()
                environ[one["name"]] = one["value"].replace("$(ROUTE_PASSWORD)", password)
        for other in range(count):
            host = f"{name}-{other}.{name}-pods.prod.svc:6222"
            for variable, value in environ.items():
                environ[variable] = value.replace(host, f"127.0.0.1:{routes[other]}")
        programs.append(Program(["nats-server", "-c", str(file)], environ))
    try:
        for program in programs:
            program.wait_line(lambda line: "Server is ready" in line)
        yield NatsPods(secret, [f"nats://127.0.0.1:{port}" for port in clients], programs)
    finally:
        for program in programs:
            program.stop(signal.SIGKILL)


class GatewayPods:
    """Gateways of one installation, which share their Secrets and their objects.

    The first kind of gateway pod of a release is run, of as many as there are.
    """

    def __init__(self, nats: NatsPods, folder: Path) -> None:
        self._nats_urls = ",".join(nats.urls)
        self._folder = folder
        self._secrets: dict[str, bytes] = {**nats.secret, **make_secrets.own_secrets()}
        self._count = 0

    @property
    def bootstrap_secret(self) -> str:
        return self._secrets["bootstrap-secret"].decode()

    def prepared(
        self, release: Release, overrides: Mapping[str, str] | None = None
    ) -> tuple[dict[str, str], Path]:
        """Return the environment and the settings file of a pod.

        Its Secrets are made, addresses are of this machine, and ports are free ones.
        """
        root = self._folder / f"gateway-{self._count}"
        self._count += 1
        pod = next(release.gateways())
        environ = {
            name: str(root / value.lstrip("/")) if value.startswith("/") else value
            for name, value in environment(pod).items()
        }
        for name in environ:
            if name.endswith("__LISTEN"):
                environ[name] = "127.0.0.1:0"
        environ |= {"GATEWAY_NATS__URLS": self._nats_urls, **(overrides or {})}
        for path in map(Path, environ.values()):
            if path.name in self._secrets:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._secrets[path.name])
                path.chmod(0o400)
        settings = root / "gateway.toml"
        (config,) = [
            one["configMap"]["name"] for one in pod["volumes"] if one["name"] == "settings"
        ]
        text = release.named("ConfigMap", config)["data"]["gateway.toml"]
        settings.write_text(text.replace('"/var/lib', f'"{self._folder}/var/lib'))
        return environ, settings

    def start(
        self, release: Release, overrides: Mapping[str, str] | None = None, code: Path = ROOT
    ) -> Program:
        """Start a pod of the program in ``code``."""
        environ, settings = self.prepared(release, overrides)
        return run_from(code, "gateway", ["serve", "--config", str(settings)], environ)


def run_from(code: Path, module: str, argv: list[str], environ: Mapping[str, str]) -> Program:
    """Run a program of the source tree ``code``, which need not be this one."""
    own = {**environ, "PYTHONPATH": str(code)}
    return Program([sys.executable, "-P", "-m", module, *argv], own, code)
