"""Call the gateway with other people's clients: ``python -m tests.clients.run``.

Starts `gateway dev` with its demo function, installs the pinned clients into a folder of its own,
and prints what each of them saw. What needs a program that this machine lacks is left out, and said
so. Exit status 0: nothing failed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.dev import Dev, start_dev
from tests.support.waiting import PATIENCE_S, until_blocking

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / ".gateway" / "clients"
INSTALL_S = 600.0
RUN_S = 300.0
SLOW_CHAT = "/v1/chat/completions?delay_ms=2500"
"""Longer than the window with which some clients poll."""


class Clients(NamedTuple):
    """Clients in one language. ``install`` makes what ``command`` needs."""

    name: str
    programs: tuple[str, ...]
    install: Callable[[], None]
    command: tuple[str, ...]


def install_python(folder: Path, wanted: Path, *options: str) -> None:
    if is_installed(folder, wanted):
        return
    venv.create(folder, clear=True, with_pip=True)
    pip = str(folder / "bin" / "pip")
    install(folder, wanted, [pip, "install", "--quiet", *options, "--requirement", str(wanted)])


def install_node() -> None:
    folder, wanted = FOLDER / "node", HERE / "package.json"
    if not is_installed(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(wanted, folder)
        install(folder, wanted, ["npm", "install", "--no-audit", "--no-fund", "--silent"])
    # Node looks for packages beside the program.
    shutil.copy(HERE / "node_sdks.mjs", folder)


def install_nothing() -> None:
    """The others bring their clients along."""


def of_nvcf(name: str, *options: str) -> Clients:
    """Return a client of NVCF, which is tried by ``of_{name}.py``. ``options`` are pip's."""
    folder, nvcf = FOLDER / name, HERE / "nvcf"
    return Clients(
        name,
        (),
        lambda: install_python(folder, nvcf / f"{name}.txt", *options),
        (str(folder / "bin" / "python"), str(nvcf / f"of_{name}.py")),
    )


ALL = (
    Clients(
        "Python",
        (),
        lambda: install_python(FOLDER / "python", HERE / "requirements.txt"),
        (str(FOLDER / "python" / "bin" / "python"), "-P", str(HERE / "python_sdks.py")),
    ),
    of_nvcf("ngcsdk"),
    of_nvcf("langchain"),
    of_nvcf("haystack"),
    # With all that it can do, garak takes 6 GiB: the file lists what its generator needs.
    of_nvcf("garak", "--no-deps"),
    Clients(
        "Node", ("node", "npm"), install_node, ("node", str(FOLDER / "node" / "node_sdks.mjs"))
    ),
    Clients("curl", ("curl",), install_nothing, ("bash", str(HERE / "curl.sh"))),
    Clients("nghttp", ("nghttp",), install_nothing, ("bash", str(HERE / "nghttp.sh"))),
    Clients("Go", ("go",), install_nothing, ("go", "run", str(HERE / "client.go"))),
    Clients("Java", ("java", "javac"), install_nothing, ("java", str(HERE / "Client.java"))),
)


NOT_TO_BE_HAD = {
    "Sideko's, konfig's and Stainless's SDKs of NVCF": "no package registry has them",
    "NVIDIA's Terraform provider and nvcf-cli": "the Go module proxy does not have them",
}
"""What `docs/compatibility.md` says of these is read in their source."""


def is_installed(folder: Path, wanted: Path) -> bool:
    stamp = folder / ".installed"
    return stamp.exists() and stamp.read_text() == wanted.read_text()


def install(folder: Path, wanted: Path, command: list[str]) -> None:
    print(f"installing what {wanted.name} lists into {folder} ...", flush=True)
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S)
    (folder / ".installed").write_text(wanted.read_text())


def one_function_key(dev: Dev) -> str:
    """Return a new key that is good for the demo function only."""
    resource = {"type": "function", "id": f"{dev.ready['function_id']}/*"}
    policy = {"scopes": ["invoke_function"], "resources": [resource]}
    told = httpx.post(
        f"{dev.ready['api_url']}/v1/keys",
        json={"description": "test-clients", "authorizations": {"policies": [policy]}},
        headers={"authorization": f"Bearer {dev.ready['api_key']}"},
    )
    return str(told.raise_for_status().json()["value"])


