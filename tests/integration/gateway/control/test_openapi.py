"""Schemathesis reads the API's own description, calls everything in it, and checks the answers.

What it makes up would find little but 404, so of the calls that are meant to be valid every second
one is given a function, a deployment or a key that exists; one of its own if the call changes it.
"""

import asyncio
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis import Case, GenerationMode

from gateway.app.identity import identity_routes
from gateway.control.app import ROUTES
from gateway.control.identity import SERVICE_ID, Identity
from gateway.control.openapi import document
from gateway.functions.model import Account
from tests.support.control import IMAGE, SPEC, deployment_path
from tests.support.identity import identity_plane
from tests.support.nats_server import PATIENCE_S, NatsServer

ACCOUNT = "schemathesis"
KEY = {"authorizations": {"policies": [{"aud": SERVICE_ID, "scopes": ["invoke_function"]}]}}
NOTHING: Any = None
DESCRIBED = document((*ROUTES, *identity_routes(Identity(NOTHING, NOTHING, NOTHING, os.urandom))))
"""Routes are described before anything serves them; a test below says that it is the same."""
CONFIG = schemathesis.Config.from_str(
    """
    seed = 20260101
    [generation]
    deterministic = true
    database = "none"
    max-examples = 12
    """
)


@dataclass
class Served:
    """The API in a thread of its own: schemathesis calls from this one, and waits."""

    url: str
    key: str
    count: int = 0
    made: int = 0

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.key}"}
        response = requests.request(
            method, self.url + path, json=body, headers=headers, timeout=PATIENCE_S
        )
        assert response.status_code == 200, response.text
        return response.json()

    def existing(self, wanted: Iterable[str], *, is_deployed: bool) -> dict[str, str]:
        """Return path variables that name what has just been made."""
        self.made += 1
        if "ncaId" in wanted:
            names = {"ncaId": f"spare-{self.made}"}
            self.call("POST", f"/v2/nvcf/accounts/{names['ncaId']}", {"name": "spare"})
            return names
        if "keyId" in wanted:
            return {"keyId": self.call("POST", "/v1/keys", KEY)["id"]}
        function = self.call("POST", "/v2/nvcf/functions", IMAGE)["function"]
        names = {"functionId": function["id"], "functionVersionId": function["versionId"]}
        if is_deployed:
            path = deployment_path(function["id"], function["versionId"])
            made = self.call("POST", path, {"deploymentSpecifications": [SPEC]})["deployment"]
            names["deploymentId"] = made["deploymentId"]
            names["gpuSpecificationId"] = made["deploymentSpecifications"][0]["gpuSpecificationId"]
        return names


@contextmanager
def serving(nats_url: str, key_file: Path) -> Iterator[Served]:
    ready, stop = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def serve() -> None:
        async with identity_plane(nats_url, key_file) as plane:
            await plane.store.put(Account(ACCOUNT, ACCOUNT, max_functions=1_000_000))
            client = await plane.admin(ACCOUNT)
            url = str(plane.session._build_url("")).rstrip("/")
            found.extend((asyncio.get_running_loop(), Served(url, client.key or "")))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield found[1]
    finally:
        found[0].call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="module")
def served(
    shared_nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with serving(shared_nats_server.url, tmp_path_factory.mktemp("key") / "master") as served:
        yield served


def test_the_description_is_the_one_that_is_served(served: Served) -> None:
    assert requests.get(f"{served.url}/v3/openapi", timeout=PATIENCE_S).json() == DESCRIBED


schema = schemathesis.openapi.from_dict(DESCRIBED, config=CONFIG)


def test_the_description_is_valid_openapi() -> None:
    schema.validate()


@pytest.mark.timeout(120)
@schema.parametrize()
def test_answers_are_what_the_description_says(case: Case[Any], served: Served) -> None:
    served.count += 1
    is_valid = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
    if is_valid and case.path_parameters and served.count % 2:
        is_new = case.method == "POST" and "/deployments/" in case.path
        names = served.existing(case.path_parameters, is_deployed=not is_new)
        for name in set(case.path_parameters) & set(names):
            case.path_parameters[name] = names[name]
    # A call may be well formed and still say what cannot be: an unknown GPU, min above max.
    excluded = [schemathesis.checks.positive_data_acceptance]
    if "{clientId}" in case.path:
        # "0" is taken for a number, but is text in a path, and a call before has made that client.
        excluded.append(schemathesis.checks.negative_data_rejection)
    headers = {"Authorization": f"Bearer {served.key}"}
    case.call_and_validate(served.url, headers=headers, excluded_checks=excluded)
