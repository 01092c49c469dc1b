"""Invocation tokens: for some functions, for a short time."""

from random import random
from uuid import uuid4

import pytest

from gateway.domain.model import EVERYTHING, ResourceScope
from gateway.errors import Forbidden, FunctionNotFound, Unauthenticated
from gateway.routing.admission import Admission
from gateway.routing.call_head import CallHead
from gateway.routing.router import Router
from tests.support.control import SCOPES, Client, deployment_path
from tests.support.identity import Clock, IdentityPlane

TOKENS = "/v2/nvcf/tokens/functions"


@pytest.fixture
async def client(plane: IdentityPlane, account: str) -> Client:
    return await plane.client(account, SCOPES | {"account_setup"})


class Invoker:
    """Invokes as the edge does, up to the queue."""

    def __init__(self, plane: IdentityPlane) -> None:
        router = Router(plane.catalog.model, random)
        self._admission = Admission(plane.api.authenticate, router)
        self._clock = plane.api.clock

    def admit(self, token: str, function_id: str, version_id: str | None = None) -> tuple[str, str]:
        """Return the version, and for whom it is invoked."""
        head = CallHead(function_id, version_id, f"Bearer {token}".encode(), None)
        caller = self._admission.admit(head, self._clock())
        return caller.version.version_id, caller.subject


@pytest.fixture
def invoker(plane: IdentityPlane) -> Invoker:
    return Invoker(plane)


async def running(client: Client) -> tuple[str, str]:
    """Return a function and its version that can be invoked, though nothing would serve it."""
    return await client.deployed(minInstances=0)


async def test_a_token_invokes_the_function_that_it_names_and_no_other(
    client: Client, invoker: Invoker
) -> None:
    function_id, version_id = await running(client)
    other, _ = await running(client)
    told = await client.post(f"{TOKENS}/{function_id}", {"clientId": "browser-7"})
    assert told.status == 200
    assert set(told.body) == {"access_token", "expires_in"}
    token = told.body["access_token"]
    assert invoker.admit(token, function_id) == (version_id, "browser-7")
    assert invoker.admit(token, function_id, version_id) == (version_id, "browser-7")
    with pytest.raises(Forbidden):
        invoker.admit(token, other)


async def test_a_token_for_a_version_is_not_for_the_function(
    client: Client, invoker: Invoker
) -> None:
    function_id, version_id = await running(client)
    told = await client.post(
        f"{TOKENS}/{function_id}/versions/{version_id}", {"clientId": "browser"}
    )
    token = told.body["access_token"]
    assert invoker.admit(token, function_id, version_id)[0] == version_id
    with pytest.raises(Forbidden):
        invoker.admit(token, function_id)


async def test_a_token_may_be_for_four_functions(client: Client, invoker: Invoker) -> None:
    made = [await running(client) for _ in range(2)]
    functions = [
        {"functionId": made[0][0]},
        dict(zip(("functionId", "functionVersionId"), made[1], strict=True)),
    ]
    told = await client.post(TOKENS, {"functions": functions, "clientId": "browser"})
    for function_id, version_id in made:
        invoker.admit(told.body["access_token"], function_id, version_id)
    many = {"functions": [{"functionId": str(uuid4())}] * 5, "clientId": "browser"}
    assert (await client.post(TOKENS, many)).status == 400
    assert (await client.post(TOKENS, {"functions": [], "clientId": "b"})).status == 400
    assert (await client.post(TOKENS, {"functions": functions})).status == 400


async def test_a_token_ends_by_itself(client: Client, invoker: Invoker, clock: Clock) -> None:
    function_id, _ = await running(client)
    told = await client.post(f"{TOKENS}/{function_id}", {"clientId": "browser"})
    clock.ahead_s = told.body["expires_in"] - 2
    invoker.admit(told.body["access_token"], function_id)
    clock.ahead_s = told.body["expires_in"] + 1
    with pytest.raises(Unauthenticated):
        invoker.admit(told.body["access_token"], function_id)


async def test_a_token_ends_with_the_key_that_it_was_made_with(
    plane: IdentityPlane, client: Client, invoker: Invoker, account: str
) -> None:
    function_id, _ = await running(client)
    admin = await plane.admin(account)
    policy = {
        "scopes": ["invoke_function"],
        "resources": [{"type": "function", "id": f"{function_id}/*"}],
    }
    made = (await admin.post("/v1/keys", {"authorizations": {"policies": [policy]}})).body
    key = plane.holder(made["value"])
    token = (await key.post(f"{TOKENS}/{function_id}", {"clientId": "b"})).body["access_token"]
    invoker.admit(token, function_id)
    assert (await admin.delete(f"/v1/keys/{made['id']}")).status == 204
    with pytest.raises(Unauthenticated):
        invoker.admit(token, function_id)


async def test_no_token_is_made_with_a_token_and_none_manages_anything(
    plane: IdentityPlane, client: Client
) -> None:
    function_id, version_id = await running(client)
    path = f"{TOKENS}/{function_id}"
    token = (await client.post(path, {"clientId": "browser"})).body["access_token"]
    holder = plane.holder(token)
    assert (await holder.post(path, {"clientId": "again"})).status == 403
    for method, at in (
        ("GET", "/v2/nvcf/functions"),
        ("DELETE", deployment_path(function_id, version_id)),
        ("GET", "/v1/keys"),
    ):
        assert (await holder.call(method, at)).status == 403


async def test_nobody_hands_on_what_they_cannot_invoke(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    function_id, version_id = await running(client)
    body = {"clientId": "browser"}
    stranger = await plane.client(f"other-{uuid4().hex}")
    assert (await stranger.post(f"{TOKENS}/{function_id}", body)).status == 404
    only = ResourceScope(versions=frozenset({f"{function_id}/{version_id}"}))
    narrow = await plane.client(account, SCOPES, only)
    assert (await narrow.post(f"{TOKENS}/{function_id}", body)).status == 403
    path = f"{TOKENS}/{function_id}/versions/{version_id}"
    assert (await narrow.post(path, body)).status == 200
    assert (await narrow.post(f"{TOKENS}/{function_id}/versions/{uuid4()}", body)).status == 404
    lister = await plane.client(account, frozenset({"list_functions"}), EVERYTHING)
    assert (await lister.post(f"{TOKENS}/{function_id}", body)).status == 403


async def test_a_shared_function_can_be_handed_on_until_it_is_not_shared(
    plane: IdentityPlane, client: Client, invoker: Invoker
) -> None:
    function_id, version_id = await running(client)
    friend_account = f"friend-{uuid4().hex}"
    friend = await plane.client(friend_account)
    party = {"authorizedParties": [{"ncaId": friend_account}]}
    at = f"/v2/nvcf/authorizations/functions/{function_id}"
    assert (await client.post(at, party)).status == 200
    told = await friend.post(f"{TOKENS}/{function_id}", {"clientId": "browser"})
    assert told.status == 200
    assert invoker.admit(told.body["access_token"], function_id)[0] == version_id
    await client.delete(at)
    with pytest.raises(FunctionNotFound):
        invoker.admit(told.body["access_token"], function_id)