def make_function(dev: Dev, name: str, inference_url: str, *, is_deployed: bool) -> dict[str, str]:
    """Make a function of the demo; return its ids once it can be called."""
    with httpx.Client(
        base_url=dev.ready["api_url"],
        headers={"authorization": f"Bearer {dev.ready['api_key']}"},
        timeout=PATIENCE_S,
    ) as api:
        wish = {"name": name, "inferenceUrl": inference_url, "containerImage": "demo"}
        made = api.post("/v2/nvcf/functions", json={**wish, "healthUri": "/health"})
        function = made.raise_for_status().json()["function"]
        if is_deployed:
            of = f"functions/{function['id']}/versions/{function['versionId']}"
            specification = {
                "backend": "local",
                "gpu": "CPU",
                "instanceType": "local",
                "minInstances": 1,
                "maxInstances": 1,
                "maxRequestConcurrency": 8,
            }
            deployment = {"deploymentSpecifications": [specification]}
            api.post(f"/v2/nvcf/deployments/{of}", json=deployment).raise_for_status()
            until_blocking(
                lambda: api.get(f"/v2/nvcf/{of}").json()["function"]["status"] == "ACTIVE",
                what=f"the function {name}",
            )
    return {"id": function["id"], "version": function["versionId"], "account": function["ncaId"]}


def invocation_token(dev: Dev) -> str:
    """Return a token, which is a JWT, for functions of the account."""
    told = httpx.post(
        f"{dev.ready['api_url']}/v2/nvcf/tokens/functions/{dev.ready['function_id']}",
        json={"clientId": "test-clients"},
        headers={"authorization": f"Bearer {dev.ready['api_key']}"},
    )
    return str(told.raise_for_status().json()["access_token"])


def try_out(clients: Clients, env: dict[str, str]) -> list[str]:
    """Return the lines about ``clients``; the first word of each says how it went."""
    missing = [program for program in clients.programs if shutil.which(program) is None]
    if missing:
        return [f"SKIP {clients.name}: this machine has no {' and no '.join(missing)}"]
    try:
        clients.install()
        ran = subprocess.run(
            clients.command,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=RUN_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        return [f"FAIL {clients.name}: {error}"]
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("PASS ", "FAIL "))]
    if ran.returncode or not lines:
        lines.append(f"FAIL {clients.name}: it ended with {ran.returncode}")
    return lines


def own_places(folder: Path, dev: Dev) -> dict[str, str]:
    """Return settings with which clients of NVCF come here, and leave nothing at home."""
    return {
        "NGC_CLI_API_URL": dev.ready["tls_url"],
        "NGC_CLI_HOME": str(folder),
        "REQUESTS_CA_BUNDLE": dev.ready["tls_authority"],
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "NVIDIA_USAGE_TELEMETRY_ENABLED": "0",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        dev = start_dev(Path(folder), "--tls", "--tls-port", "0")
        try:
            slow = make_function(dev, "playground_demo_slow", SLOW_CHAT, is_deployed=True)
            fresh = make_function(dev, "fresh", "/echo", is_deployed=False)
            env = {
                "BASE_URL": dev.ready["invocation_url"],
                "TLS_URL": dev.ready["tls_url"],
                "TLS_AUTHORITY": dev.ready["tls_authority"],
                # Read by Go and Python.
                "SSL_CERT_FILE": dev.ready["tls_authority"],
                "API_KEY": dev.ready["api_key"],
                "ONE_FUNCTION_KEY": one_function_key(dev),
                "INVOCATION_TOKEN": invocation_token(dev),
                "ORGANIZATION": slow["account"],
                "DEMO_FUNCTION": dev.ready["function_id"],
                "DEMO_VERSION": dev.ready["function_version_id"],
                "SLOW_FUNCTION": slow["id"],
                "SLOW_VERSION": slow["version"],
                "FRESH_FUNCTION": fresh["id"],
                "FRESH_VERSION": fresh["version"],
                **own_places(Path(folder), dev),
            }
            for name, why in NOT_TO_BE_HAD.items():
                print(f"SKIP {name}: {why}")
            for clients in ALL:
                for line in try_out(clients, env):
                    print(line, flush=True)
                    failed += line.startswith("FAIL")
        finally:
            dev.program.stop()
    print("all clients that could be tried work" if not failed else f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
