"""Schemathesis reads the API's own description, calls everything in it, and checks the answers.

What it makes up would find little but 404, so of the calls that are meant to be valid every second
one is given a function, a deployment or a key that exists; one of its own if the call changes it.
All of them are put right where no schema can say what is wrong (`plausible_bodies`), so
that a valid call must be taken, and one about what exists must do what it says.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis import Case, GenerationMode
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test

from gateway.api.admin_routes import with_admin_routes
from gateway.api.app import ROUTES
from gateway.api.identity import SERVICE_ID
from gateway.api.openapi import ADMIN_TAG, document
from gateway.api.routes.workers import Workers
from gateway.auth.scopes import ACCOUNT_SCOPES, ADMIN
from gateway.domain.model import Account, Client, Instance, Phase
from tests.integration.gateway.api.plausible_bodies import (
    FRIENDS,
    LOGIN,
    WORKER,
    llm_function,
    repaired,
)
from tests.support.control import IMAGE, SPEC, deployment_path
from tests.support.identity import DEFAULT_ACCOUNT, IdentityPlane, identity_plane
from tests.support.jwks import TokenIssuer, token_issuer
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE_S
from wire.ids import FunctionId, VersionId

ACCOUNT = DEFAULT_ACCOUNT
"""The caller sets up other accounts too."""
SUPER_ADMIN = "super-admin"
ONE_ACCOUNT = "/v2/nvcf/accounts/{ncaId}"
KEY = {"authorizations": {"policies": [{"aud": SERVICE_ID, "scopes": ["invoke_function"]}]}}
NOTHING: Any = None
DESCRIBED = document(
    with_admin_routes(
        (
            *ROUTES,
            *Workers(NOTHING, NOTHING).routes(),
        )
    )
)
"""Routes are described before anything serves them; a test below says that it is the same."""
CONFIG = schemathesis.Config.from_str(
    f"""
    seed = 20260101
    [generation]
    deterministic = true
    database = "none"
    max-examples = 12
    # The handlers of admin routes are called by their own routes: here, by the way to them.
    [[operations]]
    include-tag = "{ADMIN_TAG}"
    [operations.generation]
    max-examples = 4
    [operations.phases.coverage]
    enabled = false
    """
)


@dataclass
class Served:
    """The API in a thread of its own: schemathesis calls from this one, and waits.

    ``others`` are credentials by the operations' ids or tags that want another one than ``key``.
    """

    url: str
    key: str
    others: Mapping[str, str]
    count: int = 0
    made: int = 0

    def bearer(self, operation: Mapping[str, Any]) -> str:
        names = (operation["operationId"], *operation["tags"])
        return next((self.others[name] for name in names if name in self.others), self.key)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.key}"}
        response = requests.request(
            method, self.url + path, json=body, headers=headers, timeout=PATIENCE_S
        )
        assert response.status_code == 200, response.text
        return response.json()

    def existing(self, case: Case[Any]) -> dict[str, str]:
        """Return path variables that name what has just been made, for the call."""
        self.made += 1
        wanted = set(case.path_parameters)
        if "functionId" in wanted or "deploymentId" in wanted:
            return self._function(case)
        if "telemetryId" in wanted:
            return self._telemetry(case)
        if "registryCredentialId" in wanted:
            return self._registry_credential()
        if "keyId" in wanted:
            return {"keyId": self.call("POST", "/v1/keys", KEY)["id"]}
        if "clientId" in wanted or "ncaId" in wanted:
            return self._account(case)
        return {}

    def _function(self, case: Case[Any]) -> dict[str, str]:
        function = self.call("POST", "/v2/nvcf/functions", function_for(case.body))["function"]
        names = {
            "ncaId": ACCOUNT,
            "functionId": function["id"],
            "functionVersionId": function["versionId"],
        }
        if case.method != "POST" or "/deployments/" not in case.path:
            path = deployment_path(function["id"], function["versionId"])
            made = self.call("POST", path, {"deploymentSpecifications": [SPEC]})["deployment"]
            names["deploymentId"] = made["deploymentId"]
            names["gpuSpecificationId"] = made["deploymentSpecifications"][0]["gpuSpecificationId"]
        path, _, verb = case.path.rpartition("/")
        if verb in {"add", "remove"}:
            friend = FRIENDS[verb == "add"]
            path = path.replace("/accounts/{ncaId}", "").format_map(names)
            self.call("POST", path, {"authorizedParties": [{"ncaId": friend}]})
        return names

    def _account(self, case: Case[Any]) -> dict[str, str]:
        if ADMIN_TAG in (case.operation.tags or ()):
            return {"ncaId": ACCOUNT}
        names = {"ncaId": f"spare-{self.made}", "clientId": f"client-{self.made}"}
        path = f"/v2/nvcf/accounts/{names['ncaId']}"
        if case.operation.path != ONE_ACCOUNT or case.method != "POST":
            self.call("POST", path, {"name": "spare"})
        if case.path.endswith("associate"):
            case.body = {"clientId": names["clientId"]}
        if case.path.endswith(("/disassociate", "/{clientId}")):
            self.call("PATCH", f"{path}/clients/associate", {"clientId": names["clientId"]})
        return names

    def _telemetry(self, case: Case[Any]) -> dict[str, str]:
        name = f"own-{self.made}"
        body = {
            "endpoint": "http://otel.example",
            "protocol": "HTTP",
            "provider": "OTEL_COLLECTOR",
            "types": ["LOGS"],
            "secret": {"name": name, "value": "token"},
        }
        made = self.call("POST", "/v2/nvcf/telemetries", body)["telemetry"]
        if isinstance(case.body, dict):
            case.body["secret"]["name"] = name
        return {"ncaId": ACCOUNT, "telemetryId": made["telemetryId"]}

    def _registry_credential(self) -> dict[str, str]:
        body = {
            "registryHostname": f"own-{self.made}.example",
            "secret": {"name": "one", "value": LOGIN},
            "artifactTypes": ["CONTAINER"],
        }
        made = self.call("POST", "/v2/nvcf/registry-credentials", body)["registryCredential"]
        return {"ncaId": ACCOUNT, "registryCredentialId": made["registryCredentialId"]}

    def cursor(self) -> str:
        """Return where some list of functions goes on."""
        for _ in range(2):
            self.call("POST", "/v2/nvcf/functions", IMAGE)
        return str(self.call("GET", "/v2/nvcf/functions?limit=1")["cursor"])


def function_for(body: Any) -> Any:
    """Return what registers a function that can be changed as ``body`` says."""
    if not isinstance(body, dict):
        return IMAGE
    updates = body.get("modelUpdates") or ()
    if updates or body.get("llmInvocationConfig") or body.get("functionType") == "LLM":
        return llm_function(update["modelName"] for update in updates)
    return IMAGE


@contextmanager
def serving(nats_url: str, key_file: Path) -> Iterator[Served]:
    ready, stop = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def serve() -> None:
        async with (
            token_issuer() as issuer,
            identity_plane(nats_url, key_file, issuer) as plane,
        ):
            for account in (ACCOUNT, *FRIENDS):
                many = 1_000_000
                record = Account(
                    account,
                    account,
                    max_functions=many,
                    max_telemetries=many,
                    max_registry_credentials=many,
                )
                await plane.store.put(record)
            client = await plane.admin(ACCOUNT)
            others = {
                ADMIN_TAG: await super_admin(plane, issuer),
                "workers": await worker(plane),
                "keys.mint_admin": plane.secret,
            }
            found.extend((asyncio.get_running_loop(), Served(plane.url, client.key or "", others)))
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


async def super_admin(plane: IdentityPlane, issuer: TokenIssuer) -> str:
    """Return a JWT with every scope for all accounts."""
    await plane.store.put(Client(SUPER_ADMIN, ACCOUNT))
    await plane.catalog.until(lambda: plane.catalog.model.client(SUPER_ADMIN))
    scopes = [f"{ADMIN}{scope}" for scope in ACCOUNT_SCOPES]
    return issuer.token(SUPER_ADMIN, *scopes, exp=int(time.time()) + 3600)


async def worker(plane: IdentityPlane) -> str:
    """Return the token of an instance that may connect."""
    instance = Instance(
        instance_id=WORKER["instanceId"],
        deployment_id="deployment-1",
        spec_id="spec-1",
        function_id=FunctionId(WORKER["functionId"]),
        version_id=VersionId(WORKER["functionVersionId"]),
        account=ACCOUNT,
        gpu="A10G",
        instance_type="large",
        backend="local",
        phase=Phase.STARTING,
    )
    await plane.store.put(instance)
    return (await plane.workers.environment(instance))["WORKER_CONTROL__TOKEN"]


@pytest.fixture(scope="module")
def served(
    shared_nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with serving(shared_nats_server.url, tmp_path_factory.mktemp("key") / "master") as served:
        yield served


def test_the_description_is_the_one_that_is_served(served: Served) -> None:
    assert requests.get(f"{served.url}/v3/openapi", timeout=PATIENCE_S).json() == DESCRIBED


schema = schemathesis.openapi.from_dict(DESCRIBED, config=CONFIG)
OPERATIONS = [
    f"{method.upper()} {path}" for path, methods in DESCRIBED["paths"].items() for method in methods
]


def test_the_description_is_valid_openapi() -> None:
    schema.validate()


# Not `schema.parametrize`: it makes up the calls when tests are collected, in every process, and
# names the tests of all operations alike, so that pytest-xdist runs only one of them.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_answers_are_what_the_description_says(operation: str, served: Served) -> None:
    method, _, path = operation.partition(" ")
    call = build_operation_test(
        config=schema.config,
        operation=schema[path][method],
        test_func=_call_and_check,
        given_kwargs={},
        feedback=FeedbackSources(),
    )
    call(served=served)


def _call_and_check(case: Case[Any], served: Served) -> None:
    operation = DESCRIBED["paths"][case.path][case.operation.method.lower()]
    served.count += 1
    headers = {"Authorization": f"Bearer {served.bearer(operation)}"}
    if case.meta is not None and case.meta.is_negative_at(ParameterLocation.HEADER):
        headers = {}  # The credential is what is wrong, or that there is none.
    is_about_what_exists = False
    if case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE:
        case.body = repaired(model_of(operation), case.body)
        # Of a list of assets, it is any UUID.
        if "cursor" in case.query and not case.path.endswith("/assets"):
            case.query["cursor"] = served.cursor()
        if case.path_parameters and served.count % 2:
            names = served.existing(case)
            is_about_what_exists = set(case.path_parameters) <= set(names)
            for name in set(case.path_parameters) & set(names):
                case.path_parameters[name] = names[name]
    excluded = []
    if "visibility" in case.query:
        # Taken with commas and empty too, which the schema does not promise (`docs/wire.md` §10.2).
        excluded.append(schemathesis.checks.negative_data_rejection)
    if not operation.get("requestBody", {}).get("required", True) and case.body is NOT_SET:
        # Without a body, whatever is wrong with the one that is not sent.
        excluded.append(schemathesis.checks.negative_data_rejection)
    response = case.call_and_validate(served.url, headers=headers, excluded_checks=excluded)
    if is_about_what_exists:
        # 409: the client that is to act for a new account acts for one that an earlier call made.
        assert response.status_code < 300 or response.status_code == 409, response.text


def model_of(operation: Mapping[str, Any]) -> str:
    """Return the name of the model of an operation's body, empty when it has none."""
    if "requestBody" not in operation:
        return ""
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return str(reference).rpartition("/")[2]
