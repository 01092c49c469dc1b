"""Secrets: sealed in the store, opened for instances, never told."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.api.secrets.secret_store import SecretStore
from gateway.app.identity import Master
from gateway.auth.sealing import SealError
from gateway.domain.model import Secrets, SecretsKey
from gateway.store.account_store import AccountStores
from tests.support.control import SCOPES, Client, version_path
from tests.support.identity import IdentityPlane

VALUE = "hunter2-hunter2"


def at(function_id: str, version_id: str) -> str:
    return f"/v2/nvcf/secrets/functions/{function_id}/versions/{version_id}"


def body(**values: object) -> dict[str, object]:
    return {"secrets": [{"name": name, "value": value} for name, value in values.items()]}


@pytest.fixture
async def client(plane: IdentityPlane, account: str) -> Client:
    return await plane.client(account, SCOPES | {"update_secrets"})


async def opened(plane: IdentityPlane, account: str, ids: tuple[str, str]) -> Mapping[str, str]:
    """Return what an instance gets."""
    details = await plane.api.stores.of(account).details(*ids)
    assert details is not None
    return await plane.secret_store.of_version(details[0])


async def sealed(plane: IdentityPlane, ids: tuple[str, str]) -> Secrets:
    found = await plane.store.get(SecretsKey(*ids))
    assert found is not None
    assert isinstance(found[0], Secrets)
    return found[0]


async def test_instances_get_what_was_registered_and_what_was_set_later(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    ids = await client.create(**body(TOKEN=VALUE, OTHER="kept"))
    assert await opened(plane, account, ids) == {"TOKEN": VALUE, "OTHER": "kept"}
    told = await client.put(at(*ids), body(TOKEN="new", CONFIG={"a": [1, "b"]}))
    assert told.status == 204
    assert await opened(plane, account, ids) == {
        "TOKEN": "new",
        "OTHER": "kept",
        "CONFIG": '{"a":[1,"b"]}',
    }
    seen = (await client.get(version_path(*ids))).body["function"]
    assert sorted(seen["secrets"]) == ["CONFIG", "OTHER", "TOKEN"]


async def test_values_are_in_no_answer_no_log_and_not_in_the_store(
    plane: IdentityPlane, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ids = await client.create(**body(TOKEN=VALUE))
    answers = [
        await client.put(at(*ids), body(TOKEN=VALUE)),
        await client.put(at(*ids), body(**{"bad name": VALUE})),
        await client.put(at(*ids), {"secrets": [{"name": "A", "value": VALUE}] * 2}),
        await client.put(at(*ids), {"secrets": {"A": VALUE}}),
        await client.put(at(*ids), {"secrets": [{"name": VALUE * 10, "value": 1}]}),
        await client.get(version_path(*ids)),
        await client.get("/v2/nvcf/functions"),
    ]
    assert [told.status for told in answers] == [204, 400, 400, 400, 400, 200, 200]
    for told in answers:
        assert VALUE not in str(told.body)
    assert VALUE not in caplog.text
    for bucket in ("functions", "details", "secrets", "meta", "accounts"):
        for entry in await plane.store.entries(bucket):
            assert VALUE.encode() not in (entry.data or b"")
    assert VALUE not in repr(await sealed(plane, ids))


async def test_secrets_moved_to_another_version_do_not_open(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    """Whoever can write the store still cannot read one tenant's secrets as another."""
    victim = await client.create(**body(TOKEN=VALUE))
    thief_account = f"thief-{uuid4().hex}"
    thief = await plane.client(thief_account, SCOPES | {"update_secrets"})
    ids = await thief.create(**body(TOKEN="mine"))
    stolen, own = await sealed(plane, victim), await sealed(plane, ids)
    await plane.store.put(Secrets(own.function_id, own.version_id, thief_account, stolen.sealed))
    with pytest.raises(SealError):
        await opened(plane, thief_account, ids)


async def test_another_master_key_opens_nothing(
    plane: IdentityPlane, client: Client, account: str, tmp_path: Path
) -> None:
    ids = await client.create(**body(TOKEN=VALUE))
    stores = plane.api.stores
    assert isinstance(stores, AccountStores)
    other: SecretStore = Master(tmp_path / "other.key").secret_store(stores)
    found = await stores.of(account).details(*ids)
    assert found is not None
    with pytest.raises(SealError):
        await other.of_version(found[0])


async def test_secrets_of_others_are_not_set(plane: IdentityPlane, client: Client) -> None:
    ids = await client.create(**body(TOKEN=VALUE))
    other = await plane.client(f"other-{uuid4().hex}", SCOPES | {"update_secrets"})
    assert (await other.put(at(*ids), body(TOKEN="x"))).status == 404
    plain = await plane.client(client_account(plane, ids), SCOPES)
    assert (await plain.put(at(*ids), {"secrets": "?"})).status == 403


def client_account(plane: IdentityPlane, ids: tuple[str, str]) -> str:
    version = plane.catalog.version(*ids)
    assert version is not None
    return version.account


async def test_of_many_who_set_secrets_at_once_none_is_lost(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    ids = await client.create(**body(FIRST="0"))
    told = await asyncio.gather(
        *(client.put(at(*ids), body(**{f"S{n}": str(n)})) for n in range(12))
    )
    assert {one.status for one in told} == {204}
    assert await opened(plane, account, ids) == {
        "FIRST": "0",
        **{f"S{n}": str(n) for n in range(12)},
    }


async def test_too_much_is_refused_and_nothing_is_lost(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    ids = await client.create(**body(TOKEN=VALUE))
    much = {f"S{n}": "x" * 32_768 for n in range(17)}
    assert (await client.put(at(*ids), body(**much))).status == 400
    assert await opened(plane, account, ids) == {"TOKEN": VALUE}


async def test_with_the_version_its_secrets_go(plane: IdentityPlane, client: Client) -> None:
    ids = await client.create(**body(TOKEN=VALUE))
    assert (await client.delete(version_path(*ids))).status == 204
    assert await plane.store.get(SecretsKey(*ids)) is None
    assert (await client.put(at(*ids), body(TOKEN="x"))).status == 404


async def test_a_version_without_secrets_has_none(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    ids = await client.create()
    assert await opened(plane, account, ids) == {}
    assert (await client.put(at(*ids), body(TOKEN="first"))).status == 204
    assert await opened(plane, account, ids) == {"TOKEN": "first"}
