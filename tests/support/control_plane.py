"""A gateway with all roles as a program, and what an administrator does with its REST API."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.programs import Program, gateway
from tests.support.waiting import PATIENCE_S

V2 = "/v2/nvcf"


class ControlPlane:
    """The program, a client with an admin token, and the version that a test is about.

    ``cluster`` is the name of its only cluster, whose workers are external. ``environment`` are the
    variables with which it was started.
    """

    cluster = "ours"

    def __init__(
        self, program: Program, url: str, token: str, environment: Mapping[str, str]
    ) -> None:
        self.program = program
        self.environment = environment
        self.url = url
        self.bearer = {"authorization": f"Bearer {token}"}
        self.api = httpx.AsyncClient(base_url=url, headers=self.bearer, timeout=2 * PATIENCE_S)
        self.function_id = self.version_id = ""

    @property
    def path(self) -> str:
        """The part of the API's paths that names the version."""
        return f"functions/{self.function_id}/versions/{self.version_id}"

    async def call(self, method: str, path: str, json: object = None) -> Any:
        """Return the response to a call of NVCF's API that has to succeed."""
        response = await self.api.request(method, f"{V2}/{path}", json=json)
        assert response.is_success, response.text
        return response.json() if response.content else None

    async def register(self, **members: object) -> None:
        """Create the function; ``members`` are those of the request besides the required ones."""
        function = {"name": "echo", "inferenceUrl": "/", "containerImage": "any", **members}
        made = (await self.call("POST", "functions", function))["function"]
        self.function_id, self.version_id = made["id"], made["versionId"]

    async def deploy(self, least: int, most: int, **members: object) -> None:
        """Deploy the version; ``members`` are further ones of the GPU specification."""
        spec = {"gpu": "L40S", "backend": self.cluster, "minInstances": least, **members}
        body = {"deploymentSpecifications": [{**spec, "maxInstances": most}]}
        await self.call("POST", f"deployments/{self.path}", body)

    async def token(self) -> tuple[str, str]:
        """Return a new registration token of the version, and its id."""
        made = await self.call("POST", f"registrationTokens/{self.path}", {})
        return made["token"], made["tokenId"]

    async def shown(self) -> Any:
        """Return the version as the API shows it."""
        return (await self.call("GET", self.path))["function"]


@asynccontextmanager
async def running_control_plane(
    folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[ControlPlane]:
    """Run a gateway; ``settings`` are environment variables without their prefix."""
    clusters = [
        {
            "name": ControlPlane.cluster,
            "backend": "external",
            "gpus": [{"name": "L40S", "instance_types": [{"name": "any"}]}],
        }
    ]
    env = {
        "CLUSTERS": json.dumps(clusters),
        "EDGE__LISTEN": "127.0.0.1:0",
        "ATTACH__LISTEN": "127.0.0.1:0",
        "ADMIN__LISTEN": "127.0.0.1:0",
        "CONTROL__SECRETS_KEY_FILE": str(folder / "master.key"),
        "PROVISION__FOLDER": str(folder / "instances"),
        "OBJECTS__FOLDER": str(folder / "objects"),
        "DRAIN__GRACE_S": "0",
        **settings,
    }
    env = {f"GATEWAY_{name}": value for name, value in env.items()}
    program = gateway("serve", env=env)
    try:
        ready = await asyncio.to_thread(program.wait_event, "gateway.ready")
        url = f"http://{ready['listen'][0]}"
        plane = ControlPlane(program, url, await admin_token(program, url), env)
        async with plane.api:
            yield plane
    finally:
        await asyncio.to_thread(program.stop, signal.SIGKILL)


async def admin_token(program: Program, url: str) -> str:
    """Return a new admin token of a gateway that has made its bootstrap secret."""
    secret = program.output.split("Bootstrap secret: ")[1].split()[0]
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
        bearer = {"authorization": f"Bearer {secret}"}
        made = await client.post("/v1/admin/keys", headers=bearer)
    assert made.is_success, made.text
    token: str = made.json()["value"]
    return token
