"""etcd and kube-apiserver as processes of a test, without kubelet, scheduler and controllers."""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kubernetes.programs import find
from tests.support.certificates import Authority
from tests.support.free_ports import free_ports
from tests.support.waiting import PATIENCE_S

ADMIN = "admin-token"
GATEWAY_USER = "system:serviceaccount:gateway:invocation-gateway"
TOKENS = f"""\
{ADMIN},admin,admin,system:masters
gateway-token,{GATEWAY_USER},gateway
stranger-token,stranger,stranger
"""
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""What service accounts do is recorded."""
START_S = 6 * PATIENCE_S
"""The first start on a busy machine takes long."""


class Servers:
    """Both servers, in ``folder``: ``url`` is the API's, verified by the file ``authority``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        client_port, peer_port, self._port = free_ports(3)
        self._etcd_url, peer_url = (f"http://127.0.0.1:{port}" for port in (client_port, peer_port))
        # The test authority certifies names.
        self.url = f"https://localhost:{self._port}"
        issuer = Authority(folder)
        self.authority = issuer.file
        self._chain, self._key = issuer.issue("apiserver", "localhost")
        self._etcd_argv = [
            str(find("etcd")),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peer_url}",
            "--unsafe-no-fsync",
            "--log-level=error",
        ]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "tokens.csv").write_text(TOKENS)
        (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT))
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (folder / "accounts.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def start(self) -> None:
        """Start both and wait until the API is ready."""
        self._spawn("etcd", self._etcd_argv)
        self.start_api()

    def start_api(self) -> None:
        """Start the API server and wait until it is ready."""
        folder = self._folder
        accounts = folder / "accounts.pem"
        self._spawn(
            "kube-apiserver",
            [
                str(find("kube-apiserver")),
                f"--etcd-servers={self._etcd_url}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self._port}",
                f"--tls-cert-file={self._chain}",
                f"--tls-private-key-file={self._key}",
                f"--cert-dir={folder / 'certificates'}",
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                f"--audit-policy-file={folder / 'audit.yaml'}",
                f"--audit-log-path={folder / 'audit.log'}",
                # The service account "default" comes from a controller.
                "--disable-admission-plugins=ServiceAccount",
                "--service-account-issuer=https://localhost",
                f"--service-account-key-file={accounts}",
                f"--service-account-signing-key-file={accounts}",
                "--service-cluster-ip-range=10.0.0.0/24",
                # Watches end after 5 to 10 s.
                "--min-request-timeout=5",
                "--v=0",
            ],
        )
        self._wait_ready()

    def kill_api(self) -> None:
        """End the API server at once."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def end(self) -> None:
        """End both at once."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    def audited(self, user: str) -> list[dict[str, Any]]:
        """Return the events of a service account, whose name is as RBAC has it."""
        lines = (self._folder / "audit.log").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return [one for one in events if one["user"]["username"] == user]

    def kubeconfig(self, token: str, name: str) -> Path:
        """Return the file of a kubeconfig with a token."""
        return self.kubeconfig_of({"token": token}, name)

    def kubeconfig_of(self, user: Mapping[str, object], name: str) -> Path:
        """Return the file of a kubeconfig with the login ``user``."""
        file = self._folder / f"{name}.yaml"
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": dict(user)}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        file.write_text(yaml.safe_dump(document))
        return file

    def _spawn(self, name: str, argv: list[str]) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(argv, stdout=log, stderr=log)

    def _wait_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self.authority))
        request = urllib.request.Request(
            f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN}"}
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(request, context=context, timeout=5):
                    return
            except (urllib.error.URLError, OSError) as error:
                for name, process in self._processes.items():
                    if process.poll() is not None or time.monotonic() > deadline:
                        log = (self._folder / f"{name}.log").read_text()[-3000:]
                        raise AssertionError(f"{name} is not ready: {error}\n{log}") from error
                time.sleep(0.1)
