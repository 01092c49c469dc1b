"""Make the Secrets of an installation that do not exist yet, and never change one that does.

Runs before an installation or upgrade, in the gateway's image, with the rights to look for the
Secrets by name and to create Secrets.
"""

import argparse
import base64
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NATS_FILES = (
    "gateway/gateway.creds",
    "gateway/operator-signing.nk",
    "gateway/system.creds",
    "nats-1/accounts.conf",
    "operator-keys.json",
)
"""Of the folder that `gateway nats init` makes."""
FOUND, CREATED, CONFLICT, MISSING = 200, 201, 409, 404


class Api:
    """The Secrets of a namespace."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None = None) -> None:
        """``url`` is that of the collection: https://HOST:PORT/api/v1/namespaces/NAME/secrets."""
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._context = context

    def call(self, path: str = "", body: object = None) -> int:
        """Return the status. Raises OSError, also for a status that no case here expects."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._context) as response:  # noqa: S310
                return response.status
        except urllib.error.HTTPError as error:
            if error.code in {MISSING, CONFLICT}:
                return error.code
            text = error.read().decode(errors="replace")
            raise OSError(f"{error.code} of {self._url}{path}: {text}") from error


def ensure(
    api: Api, name: str, make: Callable[[], dict[str, bytes]], labels: dict[str, str]
) -> str:
    """Create the Secret with what ``make`` returns, unless it exists; say what was done."""
    if api.call(f"/{name}") == FOUND:
        return f"{name}: exists, left as it is"
    data = {key: base64.b64encode(value).decode() for key, value in make().items()}
    metadata = {"name": name, "labels": labels}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
    status = api.call(body=body)
    return f"{name}: " + ("created" if status == CREATED else "was created by another job")


def own_secrets() -> dict[str, bytes]:
    """Return a master key and a bootstrap secret."""
    return {
        "master.key": base64.b64encode(secrets.token_bytes(32)),
        "bootstrap-secret": f"nvboot-{secrets.token_hex(32)}".encode(),
    }


def nats_logins() -> dict[str, bytes]:
    """Return the logins of gateways and servers, and the keys that sign them."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "nats"
        command = ["gateway", "nats", "init", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603
        made = {Path(name).name: (folder / name).read_bytes() for name in NATS_FILES}
    return {**made, "route-password": secrets.token_hex(16).encode()}


def main() -> None:
    """Make what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secrets", help="Secret of the master key and the bootstrap secret")
    parser.add_argument("--nats", help="Secret of the logins to NATS")
    parser.add_argument("--instance", default="", help="label app.kubernetes.io/instance")
    options = parser.parse_args()
    host, port = (os.environ[f"KUBERNETES_SERVICE_{name}"] for name in ("HOST", "PORT"))
    host = f"[{host}]" if ":" in host else host
    namespace = (ACCOUNT / "namespace").read_text().strip()
    api = Api(
        f"https://{host}:{port}/api/v1/namespaces/{namespace}/secrets",
        (ACCOUNT / "token").read_text().strip(),
        ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
    )
    labels = {"app.kubernetes.io/instance": options.instance}
    for name, make in ((options.secrets, own_secrets), (options.nats, nats_logins)):
        if name:
            print(ensure(api, name, make, labels), flush=True)


if __name__ == "__main__":
    main()
