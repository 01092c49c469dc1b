"""Model servers as people start them, behind one `gateway dev`, called as their clients do.

Those that are installed with the tests; `tests/servers` has the others.
"""

import asyncio
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.dev import Dev, start_dev
from tests.support.programs import ROOT
from tests.support.waiting import PATIENCE_S

APPS = ROOT / "tests" / "servers" / "apps"
KEEP_ALIVE_S = 2.0
"""For how long gunicorn keeps a connection; its threads look about once a second."""
CONNECTIONS = 16


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    python, apps = sys.executable, str(APPS)
    running = start_dev(
        tmp_path_factory.mktemp("servers"),
        *(
            "--function",
            f"fastapi={python} -m uvicorn fastapi_app:app --app-dir {apps} --port {{port}}",
        ),
        *(
            "--function",
            f"gunicorn={python} -m gunicorn wsgi_app:app --chdir {apps} --bind 127.0.0.1:{{port}} "
            f"--worker-class gthread --threads {CONNECTIONS}",
        ),
        *("--function", f"threads={python} {apps}/one_thread.py {{port}}"),
    )
    yield running
    assert running.program.stop() == 0


def client(servers: Dev, name: str) -> httpx.AsyncClient:
    headers = {
        "authorization": f"Bearer {servers.ready['api_key']}",
        "function-id": servers.ready["functions"][name]["function_id"],
    }
    return httpx.AsyncClient(
        base_url=servers.ready["invocation_url"],
        headers=headers,
        timeout=PATIENCE_S,
        follow_redirects=True,
    )


async def test_a_redirect_of_fastapi_leads_back_to_the_function(servers: Dev) -> None:
    async with client(servers, "fastapi") as calls:
        listed = await calls.get("/items")
        created = await calls.post("/items", content=b"a body that is sent twice")
    for response in (listed, created):
        (redirect,) = response.history
        assert redirect.status_code == 307
        assert redirect.headers["location"] == f"{servers.ready['invocation_url']}/items/"
        assert response.status_code == 200
    assert created.json() == {"body": "a body that is sent twice"}


async def test_events_of_fastapi_arrive_as_they_were_sent(servers: Dev) -> None:
    async with client(servers, "fastapi") as calls:
        response = await calls.get("/stream")
    assert response.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_no_call_is_lost_when_gunicorn_closes_its_idle_connections(servers: Dev) -> None:
    """Connections are idle for about as long as gunicorn keeps them, each a little longer."""
    async with client(servers, "gunicorn") as calls:

        async def call(after_s: float) -> int:
            due = asyncio.Event()
            asyncio.get_running_loop().call_later(after_s, due.set)
            await due.wait()
            return (await calls.post("/", content=b"x" * 1000)).status_code

        first = await asyncio.gather(*(call(0.0) for _ in range(CONNECTIONS)))
        later = await asyncio.gather(
            *(call(KEEP_ALIVE_S + number * 1.2 / CONNECTIONS) for number in range(CONNECTIONS))
        )
    assert first + later == [200] * (2 * CONNECTIONS)


async def test_a_server_with_one_thread_serves_one_call_after_the_other(servers: Dev) -> None:
    async with client(servers, "threads") as calls:
        responses = await asyncio.gather(*(calls.post("/", content=b"0.2") for _ in range(2)))
    assert [response.text for response in responses] == ["generated"] * 2
