"""HEAD and OPTIONS, which every path of the API has without a route of their own."""

import re
from uuid import uuid4

import pytest

from gateway.api.admin_routes import with_admin_routes
from gateway.api.app import ROUTES
from tests.support.control import ApiResponse, Client, ControlPlane, deployment_path, version_path

LONG = 300_000
"""Bytes of a list that is streamed in several parts."""


def methods_of(response: ApiResponse) -> set[str]:
    return set(response.headers["allow"].split(", "))


def filled(path: str) -> str:
    return re.sub(r"\{\w+\}", lambda _: str(uuid4()), path)


async def test_options_tells_the_methods_of_every_path_without_a_credential(
    plane: ControlPlane,
) -> None:
    anyone = plane.stranger()
    paths: dict[str, set[str]] = {"/v3/openapi": {"GET"}, "/v3/docs": {"GET"}}
    for route in with_admin_routes(ROUTES):
        paths.setdefault(route.path, set()).add(route.method)
    for path, methods in paths.items():
        response = await anyone.call("OPTIONS", filled(path))
        assert (response.status, response.body) == (204, b""), path
        expected = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        assert methods_of(response) >= expected, path
        assert response.headers["x-request-id"]


async def test_a_path_that_does_not_exist_has_no_options(client: Client) -> None:
    assert (await client.call("OPTIONS", "/v2/nvcf/nothing")).status == 404


async def test_a_method_that_a_path_lacks_is_told_the_others(client: Client) -> None:
    response = await client.call("HEAD", f"/v2/nvcf/tokens/functions/{uuid4()}")
    assert response.status == 405
    assert methods_of(response) == {"OPTIONS", "POST"}


@pytest.mark.parametrize("credential", ["own", "none"])
async def test_head_is_what_get_responds_without_the_body(
    plane: ControlPlane, client: Client, credential: str
) -> None:
    function_id, version_id = await client.create()
    caller = client if credential == "own" else plane.stranger()
    for path in (
        "/v2/nvcf/functions",
        "/v2/nvcf/functions/ids",
        f"/v2/nvcf/functions/{function_id}/versions",
        version_path(function_id, version_id),
        version_path(function_id, str(uuid4())),
        deployment_path(function_id, version_id),
        "/v1/keys",
        "/v3/openapi",
        "/v3/docs",
        "/health",
    ):
        got = await caller.get(path)
        head = await caller.call("HEAD", path)
        assert (head.status, head.body) == (got.status, b""), path
        for name in ("content-type", "content-length", "www-authenticate"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)


async def test_head_of_a_long_list_has_no_body_either(client: Client) -> None:
    tags = [f"{number:0128d}" for number in range(64)]
    for _ in range(LONG // (64 * 128)):
        await client.create(tags=tags)
    assert len(str((await client.get("/v2/nvcf/functions")).body)) > LONG
    for _ in range(2):
        head = await client.call("HEAD", "/v2/nvcf/functions")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"].startswith("application/json")
        assert int(head.headers["content-length"]) > LONG
