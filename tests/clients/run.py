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

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / ".gateway" / "clients"
INSTALL_S = 600.0
RUN_S = 300.0


class Clients(NamedTuple):
    """Clients in one language. ``install`` makes what ``command`` needs."""

    name: str
    programs: tuple[str, ...]
    install: Callable[[], None]
    command: tuple[str, ...]


def install_python() -> None:
    folder, wanted = FOLDER / "python", HERE / "requirements.txt"
    if is_installed(folder, wanted):
        return
    venv.create(folder, clear=True, with_pip=True)
    pip = folder / "bin" / "pip"
    install(folder, wanted, [str(pip), "install", "--quiet", "--requirement", str(wanted)])


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


ALL = (
    Clients(
        "Python",
        (),
        install_python,
        (str(FOLDER / "python" / "bin" / "python"), "-P", str(HERE / "python_sdks.py")),
    ),
    Clients(
        "Node", ("node", "npm"), install_node, ("node", str(FOLDER / "node" / "node_sdks.mjs"))
    ),
    Clients("curl", ("curl",), install_nothing, ("bash", str(HERE / "curl.sh"))),
    Clients("nghttp", ("nghttp",), install_nothing, ("bash", str(HERE / "nghttp.sh"))),
    Clients("Go", ("go",), install_nothing, ("go", "run", str(HERE / "client.go"))),
    Clients("Java", ("java", "javac"), install_nothing, ("java", str(HERE / "Client.java"))),
)


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


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        dev = start_dev(Path(folder), "--tls", "--tls-port", "0")
        try:
            env = {
                "BASE_URL": dev.ready["invocation_url"],
                "TLS_URL": dev.ready["tls_url"],
                "TLS_AUTHORITY": dev.ready["tls_authority"],
                # Read by Go and Python.
                "SSL_CERT_FILE": dev.ready["tls_authority"],
                "API_KEY": dev.ready["api_key"],
                "ONE_FUNCTION_KEY": one_function_key(dev),
            }
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
