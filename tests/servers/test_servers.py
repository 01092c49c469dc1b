"""Model servers from PyPI, pinned in ``requirements/``, behind one `gateway dev`.

Each has an environment of its own, which `make test-servers` makes; without those environments the
tests are skipped. Servers are started as their documentation says, and called by their own clients
where these can send headers.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.chromium import (
    HOW_TO_GET_ONE,
    connected,
    find_chromium,
    running_chromium,
)
from tests.support.dev import Dev, start_dev
from tests.support.waiting import PATIENCE_S, until

FOLDER = os.environ.get("MODEL_SERVERS", "")
HERE = Path(__file__).parent
LOADING_S = 240.0

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="make test-servers installs the servers"),
    pytest.mark.timeout(LOADING_S + 60),
]


def program(server: str, name: str) -> str:
    """Return a program of a server's environment, without this project's packages in its path."""
    return f"env -u PYTHONPATH {FOLDER}/{server}/bin/{name}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    ports = "MLSERVER_HTTP_PORT={port} MLSERVER_GRPC_PORT=0 MLSERVER_METRICS_PORT=0"
    commands = {
        "litserve": f"{program('litserve', 'python')} {HERE}/apps/litserve_app.py {{port}}",
        "bentoml": f"{program('bentoml', 'bentoml')} serve bentoml_app:Summary "
        f"--working-dir {HERE}/apps --host 127.0.0.1 --port {{port}}",
        "mlserver": f"env {ports} {program('mlserver', 'mlserver')} start {HERE}/models/double",
        "gradio": f"{program('gradio', 'python')} {HERE}/apps/gradio_app.py {{port}}",
    }
    paths = {"bentoml": "/readyz", "mlserver": "/v2/health/ready", "gradio": "/"}
    options = [
        text for name, command in commands.items() for text in ("--function", f"{name}={command}")
    ]
    options += [
        text for name, path in paths.items() for text in ("--health-path", f"{name}={path}")
    ]
    folder = tmp_path_factory.mktemp("servers")
    running = start_dev(
        folder, "--start-timeout", str(LOADING_S), *options, patience_s=LOADING_S + PATIENCE_S
    )
    yield running
    assert running.program.stop() == 0


def client(servers: Dev, name: str) -> httpx.Client:
    headers = {
        "authorization": f"Bearer {servers.ready['api_key']}",
        "function-id": servers.ready["functions"][name]["function_id"],
    }
    return httpx.Client(
        base_url=servers.ready["invocation_url"], headers=headers, timeout=PATIENCE_S
    )


def run_client(servers: Dev, name: str, script: str, address: str) -> Any:
    """Run a script of ``clients/`` with the environment of a server; return what it printed."""
    function_id = servers.ready["functions"][name]["function_id"]
    done = subprocess.run(
        [
            *program(name, "python").split(),
            str(HERE / "clients" / script),
            *(address, servers.ready["api_key"], function_id),
        ],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_litserve_predicts_and_streams(servers: Dev) -> None:
    with client(servers, "litserve") as calls:
        assert calls.post("/predict", json={"input": 3}).json() == {"output": 9}
        with calls.stream("POST", "/stream", json={"prompt": "a b c"}) as response:
            words = [json.loads(line)["word"] for line in response.iter_lines()]
    assert words == ["a", "b", "c"]


def test_bentoml_takes_json_streams_and_takes_files(servers: Dev) -> None:
    with client(servers, "bentoml") as calls:
        assert calls.post("/summarize", json={"text": "One. Two."}).text == "One"
        with calls.stream("POST", "/words", json={"text": "a b c"}) as response:
            assert response.read() == b"abc"
        upload = calls.post("/size", files={"file": ("f.bin", b"x" * 3_000_000)})
        assert upload.json() == 3_000_000


def test_mlserver_serves_tritonclient(servers: Dev) -> None:
    address = servers.ready["invocation_url"].removeprefix("http://")
    assert run_client(servers, "mlserver", "triton_calls.py", address) == {
        "ready": True,
        "model_ready": True,
        "platform": "double",
        "None": True,
        "gzip": True,
        "deflate": True,
        "absent": "[404] Model absent not found",
    }


def test_gradio_serves_its_own_client(servers: Dev) -> None:
    url = servers.ready["invocation_url"]
    assert run_client(servers, "gradio", "gradio_calls.py", url) == {
        "greet": "Hello you!",
        "count": ["n 0", "n 1", "n 2"],
        "shout": True,
    }


async def test_the_page_of_gradio_works_in_a_browser(servers: Dev, tmp_path: Path) -> None:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(HOW_TO_GET_ONE)
    port = urlsplit(servers.ready["invocation_url"]).port
    function_id = servers.ready["functions"]["gradio"]["function_id"]
    key = {"authorization": f"Bearer {servers.ready['api_key']}"}
    with running_chromium(chromium, tmp_path) as devtools:
        async with connected(devtools) as browser:
            page = await browser.open(f"http://{function_id}.invocation.localhost:{port}/", key)
            # The page loads the code of each kind of element by itself: they appear one by one.
            await until(
                lambda: page.run(
                    """
                    const fields = document.querySelectorAll("textarea, input[type=text]");
                    const buttons = [...document.querySelectorAll("button")];
                    const run = buttons.find(one => one.textContent.trim() === "Run");
                    if (fields.length < 2 || !run) return buttons.map(one => one.textContent);
                    fields[0].value = "you";
                    fields[0].dispatchEvent(new Event("input", {bubbles: true}));
                    run.click();
                    return true;
                    """
                ),
                lambda found: found is True,
                what="the page of gradio",
            )
            await until(
                lambda: page.run(
                    "return [...document.querySelectorAll('textarea, input[type=text]')]"
                    ".map(one => one.value)"
                ),
                lambda found: "Hello you!" in found,
                what="the response of gradio in its page",
            )


def test_the_page_of_gradio_names_no_inner_address(servers: Dev) -> None:
    with client(servers, "gradio") as calls:
        config = calls.get("/config").json()
    assert config["root"].startswith(servers.ready["invocation_url"])
